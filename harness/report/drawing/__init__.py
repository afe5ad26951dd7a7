"""What all tables, figures and pictures of a report are made with; nothing here knows what it shows."""
