"""Programs for those who change this code: they measure it, and hold nothing."""
