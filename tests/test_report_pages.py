"""report.html of runs and sweeps, and comparisons: made from real runs, looked at by a real browser."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import pytest

from btard import Experiment, Result, run
from btard.launcher.cli.flags import table_options
from btard.launcher.figures.chart import Axis, Chart, Dot, Series
from btard.launcher.figures.svg import Figure
from btard.launcher.options import sources
from btard.launcher.report import command, compare, run_page, sweep_page
from btard.launcher.report import page as report_page
from btard.launcher.run.run_directory import versions
from btard.launcher.sweep import engine, grid
from btard.launcher.sweep.engine import Ended, Running, Wish
from btard.launcher.sweep.grid import Cell
from btard.launcher.sweep.store import Store
from btard.node.errors import ConfigError
from tests.browser import Browser, Seen, axe, chromium, look
from tests.launching import LAUNCH, environment

ARCHIVED = Path(__file__).parent.parent / "docs" / "reports"
BASE = Experiment(backend="simulated", task="quadratic", device="cpu", steps=30, eval_every=10, attack_start=4)


class Nobody:
    """Watches nothing."""

    def tick(self, running: Sequence[Running], waiting: Sequence[Cell]) -> None:
        """Ignore it."""

    def ended(self, ended: Ended) -> None:
        """Fail at once."""
        assert ended.outcome == engine.DONE, ended.problem


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run in which both attackers are banned."""
    where = tmp_path_factory.mktemp("page") / "run"
    return run(Experiment(backend="simulated", task="quadratic", device="cpu", steps=60, eval_every=10, attack="noise",
                          byzantine=2, attack_start=4, run_dir=str(where)))  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep over attacks, numbers of attackers and rules."""
    store = Store(tmp_path_factory.mktemp("sweep"))
    cells = grid.cells(BASE, {"byzantine": [0, 2], "attack": ["noise", "zero"], "rule": ["centered_clip", "mean"]})
    store.enlist("rules", cells, ["btard-launch", "sweep", "--byzantine", "0,2"])
    engine.run(store, cells, Wish(cores=2), Nobody())
    return store.path


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory, mnist_directory: Path) -> Path:
    """The shape of the paper's quick plan: the real network and attacks, tiny batches, few steps."""
    out = tmp_path_factory.mktemp("paper") / "sweep"
    tiny = ("--steps", "16", "--batch-size", "4", "--attack-start", "3", "--eval-every", "16", "--seed", "0",
            "--attack", "sign_flip,label_flip,noise", "--data-dir", str(mnist_directory))  # fmt: skip
    done = subprocess.run([*LAUNCH, "sweep", "paper", "--quick", "--backend", "simulated", "--slim", "--no-check",
                           "--out", str(out), *tiny], env=environment(), capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"report: {out}" in done.stdout.replace("\n", "")
    return out


def _looked(page: Path, where: Path) -> Seen:
    seen = look(page, where)
    assert seen.complaints == ()
    assert seen.wider <= 0, "the page does not scroll sideways"
    assert len(seen.picture) > 20_000
    for name, (width, height, marks) in seen.figures.items():
        assert width > 300 and height > 80 and marks > 0, f"figure {name} is {width} x {height} with {marks} marks"
    return seen


@pytest.mark.slow
def test_the_page_of_a_run(attacked: Result, tmp_path: Path) -> None:
    page = run_page.write(attacked.run_dir)
    seen = _looked(page, tmp_path)
    assert set(seen.figures) == {"accuracy", "loss", "timeline", "sent", "traffic", "phases", "detection"}
    text = page.read_text()
    assert "--attack noise --byzantine 2 --attack-start 4" in text
    assert "--run-dir" not in text.partition("Repeat it")[2].partition("</pre>")[0]
    assert all(f"peer {ban.peer}" in text for ban in attacked.summary.bans)
    named = text.replace("http://www.w3.org/2000/svg", "").replace("https://github.com/leeoniya/uPlot", "")
    assert "http" not in named, "self-contained"
    assert len(text.encode()) < 300_000
    places = [text.index(f'<section id="{each}"') for each in re.findall(r'<a href="#(\w+)">', text)]
    assert len(places) == 8 and places == sorted(places), "the contents lead through the page in its order"
    with Browser(tmp_path, width=390) as phone:
        phone.open(page)
        assert phone.evaluate("document.documentElement.scrollWidth") <= 390


def _journals(run_dir: Path) -> dict[int, list[dict[str, Any]]]:
    return {
        int(path.parent.name): [json.loads(line) for line in path.read_text().splitlines()]
        for path in sorted(run_dir.glob("nodes/*/journal.jsonl"))
    }


def _scene(browser: Browser) -> dict[str, Any]:
    """What the replay shows now."""
    shown: dict[str, Any] = browser.evaluate("""(() => {
        const all = name => [...document.querySelectorAll('#replay-svg ' + name)];
        return {...document.querySelector('#replay-box').dataset,
            text: document.querySelector('#replay-text').textContent,
            peers: Object.fromEntries(all('[data-peer]').map(each => [each.dataset.peer, each.dataset.state])),
            arrows: all('line.arrow').map(each => [+each.dataset.from, +each.dataset.to]),
            parts: all('rect.part').length, coins: all('circle.coin').length};
    })()""")
    return shown


@pytest.mark.slow
def test_the_replay_shows_what_the_journals_hold_driven_by_keys(attacked: Result, tmp_path: Path) -> None:
    journals = _journals(attacked.run_dir)
    ban = next(line for line in journals[0] if line["event"] == "banned")
    step, peer, accuser = ban["step"], ban["peer"], ban["accuser"]
    commits = {line["step"]: line for line in journals[0] if line["event"] == "committed"}
    judges = {
        node
        for node, lines in journals.items()
        for line in lines
        if line["event"] == "accused" and (line["step"], line["accused"], line["accuser"]) == (step, peer, accuser)
    }
    with Browser(tmp_path, calm=True) as browser:
        browser.open(run_page.write(attacked.run_dir))
        for _ in range(60):
            browser.press("Tab")
            if browser.evaluate("document.activeElement.id") == "replay-box":
                break
        else:
            pytest.fail("the replay cannot be reached with the keyboard")
        browser.press(*["ArrowDown"] * sum(each < step for each in commits))
        scenes = [_scene(browser)]
        while scenes[-1]["scene"] != "end":
            browser.press("ArrowRight")
            scenes.append(_scene(browser))
        browser.press("ArrowRight")
        after = _scene(browser)
        browser.press("ArrowLeft")
        assert _scene(browser) == scenes[-1]
        browser.evaluate("document.activeElement.blur()")
        browser.press("Home")
        assert _scene(browser) == scenes[-1]
        browser.evaluate("document.querySelector('a[href=\"#replay\"]').click()")
        browser.press("Home")
        assert _scene(browser)["step"] == str(min(commits))
        assert not browser.complaints
    by = {each["scene"]: each for each in scenes}
    order = [each["scene"] for each in scenes]
    assert {each["step"] for each in scenes} == {str(step)}
    now = commits[step]
    for each in ("start", "end"):
        assert by[each]["arrows"] == [[int(a), b] for a, b in now["validators"].items()] == [[accuser, peer]]
    assert f"peer {accuser} to validate peer {peer}" in by["start"]["text"]
    for name, state in by["start"]["peers"].items():
        drawn = f"validates {now['validators'].get(name)}"
        expected = drawn if name in now["validators"] else "contributes" if int(name) in now["contributors"] else "out"
        assert state == expected
    assert by["parts"]["parts"] == len(now["contributors"]) * (len(now["active"]) - 1)
    assert by["aggregates"]["parts"] == len(now["active"]) * (len(now["active"]) - 1)
    assert by["coins"]["coins"] == len(now["active"]) and "values: not recorded" in by["coins"]["text"]
    charge = next(each for each in scenes if each["text"].startswith(f"peer {accuser} said that"))
    verdict = scenes[scenes.index(charge) + 1]
    assert charge["arrows"] == verdict["arrows"] == [[accuser, peer]]
    assert charge["peers"][str(peer)] == "accused" and "guilty" in verdict["text"]
    assert {int(name) for name, state in verdict["peers"].items() if state == "judges"} == judges - {peer}
    assert by["ban"]["peers"][str(peer)] == "removed" and ban["path"] in by["ban"]["text"]
    assert order.index("charge") < order.index("verdict") < order.index("ban") < order.index("end")
    assert now["state_digest"][:8] in by["end"]["text"]
    assert after["step"] == str(step + 1)
    out = {int(name) for name, state in after["peers"].items() if state == "out"}
    assert out == set(range(6)) - set(commits[step + 1]["active"]) == {peer}


@pytest.mark.slow
@pytest.mark.parametrize("calm", [False, True])
def test_the_replay_plays_and_moves_only_for_who_likes_it(calm: bool, attacked: Result, tmp_path: Path) -> None:
    with Browser(tmp_path, calm=calm) as browser:
        browser.open(run_page.write(attacked.run_dir))
        browser.evaluate("document.querySelector('#replay-box').focus()")
        browser.press(" ")
        shown = "document.querySelector('#replay-box').dataset.scene"
        button = "document.querySelector('[data-do=play]').textContent"
        assert (browser.evaluate(shown), browser.evaluate(button)) == ("start", "pause")
        browser.evaluate("""new Promise(done => new MutationObserver(done).observe(
            document.querySelector('#replay-box'), {attributeFilter: ['data-scene']}))""")
        browser.press(" ")
        assert browser.evaluate(button) == "play"
        browser.press(*["ArrowUp", "ArrowRight"])
        assert browser.evaluate(shown) == "parts"
        where = "[...document.querySelectorAll('#replay-svg rect.part')].map(each => each.getAttribute('x')).join()"
        frames = f"""new Promise(done => {{ const x = () => {where}; const first = x(); let left = 5;
            const look = () => x() !== first ? done(true) : left-- ? requestAnimationFrame(look) : done(false);
            requestAnimationFrame(look); }})"""
        assert browser.evaluate(frames) is not calm


def _plots(browser: Browser) -> dict[str, Any]:
    """What uPlot shows: by figure the steps from where to where, the value in the legend, and whether the SVG shows."""
    shown: dict[str, Any] = (
        browser.evaluate("""Object.fromEntries([...document.querySelectorAll("figure.live")].map(each => [
        each.id, {words: [...each.querySelectorAll(".u-legend tr")].map(row => row.textContent),
                  drawn: each.querySelector("svg").getClientRects().length,
                  canvas: each.querySelector("canvas").height}]))""")
    )
    return shown


@pytest.mark.slow
def test_curves_are_zoomed_and_read_with_keys_all_at_once(attacked: Result, tmp_path: Path) -> None:
    with Browser(tmp_path) as browser:
        browser.open(run_page.write(attacked.run_dir))
        assert _plots(browser).keys() == {"accuracy", "loss", "sent"}
        assert all(each["drawn"] == 0 and each["canvas"] > 200 for each in _plots(browser).values())
        browser.evaluate("document.querySelector('#loss .wide').focus()")
        browser.press(*["ArrowRight"] * 11)
        loss = {line["step"]: line["loss"] for line in _journals(attacked.run_dir)[0] if line["event"] == "committed"}
        assert set(loss) == set(range(61))
        accuracy = dict(attacked.summary.accuracy)
        read = {name: each["words"] for name, each in _plots(browser).items()}
        assert read["loss"][0] == read["sent"][0] == read["accuracy"][0] == "step10"
        assert float(read["accuracy"][1].removeprefix(f"{accuracy[60]:.4f} at the end")) == pytest.approx(
            accuracy[10], abs=1e-4
        )
        whole = browser.picture()
        browser.press("+", "+")
        near = browser.picture()
        browser.press("0")
        browser.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
        assert whole != near and browser.picture() == whole
        assert not browser.complaints


@pytest.mark.slow
def test_bands_over_draws_and_single_values_are_plotted_too(tmp_path: Path) -> None:
    points = [(0.0, 0.5), (5.0, 0.4), (9.5, float("nan")), (10.0, 0.6), (15.0, 0.7)]
    spread = [(x, y - 0.1, y + 0.1) for x, y in points if not math.isnan(y)]
    pictures = []
    for shown, dots in (((), ()), (spread, ()), ((), (Dot(12.0, 0.2, "report", "#ee6677"),))):
        line = Series("median", points, "#4477aa", spread=shown)
        drawn = Chart("accuracy", Axis("step", 0, 15), Axis("accuracy", 0, 1), [line], dots=dots)
        figure = Figure("accuracy", "Accuracy", drawn)
        body = f'<figure id="accuracy"><div class="wide" tabindex="0">{figure.html}</div></figure>'
        written = tmp_path / "page.html"
        written.write_text(report_page.render("archive.html", interactive=[figure], title="x", lead="y", body=body))
        with Browser(tmp_path) as browser:
            browser.open(written)
            assert _plots(browser).keys() == {"accuracy"} and not browser.complaints
            pictures.append(browser.picture())
    assert len(set(pictures)) == 3


@pytest.mark.slow
def test_a_curve_has_no_value_where_only_another_was_measured(tmp_path: Path) -> None:
    """Nor is it broken there: two runs are evaluated at steps of their own."""
    often = Series("often", [(0.0, 0.5), (5.0, 0.4), (10.0, 0.6)], "#4477aa")
    seldom = Series("seldom", [(0.0, 0.25), (9.5, float("nan")), (10.0, 0.75)], "#ee6677")
    drawn = Chart("accuracy", Axis("step", 0, 10), Axis("accuracy", 0, 1), [often, seldom])
    figure = Figure("accuracy", "Accuracy", drawn)
    body = f'<figure id="accuracy"><div class="wide" tabindex="0">{figure.html}</div></figure>'
    written = tmp_path / "page.html"
    written.write_text(report_page.render("archive.html", interactive=[figure], title="x", lead="y", body=body))
    with Browser(tmp_path) as browser:
        browser.open(written)
        browser.evaluate("document.querySelector('.wide').focus()")
        read = []
        for _ in range(3):
            browser.press("ArrowRight")
            read.append(_plots(browser)["accuracy"]["words"])
        assert read == [
            ["step0", "often0.5", "seldom0.25"],
            ["step5", "often0.4", "seldom\u2013"],
            ["step10", "often0.6", "seldom0.75"],
        ]
        assert not browser.complaints


@pytest.mark.slow
def test_without_scripts_the_drawn_figures_stay(attacked: Result, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(run_page.write(attacked.run_dir).read_bytes())
    with Browser(tmp_path, scripts=False) as browser:
        browser.open(page)
        assert len(browser.picture()) > 20_000
        tree = browser.document()
    assert tree.count("<figure id=") == 7 and 'class="live"' not in tree and 'class="uplot' not in tree
    assert (tree.count("<svg viewBox"), tree.count('<table class="heat')) == (6, 1)


@pytest.mark.slow
def test_tables_are_sorted_and_searched_with_keys(tmp_path: Path) -> None:
    page = ARCHIVED / "rules.html"
    cells = "[...document.querySelectorAll('#matrix-attack-final tbody td:nth-child(3)')]"
    column = f"{cells}.map(each => parseFloat(each.textContent))"
    with Browser(tmp_path) as browser:
        browser.open(page)
        before = browser.evaluate(column)
        browser.evaluate("document.querySelector('#matrix-attack-final thead th:nth-child(3) button').focus()")
        browser.press("Enter")
        assert browser.evaluate(column) == sorted(before) != before
        order = "document.querySelector('#matrix-attack-final thead th:nth-child(3)').getAttribute('aria-sort')"
        assert browser.evaluate(order) == "ascending"
        browser.press(" ")
        assert (browser.evaluate(column), browser.evaluate(order)) == (sorted(before, reverse=True), "descending")
        browser.evaluate("""(() => { const field = document.querySelector('#all-runs input[type=search]');
            field.value = 'fang krum'; field.dispatchEvent(new Event('input')); })()""")
        shown = browser.evaluate(
            "[...document.querySelectorAll('#all-runs tbody tr')].filter(each => !each.hidden).length"
        )
        assert browser.evaluate("document.querySelector('#all-runs output').textContent") == f"{shown} of 987"
        rows = re.findall("<tr><td>[0-9a-f]{16}<.*?</tr>", page.read_text())
        assert len(rows) == 987 and shown == sum("fang" in row and "krum" in row for row in rows) > 0
        assert not browser.complaints


_SHORTENED = (
    """for (const body of document.querySelectorAll("tbody")) [...body.rows].slice(12).forEach(row => row.remove())"""
)
"""Rows of a table are alike: a thousand of them would take axe-core minutes."""


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1100, False), (1100, True), (390, False)])
def test_archived_pages_bar_nobody(width: int, dark: bool, tmp_path: Path) -> None:
    pages = sorted(ARCHIVED.glob("*.html"))
    assert len(pages) == 9
    with Browser(tmp_path, width=width, dark=dark) as browser:
        for page in pages:
            browser.open(page)
            assert browser.evaluate("document.documentElement.scrollWidth") <= width, page.name
            browser.evaluate(axe())
            browser.evaluate(_SHORTENED)
            assert browser.evaluate(_FINDINGS) == [], page.name
        assert not browser.complaints


