"""Networks as plain functions of a flat parameter vector."""
