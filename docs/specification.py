"""What sources mean by *PROTOCOL section N*, for docs/protocol.md."""

from __future__ import annotations

WORDS = """\
Sources and comments that say *PROTOCOL section N* mean the specification that this project was built from. It is not
part of the repository; these pages tell what has become of each section:
"""

SECTIONS = (
    ("1", "who takes part, what is assumed of the network, and what is promised",
     "[security](security.md), Model, Promises"),
    ("2", "the words: rosters, slots, prefixes, certificates", "this page"),
    ("3", "a step without disputes: its phases, and the checks V0 to V3", "this page; [security](security.md)"),
    ("4", "disputes: deadlines, suspicions, views, outcomes", "[security](security.md), Disputes"),
    ("5", "parts that are withheld or are not what was committed to", "[security](security.md); ADR 15"),
    ("6", "accusations, and who is banned for a false one", "this page, Charges and bans"),
    ("7", "what a ban does, and how a peer that was gone comes back", "[faults](faults.md), Recovery; ADR 13, 30"),
    ("8", "numbers: formats, tolerances, CenteredClip, the rate of detection",
     "[rules](rules.md); [detection](detection.md); ADR 5, 6"),
    ("9", "what the tests have to show, attack by attack",
     "[security](security.md), How it is tested; `tests/section9.py`"),
)  # fmt: skip
"""Number, subject and page of each section of the specification."""
