"""Metrics: their declarations, what feeds them, and the HTTP endpoint that serves them."""
