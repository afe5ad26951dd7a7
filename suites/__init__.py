"""The suites that ship with epsbench, and the JSON Schema of a suite."""
