"""Records for papers and for other tools: figures, citations, and the formats that other programs read."""
