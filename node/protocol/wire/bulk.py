"""The names of tensors on the wire."""

from __future__ import annotations

from enum import Enum

import msgspec


class BulkKind(Enum):
    """Why a tensor travels: a contributor's part, an aggregate, a publication that judging asked for, or a vector of
    the agreed state, to a peer that comes back."""

    PART = "part"
    AGGREGATE = "aggregate"
    PUBLICATION = "publication"
    STATE = "state"

    # See Phase: keys of tensors are looked up by it.
    __hash__ = object.__hash__


class BulkKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Names one tensor on the wire; unsigned, since a tensor is bound by the digest its owner signed.

    `owner` is the peer that committed to the bytes, `part` their place in the split of `step`. Of the state before
    a step, part 0 are the parameters and part 1 is the optimiser's; it has no owner (0).
    """

    step: int
    attempt: int
    kind: BulkKind
    owner: int
    part: int
