"""Verifying a finished run from the outside."""
