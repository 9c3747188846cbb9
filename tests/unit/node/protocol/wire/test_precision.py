"""Rounding to bfloat16 and its bytes, against fractions and against torch's own conversion."""

from __future__ import annotations

import struct
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import Tensor

from btard.node.errors import WireError
from btard.node.limits import ENTRY_BYTES
from btard.node.protocol.wire.messages import BulkKind
from btard.node.protocol.wire.precision import BF16, FLOAT32, PRECISIONS

LOWER = (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)
"""Below an upper half: itself, next to it, below, at and above the tie, next to the one above."""
HUGE = Fraction(2) ** 128
"""What lies behind the largest number."""


def of_bits(bits: object) -> Tensor:
    return torch.from_numpy(np.asarray(bits, np.uint32).view(np.float32))


def bits_of(values: Tensor) -> list[int]:
    found: list[int] = values.numpy().view(np.uint32).tolist()
    return found


def number(bits: int) -> Fraction:
    """The value of float32 bits; infinity as what lies behind the largest number."""
    sign, exponent, mantissa = (-1) ** (bits >> 31), bits >> 23 & 0xFF, bits & 0x7FFFFF
    if exponent == 0xFF:
        return sign * HUGE
    return sign * (
        Fraction(mantissa, 2**149) if exponent == 0 else (2**23 + mantissa) * Fraction(2) ** (exponent - 150)
    )


def nearest(bits: int) -> int:
    """The upper half whose value is nearest, of two equally near ones the even; as float32 bits."""
    below = bits & 0xFFFF0000
    above = below + 0x10000
    far, near = abs(number(above) - number(bits)), abs(number(bits) - number(below))
    return below if near < far or (near == far and below >> 16 & 1 == 0) else above


EVERY = np.array([upper << 16 | lower for upper in range(1 << 16) for lower in LOWER], np.uint32)


def test_every_upper_half_beside_and_at_its_ties_rounds_as_torch_rounds() -> None:
    values = of_bits(EVERY)
    ours, theirs = BF16.rounded(values), values.to(torch.bfloat16).float()
    known = ~values.isnan()
    assert bits_of(ours[known]) == bits_of(theirs[known])
    assert bool(ours[~known].isnan().all()) and bool(theirs[~known].isnan().all())
    assert bits_of(values) == EVERY.tolist(), "what is rounded is left as it was"


SPECIAL = {
    "zero": 0x00000000,
    "the smallest": 1,
    "below half of the smallest that travels": 0x7FFF,
    "half of it, a tie with zero": 0x8000,
    "above it": 0x8001,
    "one and a half of it, a tie": 0x18000,
    "the largest subnormal": 0x007FFFFF,
    "the smallest normal": 0x00800000,
    "one": 0x3F800000,
    "a tie to even below": 0x3F808000,
    "a tie to even above": 0x3F818000,
    "across a power of two": 0x3FFFFFFF,
    "2^40": 0x53800000,
    "below 2^40": 0x537FFFFF,
    "the largest that stays finite": 0x7F7F7FFF,
    "a tie with infinity": 0x7F7F8000,
    "the largest": 0x7F7FFFFF,
    "infinity": 0x7F800000,
}


@pytest.mark.parametrize("sign", [0, 1], ids=["plus", "minus"])
@pytest.mark.parametrize("bits", SPECIAL.values(), ids=SPECIAL)
def test_special_values_round_to_the_nearest_fraction(bits: int, sign: int) -> None:
    signed = bits | sign << 31
    expected = nearest(bits) if bits < 0x7F800000 else bits
    assert bits_of(BF16.rounded(of_bits([signed]))) == [expected | sign << 31]


@pytest.mark.parametrize("bits", [0x7F800001, 0x7FFFFFFF, 0x7FC00000, 0xFF800001, 0xFFFFFFFF])
def test_no_nan_becomes_a_number_on_its_way(bits: int) -> None:
    """The carry of 7FFFFFFF would end in -0, and the upper half of 7F800001 is infinity's."""
    rounded = BF16.rounded(of_bits([bits, 0x3F800001]))
    assert bits_of(rounded) == [0x7FC00000, 0x3F800000]
    assert bits_of(BF16.unpacked(BF16.packed(rounded))) == bits_of(rounded)


def test_random_values_round_to_the_nearest_fraction() -> None:
    drawn = np.random.default_rng(0).integers(0, 1 << 32, 4000, np.uint32)
    drawn = drawn[(drawn & 0x7FFFFFFF) < 0x7F800000]
    expected = [nearest(bits & 0x7FFFFFFF) | bits & 0x80000000 for bits in drawn.tolist()]
    assert bits_of(BF16.rounded(of_bits(drawn))) == expected