def test_archived_pages_have_contents_that_lead_somewhere() -> None:
    for page in ARCHIVED.glob("*.html"):
        text = page.read_text()
        links = re.findall(r'href="#([\w-]+)"', text)
        assert len(set(links)) > 2 and all(f'id="{link}"' in text for link in links), page.name


def test_what_is_not_ours_is_unchanged() -> None:
    """As the package uplot 1.6.32 has it; its licence lies beside it, and in every page that holds it."""
    assets = Path(run_page.__file__).parent / "assets"
    found = {path.name: sha256(path.read_bytes()).hexdigest() for path in assets.glob("uPlot*")}
    assert found == {
        "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
        "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
        "uPlot.LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
    }
    assert "(v1.6.32)" in (assets / "uPlot.iife.min.js").read_text()
    assert "MIT License" in (assets / "uPlot.LICENSE").read_text()


_FINDINGS = """(() => { for (const each of document.querySelectorAll('details')) each.open = true;
return axe.run().then(found => found.violations.filter(each => ['serious', 'critical'].includes(each.impact))
  .map(each => each.id + ': ' + each.nodes[0].html)); })()"""


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(1100, False), (1100, True), (390, False)])
def test_pages_bar_nobody(width: int, dark: bool, attacked: Result, swept: Path, tmp_path: Path) -> None:
    compared = tmp_path / "compare.html"
    compared.write_text(compare.make(attacked.run_dir, attacked.run_dir)[1])
    barring = tmp_path / "barring.html"
    barring.write_text('<html lang="en"><title>x</title><main style="color:#aaa;background:#fff">pale</main>')
    with Browser(tmp_path, width=width, dark=dark) as browser:
        for page in (run_page.write(attacked.run_dir), sweep_page.write(swept), compared, barring):
            browser.open(page)
            browser.evaluate(axe())
            found = browser.evaluate(_FINDINGS)
            assert (found == []) is (page != barring), found


