"""The options of a run: their table, how values are written, and where each comes from."""
