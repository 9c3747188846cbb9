"""Attacks, rules and tasks by name, and those from outside this package."""
