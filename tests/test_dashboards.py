"""Dashboards: the committed JSON is what the code builds, and every panel has data from a real run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.build import HERE, text
from dashboards.contents import CONTENTS
from dashboards.exempt import EXEMPT, GPU, LINK, Asked, annotations, expressions, replaced
from dashboards.parts import attacked
from launcher.assets import asset
from node.metrics import METRICS
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

    there = Dashboard.from_json(committed(name))
    assert json.loads(json.dumps(there, cls=JSONEncoder)) == committed(name)


@pytest.mark.parametrize("name", NAMES)
def test_panels_do_not_overlap_and_have_names_of_their_own(name: str) -> None:
    panels = committed(name)["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        assert panel["description"], panel["title"]
        taken |= cells


@pytest.mark.parametrize("name", NAMES)
def test_every_dashboard_leads_to_the_others_and_every_legend_of_a_node_to_its_page(name: str) -> None:
    made = committed(name)
    assert {link["url"] for link in made["links"]} == {f"/d/btard-{other}" for other in NAMES if other != name}
    assert {variable["name"] for variable in made["templating"]["list"]} >= {"datasource", "run_id", "compare_run"}
    for panel in made["panels"]:
        legends = " ".join(target["legendFormat"] for target in panel["targets"])
        links = "".join(link["url"] for link in panel["fieldConfig"]["defaults"].get("links", ()))
        for label in re.findall(r"{{(node|peer)}}", legends):
            assert f"var-node=${{__field.labels.{label}}}" in links, panel["title"]


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
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\boffset \d+s\b|\b(by|on|without|group_left)\s*\([^)]*\)", " ", expression)
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
