"""`btard-launch verify RUN`: prints what an offline check of a run directory found."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.text import Text

from launcher import exits, story
from node.errors import ConfigError


def show(console: Console, run_dir: Path, data_directory: Path | None = None, explain: bool = False) -> int:
    """Check a run directory and print one line per finding; returns the exit code, 1 if anything is wrong.

    Raises:
        ConfigError: it is no run directory.
        DataError: the public data that evidence is checked against is missing.
    """
    if not (run_dir / "genesis.json").is_file():
        raise ConfigError(f"{run_dir} is not a run directory: it has no genesis.json; name one below runs/")
    from node import audit

    if explain:
        for line in story.tell(run_dir, [member.id for member in audit.read_genesis(run_dir).members]):
            console.print(line, soft_wrap=True, markup=False, highlight=False)
    findings = audit.check_run(run_dir, data_directory)
    for finding in findings:
        mark = Text("ok  " if finding.ok else "FAIL", style="green" if finding.ok else "bold red")
        console.print(
            Text.assemble(mark, f"  {finding.subject}: {finding.kind}: {finding.explanation}"), soft_wrap=True
        )
    wrong = sum(not finding.ok for finding in findings)
    count = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}"
    console.print(f"{count}, {wrong} wrong" if findings else "no bans: nothing to verify")
    return exits.FAILED if wrong else exits.OK
