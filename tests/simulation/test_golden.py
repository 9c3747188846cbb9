"""The main disputes, word for word: a change of the protocol shows as a difference of text."""

from __future__ import annotations

import pytest

from tests.simulation.transcripts import DISPUTES, FOLDER, REGENERATE, transcript


@pytest.mark.parametrize("name", DISPUTES)
def test_a_dispute_goes_as_written_down(name: str) -> None:
    expected = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert transcript(name) == expected, f"if this is meant: {REGENERATE}, and read the difference"


def test_every_transcript_has_its_dispute() -> None:
    assert {file.stem for file in FOLDER.iterdir()} == set(DISPUTES)
