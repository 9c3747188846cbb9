"""The names of tensors on the wire."""

from __future__ import annotations

from enum import Enum

import msgspec


class BulkKind(Enum):
    """Why a tensor travels: a contributor's part, an aggregate, or a publication that judging asked for."""

    PART = "part"
    AGGREGATE = "aggregate"
    PUBLICATION = "publication"


class BulkKey(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Names one tensor on the wire; unsigned, since a tensor is bound by the digest its owner signed.

    `owner` is the peer that committed to the bytes, `part` their place in the split of `step`.
    """

    step: int
    attempt: int
    kind: BulkKind
    owner: int
    part: int