EXACT = [
    {"lr": 0.0512345678, "momentum": 1 / 3, "tau": 1234567.0, "validate_every": 3},
    {"lr": 1e-7, "momentum": 0.5, "minimum_rate": 123456.75, "recompute_tolerance": 1.234567890123456e-8,
     "eval_every": None},
    {"delay": 0.0123456789, "jitter": 1e-05, "loss": 0.012345678901, "duplicate": 2 / 3, "bandwidth": 1234567.0,
     "link": ("0->1:delay=50ms,loss=1%", "*<->2:loss=0.5%")},
    {"delta_max": 12345678.5, "gradient_bound": 12.3456789, "delivery_bound": 1e-3 / 3, "attack_probability": 0.1 + 0.2,
     "attack": "alie:z=1.2345678901", "byzantine": 2, "encrypt_bulk": True, "worker_momentum": 0.123456789},
]  # fmt: skip


@pytest.mark.parametrize("changed", EXACT, ids=lambda changed: ",".join(changed))
def test_the_command_that_repeats_a_run_reads_back_as_the_same_run(changed: dict[str, object]) -> None:
    experiment = Experiment(**changed)
    words = run_page.repeat(experiment)
    assert words[0] == "btard-launch"

    @table_options
    def reads(**options: object) -> None:
        read.update(options)

    read: dict[str, object] = {}
    click.command()(reads).main(words[1:], standalone_mode=False)
    flags = {name: value for name, value in read.items() if name != "config" and value not in (None, ())}
    assert sources.resolve(flags, {}, None).experiment == experiment


