"""report.html of one run: what happened, in figures, and the command that repeats it."""

from __future__ import annotations

from pathlib import Path

from btard.launcher.files import write_atomically
from btard.launcher.monitor.summary_table import check_command
from btard.launcher.monitor.summary_table import rows as summary_rows
from btard.launcher.network.traffic import human
from btard.launcher.options import sources, syntax
from btard.launcher.options.table import OPTIONS
from btard.launcher.report import page, run_data
from btard.launcher.report.run_data import RunData
from btard.launcher.report.run_figures import FIGURES
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.roles import describe
from btard.launcher.sweep.grid import PLACE
from btard.launcher.verify import explanation
from btard.node.protocol.adjudication.offences import sentence

NAME = "report.html"


def write(run_dir: Path) -> Path:
    """Write report.html into a run directory; returns its path.

    Raises:
        ConfigError: it is no run directory, or the run has not ended.
        DataError: a file is damaged.
        BackendError: it cannot be written.
    """
    target = run_dir / NAME
    write_atomically(target, render(run_data.load(run_dir)).encode())
    return target


def render(run: RunData) -> str:
    """The page."""
    made = run.summary
    figures = [figure for draw in FIGURES if (figure := draw(run)) is not None]
    who = ", ".join(f"peer {peer}: {describe(role)}" for peer, role in run.roles.items()) or "nobody attacks"
    body = [
        page.facts(_facts(run)),
        *(page.show(figure) for figure in figures),
        page.section("Bans", _bans(run), page.folded("The story of every ban and dispute", _story(run))),
        page.section("Repeat it", page.command(repeat(run.record.experiment)), *_check(run)),
        page.section("Score", page.table(("", ""), summary_rows(made, run.record.experiment))),
        page.section("Configuration", _configuration(run)),
    ]  # fmt: skip
    return page.render(f"Run {run.path.name}", f"{run.record.started}; {who}", body)


def _check(run: RunData) -> tuple[str, ...]:
    """The command that checks the evidence; a comparison run has none."""
    if run.record.run.topology != "butterfly":
        return ()
    return (page.paragraph("Check the evidence of every ban, from public keys and public data alone:"),
            page.command(check_command(run.path.absolute(), run.record.experiment.imports)))  # fmt: skip


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
        else:
            unit = "s" if option.parse is syntax.latency else ""
            words += [option.flag, _exact(value) + unit if isinstance(value, float) else str(value)]
    return words


def _exact(value: float) -> str:
    """Text that reads back as the same number, without digits that it does not need."""
    short = f"{value:g}"
    return short if float(short) == value else repr(value).removesuffix(".0")


def _facts(run: RunData) -> list[tuple[str, str]]:
    made = run.summary
    accuracy = "unknown" if made.final_test_accuracy is None else f"{made.final_test_accuracy:.4f}"
    return [
        ("outcome", made.outcome),
        ("final test accuracy", accuracy),
        ("attackers caught", f"{len(made.byzantine) - made.undetected} of {len(made.byzantine)}"),
        ("honest peers banned", str(made.honest_banned)),
        ("agreement", "at every step" if made.agreement else "BROKEN"),
        ("bytes sent", human(made.bytes_sent.total)),
        ("backend", run.record.experiment.backend),
        ("wall time", f"{made.wall_seconds:.0f} s"),
    ]


def _bans(run: RunData) -> str:
    made = run.summary
    if not made.bans:
        return page.paragraph("Nobody was banned.")
    header = ("step", "peer", "it", "reason", "accuser", "attacked steps until then", "evidence")
    lines = [
        (ban.step, ban.peer, "attacks" if ban.byzantine else "IS HONEST", sentence(ban.reason),
         "seen by all" if ban.accuser is None else f"peer {ban.accuser}",
         made.detection_steps.get(str(ban.peer), ""), f"{ban.evidence} ({ban.evidence_digest[:12]})")
        for ban in made.bans
    ]  # fmt: skip
    return page.table(header, lines, numbers=(0, 1, 5))


def _story(run: RunData) -> str:
    nodes = range(run.record.run.peers)
    if not (run.path / "nodes").exists():
        return page.paragraph("The nodes' journals were not kept.")
    return "".join(page.paragraph(line) for line in explanation.tell(run.path, list(nodes)))


def _configuration(run: RunData) -> str:
    record = run.record
    shown = sources.show(
        sources.Settings(record.experiment, {o.field: record.sources.get(o.field, "") for o in OPTIONS})
    )
    versions = [(name, version or "not installed") for name, version in record.versions.packages.items()]
    commit = f"{record.versions.git_commit}{'' if record.versions.git_clean else ' (changed)'}"
    about = [("run", record.run_id), ("python", record.versions.python), ("platform", record.versions.platform),
             ("commit", commit), *versions]  # fmt: skip
    seeds = record.seeds
    protocol = "none: drawn from the system" if seeds.protocol is None else seeds.protocol
    derived = [("init", seeds.init), ("data", seeds.data), ("attack", seeds.attack), ("protocol", protocol)]
    return (
        page.table(("option", "value", "from"), shown)
        + page.table(("seed of", "value"), derived, numbers=(1,))
        + page.folded("Versions", page.table(("", ""), about))
    )
