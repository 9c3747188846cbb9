"""The evidence of a ban: its format, its verifier and its explanation."""
