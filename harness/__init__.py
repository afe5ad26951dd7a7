"""The harness: what to do (`plan`), doing it (`run`), telling it (`report`). They meet in the records."""
