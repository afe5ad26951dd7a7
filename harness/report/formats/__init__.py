"""How a report is written: text, Markdown, HTML, CSV and JSON. Nothing here decides what a report shows."""
