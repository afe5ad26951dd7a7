"""What a paper writes about a cell: a paragraph of methods, and the works to cite."""
