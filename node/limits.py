"""Limits that both the configuration and the protocol know."""

MAX_PEERS = 256
"""Of one roster: sizes of messages follow from it, and more peers than these are refused."""
