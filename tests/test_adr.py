"""Decisions: numbered without gaps, each with status and date, the index in step with them."""

from __future__ import annotations

import datetime
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "docs" / "adr"
DECISIONS = {int(page.name[:4]): page for page in sorted(FOLDER.glob("[0-9]*.md"))}
HEAD = re.compile(
    r"# (?P<number>\d+)\. (?P<title>.+)\n\n"
    r"- Status: (?:accepted(?:, amended by (?P<amended>.+))?|superseded by (?P<superseded>.+))\n"
    r"- Date: (?P<date>\d{4}-\d{2}-\d{2})\n\n## Context\n"
)


def test_numbers_have_no_gaps() -> None:
    assert list(DECISIONS) == list(range(1, len(DECISIONS) + 1))
    assert len(DECISIONS) == len(list(FOLDER.glob("*.md"))) - 1, "two decisions of one number, or one without"


@pytest.mark.parametrize("number", DECISIONS)
def test_a_decision_begins_with_status_and_date(number: int) -> None:
    head = HEAD.match(DECISIONS[number].read_text(encoding="utf-8"))
    assert head is not None, "title, `- Status: accepted`, `- Date: YYYY-MM-DD`, then Context"
    assert int(head["number"]) == number
    assert datetime.date.fromisoformat(head["date"])
    for link in re.findall(r"\[(\d+)\]\(([^)]+)\)", head["amended"] or head["superseded"] or ""):
        later = int(link[0])
        assert later > number and DECISIONS[later].name == link[1]
    named = head["amended"] or head["superseded"]
    assert named is None or re.fullmatch(r"\[\d+\]\([^)]+\)(?:, \[\d+\]\([^)]+\))*", named)


def test_the_index_has_every_title_in_order() -> None:
    index = re.findall(r"^(\d+)\. \[(.+)\]\((.+)\)$", (FOLDER / "README.md").read_text("utf-8"), re.MULTILINE)
    titles = {
        number: page.read_text("utf-8").split("\n", 1)[0].partition(". ")[2] for number, page in DECISIONS.items()
    }
    assert index == [(str(number), titles[number], page.name) for number, page in DECISIONS.items()]
