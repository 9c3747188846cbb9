"""How the entries of tensors travel: float32, or bfloat16, the upper half of float32 (`--wire bf16`).

Vectors in memory are float32 either way. With bfloat16 parts and aggregates are rounded before they are committed to:
what is hashed, sent, aggregated, recomputed and judged are rounded values, and a frame has two bytes an entry. All of
it is integer arithmetic on bits: some processors' own conversions flush subnormal numbers.

Source: IEEE 754-2019, section 4.3.1 (roundTiesToEven); bfloat16 has float32's exponent and 8 significant bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from btard.node.errors import WireError
from btard.node.limits import ENTRY_BYTES, Wire
from btard.node.protocol.wire.encoding import tensor_bytes
from btard.node.protocol.wire.messages import BulkKind
from btard.node.vector_pool import POOL

_DROPPED_BITS = 16
_BELOW_HALF, _HALF = 0x7FFF, 0x8000
_UPPER, _MAGNITUDE, _NAN = 0xFFFF0000, 0x7FFFFFFF, 0x7FC00000


@dataclass(frozen=True, slots=True)
class Precision:
    """Entries of parts and aggregates as they travel; parameters and optimiser state always go as float32.

    Args:
        item_bytes: of an entry.
        relative, absolute: an aggregate's entry v is off by at most `max(relative |v|, absolute)`.
        blind_share: V2 recomputes a part whose rounding alone may hide more than this share of its radius.
        narrow: float32 is rounded to it; where not, nothing of this module is in the way of a step.
    """

    item_bytes: int
    relative: float
    absolute: float
    blind_share: float
    narrow: bool

    def of(self, kind: BulkKind) -> Precision:
        """What a tensor of this kind travels as."""
        return FLOAT32 if kind is BulkKind.STATE else self

    def rounded(self, values_P: Tensor) -> Tensor:
        """The nearest vector that can travel, ties to even: float32 `[P]`; NaN stays NaN, what is too large infinite.

        Args:
            values_P: float32 `[P]` on the CPU; itself if it travels as it is.
        """
        if not self.narrow:
            return values_P
        if not values_P.numel():
            return torch.empty(0)
        rounded_P, bits_P = POOL.empty(values_P.numel()), _bits(values_P)
        result_P = np.right_shift(bits_P, _DROPPED_BITS, out=_bits(rounded_P))
        result_P &= 1
        result_P += _BELOW_HALF
        result_P += bits_P
        result_P &= _UPPER
        numbers_P = bits_P.view(np.float32)
        if np.isnan(numbers_P.max()):  # the carry would make numbers of some
            result_P[np.isnan(numbers_P)] = _NAN
        return rounded_P

    def packed(self, values_P: Tensor) -> memoryview:
        """The bytes that travel, little-endian: of float32 its own, without a copy; of bfloat16 the upper halves.

        Args:
            values_P: float32 `[P]`, contiguous, on the CPU, as `rounded` gives it.
        """
        if not self.narrow or not values_P.numel():
            return tensor_bytes(values_P)
        count = values_P.numel()
        packed_P = POOL.empty(-(-count // 2)).numpy().view(np.uint16)[:count]
        np.right_shift(_bits(values_P), _DROPPED_BITS, out=packed_P, casting="unsafe")
        return packed_P.data.cast("B")

    def unpacked(self, data: bytes | bytearray | memoryview) -> Tensor:
        """The float32 `[P]` of bytes that travelled. Whatever bytes they are, `rounded` leaves their numbers alone.

        Raises:
            WireError: they are no whole number of entries.
        """
        if len(data) % self.item_bytes:
            raise WireError(f"tensor of {len(data)} bytes, no multiple of {self.item_bytes}")
        if not len(data):
            return torch.empty(0)
        if not self.narrow:
            return torch.frombuffer(bytearray(data), dtype=torch.float32)
        halves_P = np.frombuffer(data, np.dtype("<u2"))
        values_P = POOL.empty(len(halves_P))
        np.left_shift(halves_P, _DROPPED_BITS, out=_bits(values_P), dtype=np.uint32)
        return values_P

    def rounding(self, norm: float, entries: int) -> float:
        """How far (L2) rounding may have moved an aggregate: `relative ||v|| + absolute sqrt(P)`.

        Args:
            norm: `||v||` of the aggregate as it travelled.
            entries: P.
        """
        return self.relative * norm + self.absolute * math.sqrt(entries)

    def nearest(self, value_P: Tensor, to_P: Tensor) -> Tensor:
        """Of the vectors that `rounded` may take to `value_P`, the one nearest to `to_P`, entry by entry.

        A judge asks it for the aggregate before rounding: an honest one rounds to `value_P`, and lies no nearer to the
        judge's own in any entry than the result does.

        Args:
            value_P: as it travelled, float32 `[P]`, finite.
            to_P: float32 `[P]`, finite.
        """
        if not self.narrow:
            return value_P
        value_P, to_P = torch.from_numpy(_ordered(value_P)), torch.from_numpy(_ordered(to_P))
        nearest_P = torch.clamp(to_P, value_P - _HALF, value_P + _HALF).numpy()
        bits_P = np.where(nearest_P < 0, -nearest_P | ~np.int64(_MAGNITUDE), nearest_P).astype(np.uint32)
        return torch.from_numpy(bits_P.view(np.float32))


def _bits(values_P: Tensor) -> NDArray[np.uint32]:
    bits_P: NDArray[np.uint32] = values_P.detach().numpy().view(np.uint32)
    return bits_P


def _ordered(values_P: Tensor) -> NDArray[np.int64]:
    """Integers in the order of the numbers, whose neighbours are neighbouring numbers; both zeros are 0."""
    bits_P = _bits(values_P).astype(np.int64)
    ordered_P: NDArray[np.int64] = np.where(bits_P > _MAGNITUDE, -(bits_P & _MAGNITUDE), bits_P)
    return ordered_P


FLOAT32 = Precision(ENTRY_BYTES["float32"], 2.0**-23, 0.0, 1.0 / 128, narrow=False)
BF16 = Precision(ENTRY_BYTES["bf16"], 2.0**-8, 2.0**-134, 1.0 / 8, narrow=True)
"""Half a unit in the last place: `2^-8` of a number with 8 significant bits, and below the normal ones `2^-134`."""

PRECISIONS: dict[Wire, Precision] = {"float32": FLOAT32, "bf16": BF16}
