"""Where workers run: one module per backend, all alike to the launcher."""
