"""report.html of one run: what happened, in figures, and the command that repeats it."""

from __future__ import annotations

import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from btard.launcher.figures import svg
from btard.launcher.files import IN_A_RUN, write_atomically
from btard.launcher.monitor.state import Record, Undoing, undo_line
from btard.launcher.monitor.summary_table import check_command
from btard.launcher.monitor.summary_table import rows as summary_rows
from btard.launcher.network.traffic import human
from btard.launcher.options import sources, syntax
from btard.launcher.options.table import OPTIONS
from btard.launcher.report import page, replay, run_data
from btard.launcher.report.run_data import RunData
from btard.launcher.report.run_figures import FIGURES
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.roles import describe
from btard.launcher.run.run_directory import RunRecord
from btard.launcher.run.summary import BanRow
from btard.launcher.sweep.grid import PLACE
from btard.launcher.verify import explanation
from btard.node.config import RunConfig
from btard.node.protocol.adjudication.offences import sentence

NAME = "report.html"


def write(run_dir: Path) -> Path:
    """Write report.html into a run directory; returns its path.

    Raises:
        ConfigError: it is no run directory, or a launcher's run that has not ended.
        DataError: a file is damaged.
        BackendError: it cannot be written.
    """
    target, run = run_dir / NAME, run_data.load_either(run_dir)
    write_atomically(target, (render(run) if run.record is not None else render_peers(run)).encode(), option=IN_A_RUN)
    return target


def render(run: RunData) -> str:
    """The page of a launcher's run."""
    record = run.record
    assert record is not None
    experiment = record.experiment
    who = ", ".join(f"peer {peer}: {describe(role)}" for peer, role in run.roles.items()) or "nobody attacks"
    butterfly = record.run.topology == "butterfly"  # a comparison run has no evidence
    return page.render(
        "run.html",
        title=f"Run {run.path.name}",
        lead=f"{record.started}; {who}",
        **_told(run, record),
        repeat=shlex.join(repeat(experiment)),
        check=shlex.join(check_command(run.path.absolute(), experiment.imports)) if butterfly else "",
        score=summary_rows(run.summary, experiment),
        options=sources.show(experiment, record.sources),
        seeds=_seeds(record),
        versions=_versions(record),
    )


def render_peers(run: RunData) -> str:
    """The page of what peers tell whose files lie in one directory: nothing here says who attacks, and only the words
    of those peers count."""
    plain = RunConfig()
    different = [name for name in plain.__struct_fields__ if getattr(run.run, name) != getattr(plain, name)]
    options = [(name, msgspec.json.encode(getattr(run.run, name)).decode(), "genesis") for name in different]
    told = ", ".join(f"peer {node}" for node in run.nodes)
    return page.render(
        "run.html",
        title=f"Run {run.run_id}",
        lead=f"as its peers tell whose files are here: {told}",
        **_told(run, None),
        repeat="",
        check=shlex.join(check_command(run.path.absolute(), ())),
        score=(),
        options=options,
        seeds=(),
        versions=(),
    )


def _told(run: RunData, record: RunRecord | None) -> dict[str, Any]:
    """What every page has: facts, figures, bans and the story."""
    clock = "Times are seconds of the clocks that wrote the journals, from the first record on."
    kept = (run.path / "nodes").exists()
    told = list(explanation.attempts(run.path, range(run.run.peers))) if kept else []
    modelled = " They are of this machine: the network's own time is modelled." if run.simulated else ""
    figures = {
        question: [figure for draw in drawn if (figure := draw(run)) is not None] for question, drawn in FIGURES.items()
    }
    return {
        "about": _facts(run, record),
        "figures": figures,
        "interactive": [figure for drawn in figures.values() for figure in drawn],
        "bans": list(_bans(run)),
        "happened": _happened(run),
        "clock": clock + modelled,
        "story": explanation.in_words(told) if kept else ("The nodes' journals were not kept.",),
        "replay": replay.data(run, told),
        "colours": msgspec.json.encode(svg.COLOURS).decode(),
    }


def repeat(experiment: Experiment) -> list[str]:
    """The command line of an experiment, without what is at its default and without its place."""
    words = ["btard-launch"]
    for option in OPTIONS:
        value = getattr(experiment, option.field)
        if value == option.default or option.field in PLACE:
            continue
        if isinstance(value, bool):
            words.append(option.flag)
        elif isinstance(value, tuple):
            for item in value:
                words += [option.flag, str(item)]
        elif value is None:  # of what has another default
            words += [option.flag, "auto"]
        else:
            unit = "s" if option.parse is syntax.latency else ""
            words += [option.flag, _exact(value) + unit if isinstance(value, float) else str(value)]
    return words


