"""report.html of runs and sweeps, and comparisons: made from real runs, looked at by a real browser."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest

from btard import Experiment, Result, run
from btard.launcher.cli.flags import table_options
from btard.launcher.options import sources
from btard.launcher.report import command, compare, run_page, sweep_page
from btard.launcher.sweep import engine, grid
from btard.launcher.sweep.engine import Ended, Running, Wish
from btard.launcher.sweep.grid import Cell
from btard.launcher.sweep.store import Store
from btard.node.errors import ConfigError
from tests.browser import Browser, Seen, axe, chromium, look
from tests.launching import LAUNCH, environment

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
    assert set(seen.figures) == {"accuracy", "loss", "timeline", "traffic", "phases", "detection"}
    text = page.read_text()
    assert "--attack noise --byzantine 2 --attack-start 4" in text
    assert "--run-dir" not in text.partition("Repeat it")[2].partition("</pre>")[0]
    assert all(f"peer {ban.peer}" in text for ban in attacked.summary.bans)
    assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), "self-contained"
    assert len(text) < 300_000
    places = [text.index(f'<section id="{each}">') for each in re.findall(r'<a href="#(\w+)">', text)]
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
    {"lr": 1e-7, "momentum": 0.5, "minimum_rate": 123456.75, "recompute_tolerance": 1.234567890123456e-8},
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
    assert "curves" in seen.figures
    assert "detection-2-1-remove" in seen.figures


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
