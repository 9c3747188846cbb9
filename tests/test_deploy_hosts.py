"""deploy/hosts: what starts one peer on its owner's host, by systemd or in a container."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from btard.launcher.assets import asset
from btard.launcher.cli import node

WHERE = asset("deploy", "hosts")
UNIT, COMPOSE = WHERE / "btard-peer@.service", WHERE / "compose.yaml"
DIRECTORIES = ("/var/lib/btard/alpha", "/var/lib/btard/%i", "/btard/run")
SETTING = re.compile(r"\$\{\w+:-([^}]*)\}|\$\w+")


def service() -> dict[str, Any]:
    made: dict[str, Any] = yaml.safe_load(COMPOSE.read_text())["services"]["peer"]
    return made


def commands() -> Iterator[list[str]]:
    """Every command line of `btard-node` in either file, comments included, as at the settings' defaults."""
    for path in (UNIT, COMPOSE):
        for line in path.read_text().splitlines():
            if "btard-node " in line:
                words = shlex.split(line.partition("btard-node ")[2].partition(" > ")[0].partition("     ")[0])
                yield [word for word in (SETTING.sub(r"\1", word) for word in words) if word]
    yield [SETTING.sub(r"\1", word) for word in service()["command"][1:]]


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_is_one_that_the_program_takes(words: list[str]) -> None:
    with node.cli.make_context("btard-node", list(words)) as context:
        name, command, rest = node.cli.resolve_command(context, words)
        assert command is not None
        with command.make_context(name, rest, parent=context) as parsed:
            assert parsed.params["directory"] in {Path(each) for each in DIRECTORIES}
            if name == "run":
                assert parsed.params["stay"] and parsed.params["wait"] == "1d"


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze here")
    true = shutil.which("true")
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/btard/bin/btard-node", str(true)))

    def verified() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["systemd-analyze", "verify", "--recursive-errors=no", copy], capture_output=True, text=True, timeout=60
        )

    done = verified()
    assert (done.returncode, done.stderr) == (0, "")
    copy.write_text(copy.read_text().replace("Restart=on-failure", "Restart=sometimes"))
    assert "sometimes" in verified().stderr


def test_a_failure_is_started_again_and_neither_an_end_nor_a_mistake_is() -> None:
    unit = dict(line.split("=", 1) for line in UNIT.read_text().splitlines() if re.match(r"\w+=", line))
    assert (unit["Restart"], unit["RestartPreventExitStatus"], unit["SuccessExitStatus"]) == ("on-failure", "2", "143")
    assert service()["restart"] == "unless-stopped"


def test_the_container_has_no_more_rights_than_a_node_of_the_cluster() -> None:
    cluster = yaml.safe_load((WHERE.parent.parent / "compose.yaml").read_text())["x-hardened"]
    for name in ("read_only", "cap_drop", "security_opt", "init", "tmpfs"):
        assert service()[name] == cluster[name]
