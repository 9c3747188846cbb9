"""The script that draws dashboards, as far as it goes without Grafana's components."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.development.panels import main


def test_without_the_components_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no components in .*: npm install @grafana/ui@11\.6\.1"):
        main([str(tmp_path / "out"), "--modules", str(tmp_path)])
