"""Data sets: reading the prepared files (workers) and preparing them (`btard-launch data`)."""