def test_the_command_has_no_digits_that_it_does_not_need() -> None:
    assert run_page.repeat(Experiment(lr=0.1, tau=7.0, minimum_rate=2e6, delta_max=1234567.0)) == [
        "btard-launch", "--minimum-rate", "2e+06", "--lr", "0.1", "--tau", "7", "--delta-max", "1234567"
    ]  # fmt: skip


@pytest.mark.slow
def test_the_page_of_a_sweep(swept: Path, tmp_path: Path) -> None:
    seen = _looked(sweep_page.write(swept), tmp_path)
    kinds = ("final", "best", "latency", "bytes")
    assert {f"matrix-{axis}-{kind}" for axis in ("attack", "attackers") for kind in kinds} <= set(seen.figures)
    assert {"curves", "losses"} <= set(seen.figures)
    assert "detection-2-1-remove" in seen.figures


@pytest.mark.slow
def test_an_archive_has_the_page_of_its_sweep(swept: Path, tmp_path: Path) -> None:
    archive = Path(shutil.copy(swept / "results.parquet", tmp_path / "mine.parquet"))
    page = command.report(archive)
    assert page == tmp_path / "mine.html"
    assert page.read_text() == sweep_page.write(swept).read_text()
    made = versions()
    words = (f">6<td>{made.git_commit}", f"<td>{made.python}<td>{made.packages['torch']}<td>", made.processors)
    assert [word for word in words if word not in page.read_text()] == []
    assert compare.make(archive, swept)[0] == compare.make(swept, swept)[0]


