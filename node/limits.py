"""Limits that both the configuration and the protocol know."""

from typing import Literal

MAX_PEERS = 256
"""Of one roster: sizes of messages follow from it, and more peers than these are refused."""

MAX_UNDO = 128
"""Steps in a window of undo: each costs every peer three vectors of the model's size."""

Wire = Literal["float32", "bf16"]
"""What the entries of parts and aggregates travel as (node/protocol/wire/precision.py)."""

ENTRY_BYTES: dict[Wire, int] = {"float32": 4, "bf16": 2}
"""Of such an entry."""