def test_the_bytes_are_torchs_bfloat16_little_endian_and_half_as_many() -> None:
    values = torch.randn(1001, generator=torch.Generator().manual_seed(0))
    rounded = BF16.rounded(values)
    packed = BF16.packed(rounded)
    assert bytes(packed) == values.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    assert len(packed) == 2 * 1001 and len(FLOAT32.packed(values)) == 4 * 1001
    assert bytes(BF16.packed(torch.tensor([1.0, -2.0]))) == struct.pack("<HH", 0x3F80, 0xC000)


def test_whatever_two_bytes_arrive_are_a_value_that_travels() -> None:
    every = np.arange(1 << 16, dtype="<u2").tobytes()
    values = BF16.unpacked(every)
    assert bytes(BF16.packed(values)) == every
    known = ~values.isnan()
    assert bits_of(BF16.rounded(values)[known]) == bits_of(values[known])


@pytest.mark.parametrize("data", [bytes(4), bytearray(4), memoryview(bytes(5))[1:]], ids=["bytes", "bytearray", "odd"])
def test_any_buffer_is_read(data: bytes) -> None:
    assert BF16.unpacked(data).tolist() == [0.0, 0.0] and FLOAT32.unpacked(data).tolist() == [0.0]


def test_no_entries_are_no_bytes() -> None:
    for each in PRECISIONS.values():
        assert (
            each.rounded(torch.empty(0)).numel() == len(each.packed(torch.empty(0))) == each.unpacked(b"").numel() == 0
        )


@pytest.mark.parametrize(("precision", "size"), [(BF16, 1), (BF16, 3), (FLOAT32, 2), (FLOAT32, 5)])
def test_parts_of_an_entry_are_refused(precision, size: int) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(WireError, match=f"{size} bytes, no multiple of {precision.item_bytes}"):
        precision.unpacked(bytes(size))


def test_float32_is_left_alone_and_a_state_always_is_float32() -> None:
    values = of_bits(EVERY)
    assert FLOAT32.rounded(values) is values and FLOAT32.nearest(values, values) is values
    assert bytes(FLOAT32.packed(values)) == EVERY.tobytes()
    assert {wire: precision.item_bytes for wire, precision in PRECISIONS.items()} == ENTRY_BYTES
    for kind in BulkKind:
        assert BF16.of(kind) is (FLOAT32 if kind is BulkKind.STATE else BF16)


def test_no_entry_is_off_by_more_than_v2_grants() -> None:
    """Half the distance to both neighbours of every value that travels, exactly; and some reach the bound."""
    reached = set()
    for upper in range(0x7F80):
        value = number(upper << 16)
        half = (number(upper + 1 << 16) - value) / 2 if upper < 0x7F7F else Fraction(2) ** 119
        bound = max(Fraction(BF16.relative) * value, Fraction(BF16.absolute))
        assert half <= bound
        if half == bound:
            reached.add("relative" if value else "absolute")
    assert reached == {"relative", "absolute"}
    assert BF16.rounding(3.0, 4) == 3.0 * 2.0**-8 + 2.0 * 2.0**-134
    assert FLOAT32.rounding(3.0, 4) == 3.0 * 2.0**-23


def test_the_nearest_that_rounds_to_a_value() -> None:
    """Ours where it rounds to the value or ties with it, else the end of the value's interval on our side."""
    dice = np.random.default_rng(1)
    upper = dice.integers(0, 0x7F7F, 3000, np.uint32) | dice.integers(0, 2, 3000, np.uint32) << 15
    ours = upper.astype(np.int64) * 0x10000 + dice.integers(-0x30000, 0x30000, 3000)
    ours = np.where((ours < 0) | (ours >= 1 << 32) | (ours & 0x7FFFFFFF >= 0x7F800000), 0, ours).astype(np.uint32)
    for value, our, found in zip(
        (upper << 16).tolist(), ours.tolist(), bits_of(BF16.nearest(of_bits(upper << 16), of_bits(ours))), strict=True
    ):
        low, high = sorted(number(value) + side * half(value, side) for side in (-1, 1))
        assert number(found) == min(max(number(our), low), high)


def half(bits: int, side: int) -> Fraction:
    """Half the distance from a value that travels to its neighbour on one side."""
    if bits & 0x7FFFFFFF == 0:
        return Fraction(1, 2**134)
    outwards = (side > 0) == (bits < 1 << 31)
    return abs(number(bits + (0x10000 if outwards else -0x10000)) - number(bits)) / 2
