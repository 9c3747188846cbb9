"""What this machine's kernel can do to links. Tried in a new network namespace that nothing is in, gone afterwards."""

from __future__ import annotations

import platform
import shutil
import subprocess
from dataclasses import dataclass

from btard.launcher.network import shaping
from btard.launcher.network.shaping import Wanted, Way
from btard.node.errors import BackendError
from btard.node.netem.links import Link

TOOLS = {"tc": "iproute2", "ip": "iproute2", "iptables-restore": "iptables", "nsenter": "util-linux",
         "unshare": "util-linux"}  # fmt: skip
"""Commands and the Debian packages that bring them."""

_ANSWER_S = 20.0
_INSTEAD = "or use --shaping process"
_ANYBODY = "192.0.2.1"


@dataclass(frozen=True, slots=True)
class Kernel:
    """What was found: rates (htb, u32), loss (statistic), and the two ways to delay."""

    rate: bool
    loss: bool
    netem: bool
    queue: bool

    def refuse_lack(self, wanted: Wanted) -> None:
        """Refuse what is wanted and not there.

        Raises:
            BackendError: the first thing that lacks.
        """
        release = platform.release()
        for asked, there, what in (
            (wanted.rate, self.rate, "htb and u32, so that there are no rates: leave out --bandwidth"),
            (wanted.loss, self.loss, "match statistic, so that nothing can be lost: leave out --loss"),
            (wanted.delay, self.netem or self.queue, "netem nor NFQUEUE, so that nothing can be delayed: leave out "
             "--delay and --jitter"),
        ):  # fmt: skip
            if asked and not there:
                word = "has neither" if "nor" in what else "lacks"
                raise BackendError(f"--shaping kernel: Linux {release} {word} {what}, {_INSTEAD}")

    def __str__(self) -> str:
        """For people."""
        delays = [name for name, there in (("netem", self.netem), ("NFQUEUE", self.queue)) if there]
        return (f"rate {'by htb' if self.rate else 'not possible'}, delay "
                f"{f'by {delays[0]}' if delays else 'not possible'}, "
                f"loss {'by statistic' if self.loss else 'not possible'}")  # fmt: skip


def examine() -> Kernel:
    """Try everything.

    Raises:
        BackendError: tools are missing, or namespaces may not be made.
    """
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        packages = sorted({TOOLS[tool] for tool in missing})
        raise BackendError(
            f"--shaping kernel needs {', '.join(missing)}, not found here; install {' and '.join(packages)}, {_INSTEAD}"
        )
    problem = _tried("true")
    if problem is not None:
        raise BackendError(f"--shaping kernel may not enter networks here ({problem}); run as root, {_INSTEAD}")
    slow, lossy = (Way(1, _ANYBODY, Link(delay_s=0.001)),), (Way(1, _ANYBODY, Link(delay_s=0.0, loss=0.5)),)
    narrow = (Way(1, _ANYBODY, Link(delay_s=0.0, bandwidth_bytes_per_s=1e6)),)
    tc, tables = ("tc", "-batch", "-"), ("iptables-restore", "--noflush")
    return Kernel(
        rate=_tried(*tc, given=shaping.outgoing("lo", narrow, netem=False)) is None,
        loss=_tried(*tables, given=shaping.incoming(lossy, netem=False)) is None,
        netem=_tried("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms") is None,
        queue=_tried(*tables, given=shaping.incoming(slow, netem=False)) is None,
    )


def _tried(*command: str, given: str = "") -> str | None:
    """What went wrong with a command in a namespace of its own, None if nothing did."""
    try:
        done = subprocess.run(["unshare", "--net", *command], input=given, capture_output=True, text=True,
                              timeout=_ANSWER_S, start_new_session=True)  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return (" ".join(done.stderr.split()) or f"exit code {done.returncode}") if done.returncode else None
