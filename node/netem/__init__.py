"""Emulated networks: what links do to what is sent, the same for every driver."""