@pytest.mark.slow
def test_attackers_that_nobody_looks_for_are_counted_apart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cells = grid.cells(BASE, {"byzantine": [2], "attack": ["zero"], "validators": [0, 1], "steps": [60]})
    store.enlist("validators", cells, ["btard-launch", "sweep"])
    engine.run(store, cells, Wish(cores=2), Nobody())
    facts = re.sub("<[^>]+>", " ", sweep_page.write(store.path).read_text())
    assert re.search(r"attackers banned\s+2 of 2\s+where nobody validates\s+0 of 2\s+honest peers banned\s+0", facts)


@pytest.mark.slow
def test_nobody_looks_for_attackers_in_a_comparison_run(tmp_path: Path) -> None:
    store = Store(tmp_path)
    cells = [
        *grid.cells(BASE, {"byzantine": [2], "attack": ["zero"], "steps": [60]}),
        *grid.cells(BASE, {"byzantine": [1], "attack": ["zero"], "topology": ["parameter_server"]}),
        *grid.cells(BASE, {"topology": ["ring"], "rule": ["mean"]}),
    ]
    store.enlist("topologies", cells, ["btard-launch", "sweep"])
    engine.run(store, cells, Wish(cores=2), Nobody())
    facts = re.sub("<[^>]+>", " ", sweep_page.write(store.path).read_text())
    assert re.search(r"attackers banned\s+2 of 2\s+where nobody validates\s+0 of 1\s+honest peers banned\s+0", facts)
    assert re.search(r"evidence checked\s+1 runs, 0 wrong", facts)


