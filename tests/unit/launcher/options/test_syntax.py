"""How values are written."""

from __future__ import annotations

import pytest

from btard.launcher.options import syntax
from btard.node.config import Plugin
from btard.node.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", 2.0), ("2s", 2.0), (" 2.5 s ", 2.5), ("500ms", 0.5), ("5m", 300.0), ("5min", 300.0), ("1h", 3600.0),
        ("1e1s", 10.0), ("-1", -1.0),
    ],
)  # fmt: skip
def test_durations(text: str, expected: float) -> None:
    assert syntax.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "s", "2 days", "inf", "nan", "1e400", "two", "2 s s", "--2s"])
def test_wrong_durations_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is not a duration"):
        syntax.seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("noise", Plugin("noise")),
        ("noise:", None),
        ("noise:variant=small", Plugin("noise", {"variant": "small"})),
        ("alie:z=1.2,start=300", Plugin("alie", {"z": 1.2, "start": 300})),
        ("a:flag=true,other=No", Plugin("a", {"flag": True, "other": "No"})),
        ("a:x=none,y=-3,z=1e3", Plugin("a", {"x": None, "y": -3, "z": 1000.0})),
        (" a : x = 1 ", Plugin("a", {"x": 1})),
        ("a:x=b=c", Plugin("a", {"x": "b=c"})),
        ("", None), (":x=1", None), ("a:x", None), ("a:=1", None), ("a:x=", None), ("a:x=1,,y=2", None),
        ("a:x=1,x=2", None),
    ],
)  # fmt: skip
def test_one_plugin(text: str, expected: Plugin | None) -> None:
    if expected is None:
        with pytest.raises(ConfigError):
            syntax.plugin(text)
    else:
        assert syntax.plugin(text) == expected


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("noise", ["noise"]),
        ("noise+lie_checksum", ["noise", "lie_checksum"]),
        ("noise:scale=1e+3+shift:by=2", ["noise", "shift"]),
        ("a + b + c", ["a", "b", "c"]),
    ],
)
def test_several_plugins(text: str, names: list[str]) -> None:
    assert [each.name for each in syntax.plugins(text)] == names


def test_an_exponent_is_not_a_join() -> None:
    assert syntax.plugins("noise:scale=1e+3")[0].parameters == {"scale": 1000.0}


@pytest.mark.parametrize("text", ["noise", "alie:z=1.2,start=300", "a:flag=true,x=none,word=small"])
def test_written_text_reads_back(text: str) -> None:
    assert syntax.written(syntax.plugin(text)) == text


@pytest.mark.parametrize(("text", "expected"), [("yes", True), ("ON", True), ("0", False), ("off", False)])
def test_truth(text: str, expected: bool) -> None:
    assert syntax.boolean(text) is expected


@pytest.mark.parametrize("read", [syntax.boolean, syntax.integer, syntax.number])
def test_nonsense_is_refused(read: object) -> None:
    with pytest.raises(ConfigError, match="'maybe' is not"):
        read("maybe")  # type: ignore[operator]


@pytest.mark.parametrize(("text", "expected"), [("50ms", 0.05), ("2 s", 2.0), ("0", 0.0), ("1e-2s", 0.01)])
def test_latencies(text: str, expected: float) -> None:
    assert syntax.latency(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("500MB", 5e8), ("2 GB", 2e9), ("0", 0.0), ("1.5kb", 1500.0)])
def test_sizes(text: str, expected: float) -> None:
    assert syntax.size(text) == expected


@pytest.mark.parametrize("text", ["500", "-1MB", "1XB", "much", "1e400GB"])
def test_what_is_no_size_is_refused_with_the_name_of_its_option(text: str) -> None:
    problem = r"^--larger-than .* is no size with a unit; write 500MB or 2GB$"
    with pytest.raises(ConfigError, match=problem), syntax.naming("--larger-than"):
        syntax.size(text)


@pytest.mark.parametrize("text", ["50", "0.5", " 1e3 "])
def test_a_latency_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"has no unit \(ms, s, m, h, d\); write"):
        syntax.latency(text)


def test_a_negative_latency_is_refused_as_it_was_written() -> None:
    with pytest.raises(ConfigError, match=r"^'-50ms' is negative; write 50ms, or 0 for none$"):
        syntax.latency("-50ms")


@pytest.mark.parametrize(("text", "expected"), [("off", 0), ("OFF", 0), ("0", 0), ("29", 29)])
def test_a_number_or_off(text: str, expected: int) -> None:
    assert syntax.integer_or_off(text) == expected
