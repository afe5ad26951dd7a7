"""A site of static files over many results folders: leaderboards, a page a model and an attack, history."""
