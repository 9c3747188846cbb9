"""The network that a user asks for, and what it did."""
