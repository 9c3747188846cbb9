"""Dashboards: the committed JSON is what the code builds, and every panel has data from a real run."""

from __future__ import annotations

import json
import math
import re
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from btard.launcher.assets import asset
from btard.launcher.containers.emit import GRAFANA_IMAGE
from btard.launcher.monitor import ground_truth
from btard.node.metrics.declarations import METRICS
from btard.node.protocol.adjudication.offences import OFFENCES
from dashboards.build import HERE, text
from dashboards.contents import CONTENTS, EXPLAINED, HAPPENED, REASONS
from dashboards.exempt import EXEMPT, GPU, LINK, Asked, annotations, expressions, replaced, unfolded
from dashboards.parts import asked_of_prometheus, attacked, guide
from tests.monitored import Monitored, promtool

NAMES = tuple(CONTENTS)
ANY_RUN = {"run_id": "RUN", "compare_run": "RUN", "node": "0"}
ASKED = [*expressions(HERE, ANY_RUN), *annotations(HERE, ANY_RUN)]
RECORDED = {rule["record"]
            for group in yaml.safe_load(asset("deploy", "prometheus", "rules", "recording.yml").read_text())["groups"]
            for rule in group["rules"]}  # fmt: skip
OTHERS = {"up", "ALERTS", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"}


def committed(name: str) -> dict[str, Any]:
    made: dict[str, Any] = json.loads((HERE / f"{name}.json").read_text())
    return made


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_json_is_what_the_code_builds(name: str) -> None:
    assert (HERE / f"{name}.json").read_text() == text(name), "run python -m dashboards.build"


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_takes_it_and_gives_it_back(name: str) -> None:
    """Through the models that Grafana's own schema generates: what they do not know is lost on the way."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder

    content = committed(name)
    for annotation in content["annotations"]["list"]:  # what the schema leaves open to the data source
        for field in asked_of_prometheus().get(annotation["name"], ()):
            del annotation[field]
    there = Dashboard.from_json(content)
    assert json.loads(json.dumps(there, cls=JSONEncoder)) == content


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_is_that_of_the_image(name: str) -> None:
    image = GRAFANA_IMAGE.rpartition(":")[2].rpartition(".")[0]
    assert version("grafana-foundation-sdk").partition("!")[2].rpartition(".")[0] == image
    assert committed(name)["schemaVersion"] == Dashboard().schema_version


@pytest.mark.parametrize("name", NAMES)
def test_panels_do_not_overlap_and_have_names_of_their_own(name: str) -> None:
    panels = unfolded(committed(name))
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert at["w"] > 0 and at["h"] > 0 and at["x"] >= 0 and at["y"] >= 0, panel["title"]
        taken |= cells
    assert len(taken) == 24 * (1 + max(y for _, y in taken)), "a hole beside a panel"


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_stands_under_a_question(name: str) -> None:
    panels = unfolded(committed(name))
    rows = [place for place, panel in enumerate(panels) if panel["type"] == "row"]
    folded = {panel["title"] for panel in panels if panel["type"] == "row" and panel["panels"]}
    assert folded == {row.question for row in CONTENTS[name] if row.folded} != set()
    assert rows[0] == 0
    assert all(after - before > 1 for before, after in pairwise([*rows, len(panels)])), "a row without panels"
    assert all(panels[place]["title"].endswith("?") for place in rows)
    # Grafana drops a closed row's panels that stand beside it, and an open row's that stand in it.
    assert {panel["title"] for panel in panels if panel.get("collapsed")} == folded
    order = [(panel["gridPos"]["y"], panel["gridPos"]["x"]) for panel in panels]
    assert order == sorted(order)


UNITS = {"none", "s", "percentunit", "decbytes", "Bps", "ops", "suffix:cores", "suffix:steps/s", "suffix:samples/s"}
NUMBERS = {"Training loss", "Loss", "Learning rate", "Attackers found"}
"""Panels whose values have no unit."""


@pytest.mark.parametrize("name", NAMES)
def test_every_panel_says_what_it_shows_in_which_unit_and_where_the_guide_explains_it(name: str) -> None:
    for panel in unfolded(committed(name)):
        if panel["type"] == "row":
            continue
        about, _, page = panel["description"].rpartition(" Guide: docs/")
        assert about and anchored(page), panel["title"]
        defaults = panel["fieldConfig"]["defaults"]
        own_units = panel["type"] == "table" and defaults["unit"] == "short"  # each column has its own
        assert defaults["unit"] in UNITS or own_units or defaults.get("mappings") or panel["title"] in NUMBERS


def anchored(page: str) -> bool:
    """True if a page below docs/ has a heading with that anchor, as forges make them."""
    path, _, anchor = page.partition("#")
    headings = re.findall(r"^#+ (.+)$", (HERE.parent / "docs" / path).read_text("utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_a_page_of_the_guide_is_a_link_once_the_project_has_a_homepage() -> None:
    assert guide("undo.md#undo", "") == "docs/undo.md#undo"
    assert guide("undo.md#undo", "https://a.b") == "[docs/undo.md#undo](https://a.b/blob/HEAD/docs/undo.md#undo)"


@pytest.mark.parametrize("name", NAMES)
def test_a_legend_is_a_list_below_its_graph(name: str) -> None:
    """A table at the side may take three fifths of the width."""
    for panel in unfolded(committed(name)):
        if panel["type"] == "timeseries":
            legend = {"showLegend": True, "displayMode": "list", "placement": "bottom", "calcs": []}
            assert panel["options"]["legend"] == legend, panel["title"]


def test_the_overview_begins_with_the_peers_in_colours_and_words() -> None:
    panel = unfolded(committed("overview"))[1]
    assert (panel["type"], panel["gridPos"]["w"], panel["options"]["showValue"]) == ("state-timeline", 24, "auto")
    assert "btard_peer_state" in panel["targets"][0]["expr"]


def test_the_traffic_matrix_has_one_hue_from_zero() -> None:
    (panel,) = (each for each in unfolded(committed("network")) if each["title"] == "Traffic matrix")
    defaults = panel["fieldConfig"]["defaults"]
    assert (defaults["color"]["mode"], defaults["min"]) == ("continuous-blues", 0)
    assert defaults["custom"]["cellOptions"] == {"type": "color-background", "mode": "basic"}
    (senders,) = panel["fieldConfig"]["overrides"]
    assert {"id": "custom.cellOptions", "value": {"type": "auto"}} in senders["properties"]


def test_panels_of_modelled_links_stand_alone_in_a_folded_row_that_says_what_gives_them_data() -> None:
    rows = [each for each in committed("network")["panels"] if each["title"].startswith("Do modelled links")]
    needing = {panel for (dashboard, panel, _), needs in EXEMPT.items() if (dashboard, needs) == ("network", LINK)}
    assert {panel["title"] for row in rows for panel in row["panels"]} == needing
    assert "--delay, --loss, --bandwidth or --link give data" in rows[0]["title"]


# --- what a stat says ---------------------------------------------------------------------------------------------

STATS = [(name, panel) for name in NAMES for panel in unfolded(committed(name)) if panel["type"] == "stat"]

SAID: dict[tuple[str, str], dict[float, tuple[str | None, str]]] = {
    ("overview", "Run"): {-2: ("launcher gone", "red"), -1: ("no step yet", "blue"),
                          0: ("no step for 30 s", "orange"), 1: ("training", "green"), 2: ("finished", "blue")},
    ("overview", "Step"): {-1: ("none yet", "text"), 0: (None, "text"), 160: (None, "text")},
    ("overview", "Steps per second"): {0: (None, "text"), 90: (None, "text")},
    ("overview", "Test accuracy"): {0.1: (None, "text"), 0.98: (None, "text")},
    ("overview", "Active peers"): {0: (None, "text"), 100: (None, "text")},
    ("overview", "Nodes down"): {0: ("none", "green"), 1: (None, "red"), 3: (None, "red")},
    ("overview", "Alerts"): {0: ("none", "green"), 1: ("info", "blue"), 2: ("warning", "orange"),
                             3: ("critical", "red")},
    ("overview", "Attackers found"): {0: (None, "orange"), 0.5: (None, "orange"), 1: (None, "green")},
    ("overview", "Honest peers banned"): {0: ("none", "green"), 1: (None, "red"), 4: (None, "red")},
    ("overview", "Peers gone"): {0: ("none", "green"), 1: (None, "orange")},
    ("overview", "Slowest ban"): {0: (None, "text"), 300: (None, "text")},
    ("node", "Reachable"): {0: ("DOWN", "red"), 1: ("UP", "green"), 2: ("run over", "blue")},
    ("node", "Standing"): {0: ("joining", "blue"), 1: ("active", "green"), 2: ("accused", "orange"),
                           3: ("banned", "red"), 4: ("gone", "yellow")},
    ("node", "Role"): {0: ("honest", "text"), 1: ("attacker", "purple")},
    ("node", "Validator"): {0: ("no", "text"), 1: ("yes", "purple")},
    ("node", "Active peers"): {0: (None, "text"), 100: (None, "text")},
    ("node", "Step"): {-1: ("none yet", "text"), 160: (None, "text")},
    ("node", "Accuracy"): {0.1: (None, "text"), 0.98: (None, "text")},
    ("node", "Loss"): {0: (None, "text"), 99: (None, "text")},
    ("node", "Learning rate"): {0: (None, "text"), 99: (None, "text")},
    ("node", "Samples per second"): {0: (None, "text"), 9999: (None, "text")},
}  # fmt: skip
"""What each stat says of values, as word (None: the number) and colour."""


def said(panel: dict[str, Any], value: float) -> tuple[str | None, str]:
    """As Grafana does: a mapped value has its text and colour, any other the colour of the last threshold below it."""
    defaults = panel["fieldConfig"]["defaults"]
    names = {key: each for mapping in defaults.get("mappings", ()) for key, each in mapping["options"].items()}
    if f"{value:g}" in names:
        return names[f"{value:g}"]["text"], names[f"{value:g}"]["color"]
    steps = defaults["thresholds"]["steps"]
    return None, [step["color"] for step in steps if step["value"] is None or step["value"] <= value][-1]


@pytest.mark.parametrize(("name", "panel"), STATS, ids=lambda each: each if isinstance(each, str) else each["title"])
def test_a_stat_says_what_its_value_means(name: str, panel: dict[str, Any]) -> None:
    """Grafana's own thresholds, green below 80 and red above, would make step 160 red and a dead node green."""
    defaults = panel["fieldConfig"]["defaults"]
    steps = defaults["thresholds"]["steps"]
    assert (defaults["color"]["mode"], defaults["thresholds"]["mode"]) == ("thresholds", "absolute")
    assert steps[0]["value"] is None
    assert [step["value"] for step in steps[1:]] == sorted(step["value"] for step in steps[1:])
    expected = SAID[name, panel["title"]]
    assert {value: said(panel, value) for value in expected} == expected
    if {color for _, color in expected.values()} == {"text"}:
        assert [step["color"] for step in steps] == ["text"], "neither good nor bad, whatever the number"
    if any(re.search(r'\bup{[^}]*node="\$node"', target["expr"]) for target in panel["targets"]):
        word, color = said(panel, 0)
        assert (word, color) == ("DOWN", "red")


def test_every_stat_is_in_the_table() -> None:
    assert [(name, panel["title"]) for name, panel in STATS] == list(SAID)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_asked_once_reaches_back_to_a_run_that_has_ended(name: str) -> None:
    """Else the values of a finished run would be gone from tables five minutes after its last scrape, or at once."""
    for panel in unfolded(committed(name)):
        for target in panel.get("targets", ()):
            assert not target["instant"] or "[$__range" in target["expr"], panel["title"]
        if panel["type"] == "table":
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"] == [{"value": None, "color": "text"}]


@pytest.mark.parametrize("name", NAMES)
def test_an_axis_starts_at_zero_and_does_not_magnify_it(name: str) -> None:
    """A count that stays 0 would otherwise run through the middle of an axis from -1 to 1."""
    for panel in unfolded(committed(name)):
        if panel["type"] == "timeseries":
            custom = panel["fieldConfig"]["defaults"]["custom"]
            defaults = panel["fieldConfig"]["defaults"]
            lowest = custom["axisSoftMin"] if panel["title"] == "Training loss" else defaults["min"]
            assert lowest == 0 < custom["axisSoftMax"], panel["title"]


def test_the_alerts_that_fired_say_what_to_do() -> None:
    (panel,) = (each for each in unfolded(committed("overview")) if each["title"] == "Alerts that fired")
    (column,) = (each for each in panel["fieldConfig"]["overrides"] if each["matcher"]["options"] == "What to do")
    (mapping,) = next(each["value"] for each in column["properties"] if each["id"] == "mappings")
    rules = yaml.safe_load(asset("deploy", "prometheus", "rules", "alerts.yml").read_text())["groups"][0]["rules"]
    assert {name: each["text"] for name, each in mapping["options"].items()} == {
        rule["alert"]: rule["annotations"]["runbook"] for rule in rules
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_dashboard_leads_to_the_others_and_every_legend_of_a_node_to_its_page(name: str) -> None:
    made = committed(name)
    assert {link["url"] for link in made["links"]} == {f"/d/btard-{other}" for other in NAMES if other != name}
    assert {variable["name"] for variable in made["templating"]["list"]} >= {"datasource", "run_id", "compare_run"}
    for panel in unfolded(made):
        legends = " ".join(target["legendFormat"] for target in panel.get("targets", ()))
        links = json.dumps(panel.get("fieldConfig"))
        for label in re.findall(r"{{(node|peer)}}", legends):
            assert f"var-node=${{__field.labels.{label}}}" in links, panel["title"]


def test_every_event_has_its_page_and_every_ban_its_reason() -> None:
    actions = {"kill", "restart", "pause", "continue", "begins", "ends"}
    assert EXPLAINED.keys() == {*ground_truth._EVENTS, "undone", *actions}
    assert all(anchored(page.removeprefix("docs/")) for page, _ in EXPLAINED.values())
    assert REASONS.keys() == {*OFFENCES, "commit", "retry"}


EVENTS = """
interval: 1s
input_series:
  - {series: 'btard_scenario_event_total{run_id="RUN", event="banned"}', values: 0 2}
  - {series: 'btard_scenario_event_total{run_id="RUN", event="disputed"}', values: 0 3}
  - {series: 'btard_scenario_event_total{run_id="RUN", event="halted"}', values: 0 0}
  - {series: 'btard_scenario_event_total{run_id="RUN", event="returned"}', values: 0 2}
  - {series: 'btard_peer_banned_step{run_id="RUN", peer="1", reason="checksum"}', values: _ 7}
  - {series: 'btard_peer_banned_step{run_id="RUN", peer="3", reason="gradient"}', values: _ 0}
  - {series: 'btard_disputes_total{run_id="RUN", node="0", outcome="retry"}', values: 0 3}
  - {series: 'btard_disputes_total{run_id="RUN", node="1", outcome="commit"}', values: 0 0}
  - {series: 'btard_steps_undone_total{run_id="RUN", node="0"}', values: 0 4}
  - {series: 'btard_steps_undone_total{run_id="OTHER", node="0"}', values: 0 9}
promql_expr_test:
  - {expr: EVENTS, eval_time: 0s, exp_samples: []}
  - expr: EVENTS
    eval_time: 1s
    exp_samples:
      - {labels: '{event="banned", peer="1", reason="checksum"}', value: 1}
      - {labels: '{event="banned", peer="3", reason="gradient"}', value: 1}
      - {labels: '{event="disputed", reason="retry"}', value: 3}
      - {labels: '{event="returned"}', value: 2}
      - {labels: '{event="undone"}', value: 4}
"""


def test_the_events_tell_bans_and_disputes_by_reason_and_all_others_by_kind(tmp_path: Path) -> None:
    """A ban is one line with its reason, whatever the launcher counts; what has not happened has no line."""
    test = yaml.safe_load(EVENTS)
    for asked in test["promql_expr_test"]:
        asked["expr"] = f"max by (event, peer, reason) ({replaced(HAPPENED, ANY_RUN)})"
    (tmp_path / "events.yml").write_text(yaml.safe_dump({"evaluation_interval": "1s", "tests": [test]}))
    code, output = promtool("test", "rules", tmp_path / "events.yml")
    assert code == 0, output


def test_every_expression_is_parsed_by_promtool_and_names_only_what_exists(tmp_path: Path) -> None:
    rules = [{"record": f"panel:{place}", "expr": asked.expression} for place, asked in enumerate(ASKED)]
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    code, output = promtool("check", "rules", tmp_path / "panels.yml")
    assert code == 0, output
    known = {name for each in METRICS for name in each.series} | RECORDED | OTHERS
    for asked in ASKED:
        assert metrics_of(asked.expression) <= known, asked


def test_every_declared_metric_is_on_some_dashboard() -> None:
    shown = set().union(*(metrics_of(asked.expression) for asked in ASKED))
    rules = asset("deploy", "prometheus", "rules", "recording.yml").read_text()
    forgotten = [each.name for each in METRICS
                 if not shown & set(each.series) and not any(series in rules for series in each.series)]  # fmt: skip
    assert forgotten == []


def test_an_attack_is_marked_where_no_scrape_saw_it_active(tmp_path: Path) -> None:
    """One that ends between two scrapes, one that lasts, one that was over before the first scrape."""
    labels = 'run_id="RUN", node="launcher", attack='
    series = {"short": ("0x20", "0x9 3x11"), "long": ("0x9 1x11", "0x9 1x11"), "early": ("_x5 0x15", "_x5 2x15"),
              "none": ("0x20", "0x20")}  # fmt: skip
    inputs = [{"series": f'{name}{{{labels}"{attack}"}}', "values": values[place]}
              for attack, values in series.items()
              for place, name in enumerate(("btard_attack_active", "btard_attack_steps_total"))]  # fmt: skip
    query = replaced(attacked("> 0"), ANY_RUN)
    marked = {4: {}, 6: {"early": 2}, 11: {"short": 3, "long": 1}, 19: {"long": 1}}
    asked = [{"expr": query, "eval_time": f"{at}s",
              "exp_samples": [{"labels": f'{{attack="{name}"}}', "value": value} for name, value in found.items()]}
             for at, found in marked.items()]  # fmt: skip
    tests = [{"interval": "1s", "input_series": inputs, "promql_expr_test": asked}]
    (tmp_path / "attacks.yml").write_text(yaml.safe_dump({"evaluation_interval": "1s", "tests": tests}))
    code, output = promtool("test", "rules", tmp_path / "attacks.yml")
    assert code == 0, output


@pytest.mark.sockets
def test_every_panel_has_data_from_a_real_attacked_run(monitored: Monitored) -> None:
    """The run has ended: its last minutes are asked for, as Grafana would."""
    variables = {"run_id": monitored.run_id, "compare_run": monitored.run_id, "node": "0"}
    every = [*expressions(HERE, variables), *annotations(HERE, variables)]
    assert [asked for asked in every if asked.needs != GPU and not data(monitored, asked)] == []
    exempt = [asked for asked in every if asked.needs is not None]
    assert len(exempt) == len(EXEMPT), "each exemption is for one expression that is there"
    assert [asked for asked in exempt if asked.needs == GPU and data(monitored, asked)] == []


@pytest.mark.sockets
def test_the_ground_truth_shows_one_line_for_an_attack(monitored: Monitored) -> None:
    found = monitored.ask(replaced(attacked("> bool 0"), {"run_id": monitored.run_id}))
    assert [each["metric"] for each in found] == [{"attack": "noise"}]
    assert {1} <= {float(value) for _, value in found[0]["values"]} <= {0, 1}


@pytest.mark.sockets
def test_the_stats_tell_the_truth_of_a_run_that_caught_its_attacker(monitored: Monitored) -> None:
    """Peer 3 of 4 attacked and was banned; the run has ended in order."""
    variables = {"run_id": monitored.run_id, "compare_run": monitored.run_id, "node": "3"}
    asked = {each.panel: each.expression for each in expressions(HERE, variables) if each.dashboard == "overview"}
    last = {name: monitored.last(asked[name]) for name in
            ("Run", "Nodes down", "Honest peers banned", "Peers gone", "Active peers", "Attackers found")}  # fmt: skip
    found = last.pop("Attackers found")
    assert found[("found", "1"), ("present", "1")] == 1
    assert found.get((("found", "0"), ("present", "1")), 0) == 0, "before the ban"
    assert {name: list(value.values()) for name, value in last.items()} == {
        "Run": [2], "Nodes down": [0], "Honest peers banned": [0], "Peers gone": [0], "Active peers": [3]}  # fmt: skip
    own = {each.panel: each.expression for each in expressions(HERE, variables) if each.dashboard == "node"}
    asked_now = [monitored.last(own[name]) for name in ("Standing", "Role", "Reachable")]
    assert [value for each in asked_now for value in each.values()] == [3, 1, 2]


@pytest.mark.sockets
def test_the_tables_tell_when_and_who(monitored: Monitored) -> None:
    variables = {"run_id": monitored.run_id, "compare_run": monitored.run_id, "node": "0"}
    asked = [each for each in expressions(HERE, variables) if each.dashboard == "overview"]
    when, step, _, attack = (monitored.last(each.expression) for each in asked if each.panel == "Banned peers")
    ((ban, seen_ms),) = when.items()
    assert dict(ban)["peer"] == "3"
    assert list(step) == [ban]
    assert list(attack) == [(("attack", "noise"), ("peer", "3"))]
    assert monitored.began_s < seen_ms / 1000 < monitored.ended_s
    first, times = (monitored.last(each.expression) for each in asked if each.panel == "Events")
    assert times.keys() == first.keys()
    assert {dict(each)["event"] for each in times} >= {"attack_started", "banned", "finished"}
    assert all(dict(each)["guide"] == dict(each)["event"] for each in times)
    (banned,) = (each for each in times if dict(each)["event"] == "banned")
    assert dict(ban).items() < dict(banned).items() and times[banned] == 1
    since, until = (monitored.last(each.expression) for each in asked if each.panel == "Alerts that fired")
    assert since.keys() == until.keys()
    assert all(monitored.began_s < 1e-3 * since[each] <= 1e-3 * until[each] < monitored.ended_s for each in since)
    assert {dict(each)["runbook"] for each in since} == {dict(each)["alertname"] for each in since}


def data(monitored: Monitored, asked: Asked) -> bool:
    """True if Prometheus knows a value."""
    return any(not math.isnan(float(value)) for each in monitored.ask(asked.expression) for _, value in each["values"])


def test_an_exemption_is_for_one_expression_of_a_panel() -> None:
    (dashboard, panel, metric), *_ = EXEMPT
    assert Asked(dashboard, panel, f"2 * {metric}").needs == LINK
    assert Asked(dashboard, panel, "btard_peer_rtt_seconds").needs is None
    with pytest.raises(KeyError):
        replaced('up{run_id="$unknown"}', {})


def metrics_of(expression: str) -> set[str]:
    """The names of metrics in an expression."""
    bare = re.sub(
        r"\{[^}]*\}|\"[^\"]*\"|\[[^\]]*\]|\boffset \d+s\b|\b(by|on|without|group_left)\s*\([^)]*\)", " ", expression
    )
    words = set(re.findall(r"[a-zA-Z_:][\w:]*(?!\w*\s*\()", bare))
    calls = set(re.findall(r"([a-zA-Z_]\w*)\s*\(", bare))
    return words - calls - {"by", "on", "group_left", "bool", "and", "unless", "or", "sum", "max", "avg"}


# --- provisioning -------------------------------------------------------------------------------------------------


def provisioned(*parts: str) -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load(asset("deploy", "grafana", "provisioning", *parts).read_text())
    return made


def test_the_data_source_is_the_prometheus_of_the_cluster_at_its_own_pace() -> None:
    (source,) = provisioned("datasources", "prometheus.yml")["datasources"]
    pace = yaml.safe_load(asset("deploy", "prometheus", "prometheus.yml").read_text())["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == pace
    assert (source["type"], source["url"], source["isDefault"]) == ("prometheus", "http://prometheus:9090", True)
    assert set(source) <= {"name", "uid", "type", "access", "url", "isDefault", "editable", "jsonData"}


def test_the_provider_reads_the_folder_that_compose_mounts() -> None:
    made = provisioned("dashboards", "btard.yml")
    (provider,) = made["providers"]
    assert (made["apiVersion"], provider["type"]) == (1, "file")
    folder = provider["options"]["path"]
    compose = yaml.safe_load(asset("compose.yaml").read_text())
    grafana = compose["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    assert mounts["./dashboards"] == folder
    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{folder}/overview.json"
    assert grafana["environment"]["GF_AUTH_ANONYMOUS_ENABLED"] == "true"