def _exact(value: float) -> str:
    """Text that reads back as the same number, without digits that it does not need."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value).removesuffix(".0")


def _facts(run: RunData, record: RunRecord | None) -> list[tuple[str, str]]:
    made = run.summary
    agreement = ("agreement", "at every step" if made.agreement else "BROKEN")
    sent, wall = ("bytes sent", human(made.bytes_sent.total)), ("wall time", f"{made.wall_seconds:.0f} s")
    if record is None:
        removed = {row.peer for row in (*made.bans, *made.gone, *made.eliminated)}
        last = f"{made.accuracy[-1][1]:.4f}" if made.accuracy else "unknown"
        steps = ("steps", f"{made.steps} of {run.run.steps}")
        banned = ("peers banned or removed", str(len(removed)))
        return [("outcome", made.outcome), steps, ("last test accuracy", last), banned, agreement, sent, wall]
    accuracy = "unknown" if made.final_test_accuracy is None else f"{made.final_test_accuracy:.4f}"
    return [
        ("outcome", made.outcome),
        ("final test accuracy", accuracy),
        ("attackers caught", f"{len(made.byzantine) - made.undetected} of {len(made.byzantine)}"),
        ("honest peers banned", str(made.honest_banned)),
        agreement,
        sent,
        ("backend", record.experiment.backend),
        wall,
    ]


def _happened(run: RunData) -> list[tuple[object, ...]]:
    """(step, time, what, on whose evidence, test accuracy) of all that changed the run's course, in order."""
    seen: dict[tuple[int, str], list[Record]] = defaultdict(list)
    for event in run.events:
        if words := _turn(event):
            seen[event["step"], words].append(event)
    for step, words in zip(
        (min(run.commits), max(run.commits)) if run.commits else (), ("first", "last"), strict=False
    ):
        seen[step, f"the {words} step that is recorded is committed"] += run.commits[step].values()
    began = min((float(line["time"]) for lines in seen.values() for line in lines), default=0.0)
    rows: list[tuple[int, str, str, str]] = []
    for (step, words), lines in seen.items():
        after_s = min(float(line["time"]) for line in lines) - began
        lines.sort(key=lambda line: (line["node"] in run.roles, line["node"]))  # an honest peer's file is named
        rows.append((step, f"{after_s:.1f} s", words, _witnesses(lines)))
    for event in run.events:
        if event["event"] == "attacked" and event["steps"]:
            words = f"peer {event['node']} attacks, the first time of {len(event['steps'])}"
            rows.append((min(event["steps"]), "not recorded", words, "its own account, at its end"))
    return [(*row, _accuracy(run, row[0])) for row in sorted(rows, key=itemgetter(0))]


def _accuracy(run: RunData, step: int) -> str:
    """The last one that was evaluated up to a step."""
    known = [(at, value) for at, value in run.summary.accuracy if at <= step]
    return f"{known[-1][1]:.4f} (step {known[-1][0]})" if known else "not recorded"


def _turn(event: Record) -> str:
    """What a journal's line says of the run's course; empty: nothing."""
    match event["event"]:
        case "banned":
            out = "is banned" if event["standing"] == "banned" else f"is out, {event['standing']}"
            return f"peer {event['peer']} {out}: {sentence(event['reason'])}"
        case "undone":
            return undo_line(msgspec.convert(event, Undoing))
        case "returned":
            return f"peer {event['peer']} is back, after its probation"
        case "halted":
            return f"peer {event['node']} stops: {event['problem']}"
    return ""


def _witnesses(lines: Sequence[Record]) -> str:
    """Whose journals have a line, and what it rests on."""
    nodes = sorted({line["node"] for line in lines})
    told = f"journal{'s' if len(nodes) > 1 else ''} of peer{'s' if len(nodes) > 1 else ''} {', '.join(map(str, nodes))}"
    if lines[0]["event"] != "banned":
        return told
    accuser = lines[0]["accuser"]
    charge = "seen by all" if accuser is None else f"accused by peer {accuser}"
    return f"{charge}; judged by each; {told}; {lines[0]['path']}"


def _bans(run: RunData) -> Iterator[tuple[object, ...]]:
    made = run.summary
    for ban in made.bans:
        yield (
            ban.step,
            ban.peer,
            _it(run, ban),
            sentence(ban.reason),
            "seen by all" if ban.accuser is None else f"peer {ban.accuser}",
            made.detection_steps.get(str(ban.peer), ""),
            f"{ban.evidence} ({ban.evidence_digest[:12]})",
        )


def _it(run: RunData, ban: BanRow) -> str:
    """What a banned peer is, as far as anything here says."""
    if run.record is None:
        return "not known here"
    return "attacks" if ban.byzantine else "IS HONEST"


def _seeds(record: RunRecord) -> list[tuple[str, object]]:
    seeds = record.seeds
    protocol = "none: drawn from the system" if seeds.protocol is None else seeds.protocol
    return [("init", seeds.init), ("data", seeds.data), ("attack", seeds.attack), ("protocol", protocol)]


def _versions(record: RunRecord) -> list[tuple[str, object]]:
    made = record.versions
    commit = f"{made.git_commit}{'' if made.git_clean else ' (changed)'}"
    about = [("run", record.run_id), ("python", made.python), ("platform", made.platform)]
    about += [("processors", made.processors or "not recorded"), ("commit", commit)]
    return [*about, *((name, version or "not installed") for name, version in made.packages.items())]