@pytest.mark.slow
@pytest.mark.mnist
def test_the_page_of_the_papers_plan(paper: Path, tmp_path: Path) -> None:
    page = paper / "report.html"
    seen = _looked(page, tmp_path)
    assert {"figure3", "figure4", "figure5", "figure6"} <= set(seen.figures)
    text = page.read_text()
    for quote in ("speed of convergence is not worsened", "label flipping being more impactful",
                  "nearly indistinguishable", "smaller changes in loss", "small variation"):  # fmt: skip
        assert quote in text
    assert "coin toss" in text
    assert "0.9831" in text, "the published final stands beside ours"


@pytest.mark.slow
def test_comparing_runs(attacked: Result, tmp_path: Path) -> None:
    other = run(Experiment(backend="simulated", task="quadratic", device="cpu", steps=60, eval_every=10, attack="zero",
                           byzantine=1, attack_start=4, run_dir=str(tmp_path / "other")))  # fmt: skip
    lines, page = compare.make(attacked.run_dir, other.run_dir)
    table = {line[0]: line[1:] for line in lines}
    assert table["--attack"] == ("noise", "zero", "")
    assert table["--byzantine"] == ("2", "1", "")
    a, b = attacked.summary.final_test_accuracy, other.summary.final_test_accuracy
    assert a is not None
    assert b is not None
    assert table["final test accuracy"][2] == f"{b - a:+.4g}"
    assert table["final parameters"][1] == "different"
    (tmp_path / "compare.html").write_text(page)
    assert set(_looked(tmp_path / "compare.html", tmp_path).figures) == {"accuracy", "loss"}
    same, _ = compare.make(attacked.run_dir, attacked.run_dir)
    assert ("final parameters", "", "the same bits as A's", "") in same


@pytest.mark.slow
def test_comparing_sweeps(swept: Path) -> None:
    lines, page = compare.make(swept, swept)
    table = {line[0]: line[1:] for line in lines}
    assert table["of the same configuration"] == ("6", "6", "")
    assert table["the same, equal configurations"][2] == "median +0.0000, +0.0000 to +0.0000"
    assert page.count("<tr>") > 6


@pytest.mark.slow
def test_what_is_neither(attacked: Result, swept: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither a run nor a sweep"):
        command.report(tmp_path)
    with pytest.raises(ConfigError, match="compare two of a kind"):
        compare.make(attacked.run_dir, swept)
    (tmp_path / "run.json").write_bytes((attacked.run_dir / "run.json").read_bytes())
    with pytest.raises(ConfigError, match="has the run ended"):
        command.report(tmp_path)


def test_a_machine_without_a_browser_says_so_and_ci_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="apt-get install chromium"):
        chromium()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(pytest.fail.Exception, match="axe-core-python"):
        axe()
    monkeypatch.setenv("CI", "")
    with pytest.raises(pytest.skip.Exception, match="NO BROWSER"):
        chromium()
