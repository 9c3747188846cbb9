"""The documentation says what the code does: generated pages are current, examples run, links lead somewhere."""

from __future__ import annotations

import html
import math
import re
import shlex
import statistics
import subprocess
import tomllib
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from btard import Experiment
from btard.launcher.cli.main import cli, main
from btard.launcher.detection import Setting, detection_distribution
from btard.launcher.options.table import OPTIONS
from btard.launcher.run import run_directory, summary
from btard.launcher.run.cluster import run as launched
from btard.launcher.sweep import store
from btard.launcher.sweep.plans import PLANS
from btard.node.adversary.registry import ATTACKS
from btard.node.aggregation.factory import build_rule
from btard.node.aggregation.registry import PRE_AGGREGATIONS, RULES
from btard.node.config import RELEASES, WIRE_VERSION, Plugin, Role, RunConfig, Schedule
from btard.node.drivers.simulator import cluster
from btard.node.plugins.registry import Registry
from btard.node.protocol.api import Banned
from btard.node.protocol.evidence.format import EVIDENCE_VERSION
from btard.node.storage import wal
from btard.node.training.registry import OPTIMISERS, SCHEDULES, SPLITS, TASKS, build_task
from btard.node.training.task import TaskContext
from docs import recompute, terminal
from docs.generate import PAGES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
WRITTEN = sorted(path for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_current(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


def test_every_summary_is_a_whole_sentence() -> None:
    registries: tuple[Registry[Any], ...] = (ATTACKS, RULES, PRE_AGGREGATIONS, TASKS, OPTIMISERS, SCHEDULES, SPLITS)
    entries = [entry for registry in registries for entry in registry]
    assert len(entries) > 50
    assert [entry.name for entry in entries if not entry.summary.endswith(".")] == []


def test_no_source_names_a_document_that_readers_do_not_have() -> None:
    """Sections of the specification are looked up by tests/test_spec.py."""
    assert not [entry.name for entry in ATTACKS if "CATALOGUE" in entry.source]


BEFORE_DISPUTES = "c0352f2"
"""The oldest commit that a page names."""


def test_commits_named_in_the_pages_exist() -> None:
    """What a figure was measured at can be looked up, where the whole history is there."""
    git = ["git", "-C", str(ROOT)]
    history = subprocess.run([*git, "log", "--format=%H"], capture_output=True, text=True)
    if f"\n{BEFORE_DISPUTES}" not in history.stdout:
        pytest.skip("NO WHOLE HISTORY: the commits that the pages name are not looked up here")
    for page in WRITTEN:
        for name in re.findall(
            r"\b(?:commit|worktree of|worktree add \w+)\s+([0-9a-f]{7,40})\b", page.read_text("utf-8")
        ):
            assert re.search(rf"^{name}", history.stdout, re.MULTILINE), f"{page.name}: {name}"


@pytest.mark.slow
@pytest.mark.mnist
@pytest.mark.usefixtures("scratch", "mnist_directory")
def test_the_answers_of_the_lesson_are_what_its_commands_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = " ".join((DOCS / "lesson.md").read_text().split())
    commands = dict(re.findall(r"^    btard-launch (.*--run-dir runs/(\w+))$", (DOCS / "lesson.md").read_text(), re.M))
    made = {}
    for words, name in commands.items():
        if name not in ("undefended", "defended", "noise"):
            continue
        with pytest.raises(SystemExit) as ended:
            main(shlex.split(words))
        assert ended.value.code == 0
        made[name] = summary.read(tmp_path / "runs" / name)
    defended, undefended = made["defended"], made["undefended"]
    (first, second), lies = defended.bans, defended.undone[0]
    assert [first.peer, second.peer, lies.suspects] == [5, 4, (5,)]
    assert f"until step {first.step}." in text and f"fell in step {first.step}. What became of its ten lies" in text
    assert len(lies.lies) == 10 and f"A liar attacked from step {lies.lies[0][0]} on" in text
    assert f"Peer {first.accuser} validates peer {first.peer}, and accuses it" in text
    assert (
        f"In step {lies.step} all of them were recomputed, and the parameters from before step {lies.to_step}" in text
    )
    assert f"{lies.lost} steps of training are lost" in text
    assert f"ends at {defended.final_test_accuracy:.2f}" in text
    assert f"and {undefended.final_test_accuracy:.3f}:" in text
    assert {(ban.step, ban.reason) for ban in undefended.bans} == {(7, "unusable")}
    models = [(tmp_path / f"runs/{name}/nodes/0/parameters.f32").read_bytes() for name in ("defended", "noise")]
    assert models[0] == models[1], "the same, bit for bit"


@pytest.mark.slow
def test_the_picture_of_the_end_is_what_the_program_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn anew from another run it has the same lines, but for what was run and what came out."""
    monkeypatch.setattr(terminal, "FIGURES", tmp_path)
    where = tmp_path / "run"
    asked = Experiment(task="quadratic", batch_size=2, steps=40, attack="noise", byzantine=2, attack_start=2,
                       backend="simulated", run_dir=str(where))  # fmt: skip
    launched(asked, argv=("btard-launch", "--steps", "40"))
    terminal.main(where)
    shown, drawn = (words(path) for path in (DOCS / "figures" / "run-end.svg", tmp_path / "run-end.svg"))
    assert "$ btard-launch --steps 40" in drawn
    # The keys of this simulated run derive from its seed, which is warned of; those of the run in the figure do not.
    assert labels(drawn).count("warning") == 1 and "warning" not in labels(shown)
    assert labels(shown) == [label for label in labels(drawn) if label != "warning"]
    assert {"outcome", "banned", "check", "report", "ok"} <= set(labels(drawn))


def words(figure: Path) -> list[str]:
    """The lines of a drawn terminal."""
    texts = re.findall(r'<text class="run-end-r[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>(.*?)</text>', figure.read_text())
    lines: dict[float, list[tuple[float, str]]] = {}
    for x, y, text in texts:
        lines.setdefault(float(y), []).append((float(x), html.unescape(text).replace("\xa0", " ")))
    # Blanks in front are not drawn: what does not begin at the edge continues the line above.
    whole = ((min(lines[y])[0], "".join(text for _, text in sorted(lines[y]))) for y in sorted(lines))
    return [(" " if edge > 0 else "") + text.rstrip() for edge, text in whole]


def labels(lines: list[str]) -> list[str]:
    """What the lines begin with, each once."""
    starts = (re.split(r"  +|: | the ", line)[0] for line in lines if line[:1].isalpha())
    return list(dict.fromkeys(starts))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("#"):
            headings = {
                line.lstrip("# ").strip().lower().replace(" ", "-")
                for line in text.splitlines()
                if line.startswith("#")
            }
            assert target[1:] in headings, target
        elif not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_options_named_in_the_readme_exist() -> None:
    text = re.sub(r"docker compose [^\n]*", "", (ROOT / "README.md").read_text(encoding="utf-8"))
    commands = [cli, *cli.commands.values()]
    known = {flag for command in commands for option in command.params for flag in option.opts} | {"--help"}
    assert {option.flag for option in OPTIONS} <= known
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known


def test_every_decision_is_listed_and_has_its_four_parts() -> None:
    index = (DOCS / "adr" / "README.md").read_text(encoding="utf-8")
    for page in sorted((DOCS / "adr").glob("0*.md")):
        assert f"({page.name})" in index
        headings = re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert headings == ["Context", "Decision", "Alternatives", "Consequences"], page.name


def example(page: Path, words: str) -> str:
    """The Python block of a page that contains `words`."""
    (block,) = [block for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL) if words in block]
    return str(block)


def bans(plugin: Plugin) -> dict[int, Banned]:
    """Six peers, two attackers from step 2 on: who is banned for what, as peer 0 sees it."""
    run = RunConfig(peers=6, task=Plugin("quadratic"), steps=60, batch_size=2)
    role = Role((plugin,), Schedule(start=2), (4, 5))
    simulated = cluster(run, build_task(run.task, TaskContext(Path("unused"), 2)), {4: role, 5: role}).run()
    seen = (one.output for one in simulated if one.node == 0 and isinstance(one.output, Banned))
    return {ban.peer: ban for ban in islice(seen, 2)}


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize(("page", "name"), [("README.md", "lazy"), ("CONTRIBUTING.md", "timid")])
def test_a_pages_attack_runs_and_is_caught(page: str, name: str) -> None:
    if name not in {entry.name for entry in ATTACKS}:  # a reader may have followed the page
        exec(example(ROOT / page, f'@attack("{name}"'), {"__name__": name})
    assert {peer: ban.reason for peer, ban in bans(Plugin(name, {"share": 0.1})).items()} == {
        4: "gradient",
        5: "gradient",
    }


@pytest.mark.usefixtures("scratch")
def test_the_messages_attack_runs_and_is_caught_at_once() -> None:
    exec(example(DOCS / "extending.md", '"modest"'), {})
    found = bans(Plugin("modest"))
    assert {peer: ban.reason for peer, ban in found.items()} == {4: "checksum", 5: "checksum"}
    assert min(ban.step for ban in found.values()) == 2
    assert max(ban.step for ban in found.values()) <= 3, "one of them was a validator first"


@pytest.mark.usefixtures("scratch")
def test_the_rule_runs_in_the_protocol() -> None:
    exec(example(DOCS / "extending.md", "def middle"), {})
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.75], [1.5, 1.0], [100.0, -100.0]])
    made = build_rule(Plugin("middle"))
    value = made.aggregate(rows, 5.0).value_P
    assert value.tolist() == [1.0, 0.75]
    assert made.audited
    assert made.accepts(rows, value, 5.0)
    assert not made.accepts(rows, value + 1, 5.0)


@pytest.mark.usefixtures("scratch")
def test_the_gradient_attack_and_the_task_run_and_are_caught() -> None:
    for words in ("def overshoot", "class Line"):
        exec(example(DOCS / "extending.md", words), {})
    assert {ban.reason for ban in bans(Plugin("overshoot")).values()} == {"gradient"}
    made = build_task(Plugin("line"), TaskContext(Path("unused"), 16))
    parameters_D = made.initial(0)
    assert made.evaluate(parameters_D, 0, 8) < 8
    for step in range(300):
        gradient_D, _ = made.gradient(parameters_D, step.to_bytes(32, "little"))
        parameters_D = parameters_D - 0.1 * gradient_D
    assert made.evaluate(parameters_D, 0, 8) == 8


SWEEPS = [DOCS / "experiments.md", DOCS / "rules.md", ROOT / "README.md"]


def swept(page: Path) -> list[str]:
    """The commands of a page that sweep: lines of code blocks, and whole ones in the text."""
    text = page.read_text(encoding="utf-8")
    indented = re.findall(r"^(?:    )?(btard-launch sweep .*)$", text, re.MULTILINE)
    return [*indented, *re.findall(r"`(btard-launch sweep [^`]+)`", text)]


@pytest.mark.slow
def test_the_sweeps_of_the_pages_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, so that a list of cells is there when it is read; --dry-run starts nothing."""
    monkeypatch.chdir(tmp_path)
    (file,) = re.findall(r"```toml\n(name = \"mine\".*?)```", SWEEPS[0].read_text(encoding="utf-8"), re.DOTALL)
    Path("mine.toml").write_text(file)
    commands = [command for page in SWEEPS for command in swept(page)]
    assert len(commands) >= 5
    for command in commands:
        line, _, reader = command.partition("|")
        _, *arguments = shlex.split(line, comments=True)
        done = CliRunner().invoke(cli, [*arguments, "--dry-run"])
        assert done.exit_code == 0, f"{command}: {done.exception}"
        assert done.stdout, command
        if reader:
            subprocess.run(reader, shell=True, input=done.stdout, text=True, check=True)


def test_the_rules_are_plain_functions() -> None:
    found: dict[str, Any] = {}
    exec(example(DOCS / "extending.md", "krum(nnm("), found)
    assert found["value"].tolist() == pytest.approx([0.1, 1.0])


def test_the_figures_of_the_detection_page_are_the_laws() -> None:
    page = DOCS / "detection.md"
    found: dict[str, Any] = {}
    exec(example(page, "law.hazard").replace("print(", "(lambda *_: None)("), found)
    law, text = found["law"], page.read_text()
    rows = {
        "protocol steps until both are gone": (f"{law.last_steps.mean:.1f}", law.last_steps.quantile(0.99)),
        "of them with an attacked gradient, the verdict's step included":
            (f"{law.last_attacked.mean:.2f}", law.last_attacked.quantile(0.99)),
        "the same, up to the last convicted gradient":
            (f"{law.last_attacked.mean - 1:.2f}", law.last_attacked.quantile(0.99) - 1),
    }  # fmt: skip
    for counted, (mean, quantile) in rows.items():
        assert f"| {counted} | {mean} | {quantile} |" in text
    assert f"{law.hazard:.4f}" in text


def test_the_figures_of_bans_that_reform_are_the_laws() -> None:
    lines = re.findall(
        r"^\|([ \d|.]*)\|$", (DOCS / "detection.md").read_text().split("## Bans that reform")[1], re.MULTILINE
    )
    rows = [[word.strip() for word in line.split("|")] for line in lines]
    assert len(rows) == 5
    for n, b, m, *told in rows:
        setting = Setting(int(n), int(b), int(m), start=100)
        gone = detection_distribution(setting, 600).last_steps
        law = detection_distribution(replace(setting, on_ban="reform"), 600)
        means = [gone.mean, law.last_steps.mean, law.tagged_contributed.mean - 1]
        assert [float(told[place]) for place in (0, 2, 4)] == pytest.approx(means, abs=0.051)
        assert [int(told[place]) for place in (1, 3)] == [gone.quantile(0.99), law.last_steps.quantile(0.99)]


@pytest.mark.parametrize("name", (*recompute.PAGES, *recompute.ARCHIVES))
def test_an_archived_page_concludes_what_its_runs_decide(name: str) -> None:
    assert recompute.page(name) == (DOCS / "reports" / f"{name}.html").read_text("utf-8"), "`python -m docs.recompute`"


@pytest.mark.parametrize(("name", "count"), [("paper", 70), ("paper-rest", 40), ("paper-quick", 12)])
def test_the_finals_of_an_archived_page_are_those_of_its_runs(name: str, count: int) -> None:
    """Tables of finals stay as they were written, each line a mean and a median over the runs that the page lists."""
    sweep, text = recompute.load(name), (DOCS / "reports" / f"{name}.html").read_text("utf-8")
    sections = r"<section[^>]*><h2>(?:Finals beside|Control: )([^<]*)<.*?(<table.*?</table>)"
    lines = [
        (control if "report" not in control else "", [html.unescape(re.sub("<.*?>", "", cell)) for cell in cells])
        for control, table in re.findall(sections, text, re.DOTALL)
        for cells in (line.split("<td")[1:] for line in table.split("<tr>")[2:])
    ]
    assert len(lines) == count
    for control, cells in lines:
        scheme, attack, _, mean, median, apart, *_, runs = (cell.partition(">")[2] for cell in cells)
        rows = sweep.select("clean" if attack == "none" else scheme, attack, control)
        finals = [row.final_test_accuracy or math.nan for row in rows]
        differences = [value for row in rows if (value := sweep.difference(row)) is not None]
        told = [float(mean), float(median), float(apart or 0), int(runs)]
        found = [
            statistics.fmean(finals),
            statistics.median(finals),
            statistics.median(differences or [0.0]),
            len(rows),
        ]
        assert told == pytest.approx(found, abs=5.1e-5), (control, cells)


def test_a_picture_that_is_read_back_ends_where_its_runs_did() -> None:
    """Each kind of the quick plan is one run, whose final accuracy the page's table has; its evaluations in slices give
    the same at the last step."""
    page = (DOCS / "reports" / "paper-quick.html").read_text("utf-8")
    (figure,) = re.findall('<figure id="figure4">.*?</figure>', page, re.DOTALL)
    finals = {
        str(row.options["attack"] or "baseline").replace("_", " "): row.final_test_accuracy or math.nan
        for row in recompute.load("paper-quick").rows
        if row.labels["scheme"] != "mild"
    }
    lines = recompute.pictured(figure)
    assert {line.name: line.points[-1] for line in lines} == {
        name: (900.0, pytest.approx(final, abs=0.00025)) for name, final in finals.items()
    }
    assert all([step for step, _ in line.points] == [50.0 * count for count in range(19)] for line in lines)


def test_the_claims_of_the_experiments_page_are_those_of_its_runs() -> None:
    """The accuracies by a way of their own: from the two archived pages to the differences, draw by draw."""
    page = (DOCS / "experiments.md").read_text()
    assert "\n".join(recompute.table()) in page, "`python -m docs.recompute` prints them"
    finals = {
        (row.labels["scheme"], row.options["attack"], row.options["seed"], row.options["protocol_seed"]):
            row.final_test_accuracy or math.nan
        for row in recompute.load("paper").rows if not row.labels.get("control")
    }  # fmt: skip
    assert len(finals) == 99
    told = dict(zip(("noise", "label_shuffle", "sign_flip", "label_flip", "constant_direction"),
                    re.findall("less clean, mean .*", page)[0].split("|")[2:-1], strict=True))  # fmt: skip
    for attack, word in told.items():
        apart = [value - finals["clean", None, seed, draw] for (scheme, name, seed, draw), value in finals.items()
                 if (scheme, name) == ("aggressive", attack)]  # fmt: skip
        assert float(word) == pytest.approx(statistics.fmean(apart), abs=5.1e-5)


def test_every_plan_has_a_budget() -> None:
    rows = re.findall(r"^\| `(\w+)( --quick)?` \| \d+ \|", (DOCS / "experiments.md").read_text(), re.M)
    assert {name for name, quick in rows if not quick} == set(PLANS)


def test_the_page_of_versions_has_todays() -> None:
    """The last release's row is what this program reads and writes."""
    release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    rows = [
        re.split(r" *\| *", line) for line in (DOCS / "versions.md").read_text().splitlines() if line.startswith("| ")
    ]
    *numbers, _, _ = rows[-1][1:]
    assert {int(row[2]): row[1] for row in rows[1:-1]} == RELEASES
    assert rows[0][2:4] == ["wire", "genesis, run.json, summary"] and run_directory.FORMAT == summary.FORMAT
    found = (WIRE_VERSION, run_directory.FORMAT, EVIDENCE_VERSION, wal.FORMAT, store.FORMAT)
    assert numbers == [release, *map(str, found)]
