"""Compiles the kernels when the package is installed, where a C compiler is (docs/adr/0027-compiled-passes.md).

A wheel holds the libraries and then the name of its platform; without a compiler it is one of pure Python. An editable
installation has them in the user's cache: its packages are the clone's.
"""

from __future__ import annotations

import runpy
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import platform_tags


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds `btard/node/kernels/built` to a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build what node/kernels/built does not hold yet."""
        building = runpy.run_path(str(Path(self.root, "node", "kernels", "building.py")))
        # For as long as this object lives, which is until the wheel is written.
        self.aside = tempfile.TemporaryDirectory()
        directory = building["CACHE"].expanduser() if version == "editable" else Path(self.aside.name)
        try:
            made = [building["library"](files, directory) for files in building["LIBRARIES"]]
        except (OSError, RuntimeError, subprocess.SubprocessError) as error:
            self.app.display_warning(f"The kernels are not compiled, torch's passes take their place: {error}")
            return
        if version != "editable":
            new = {str(path): f"btard/node/kernels/built/{path.name}" for path in made if path.parent == directory}
            build_data["force_include"].update(new)
            build_data["pure_python"] = False
            # By ctypes: they ask for a platform, and for no version of Python. Whether they suit older systems of the
            # same platform (manylinux) is not known.
            platform = next(tag for tag in platform_tags() if not tag.startswith(("manylinux", "musllinux")))
            build_data["tag"] = f"py3-none-{platform}"
