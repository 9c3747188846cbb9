"""Limits that both the configuration and the protocol know."""

MAX_PEERS = 256
"""Of one roster: sizes of messages follow from it, and more peers than these are refused."""

MAX_UNDO = 128
"""Steps in a window of undo: each costs every peer three vectors of the model's size."""
