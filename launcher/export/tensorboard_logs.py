"""A run's curves and bans as TensorBoard's event files; importing this needs the package tensorboard."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.text.summary_v2 import text_pb
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from btard.launcher.files import disk_error, write_atomically
from btard.launcher.report.run_data import RunData
from btard.launcher.report.run_figures import honest_loss

NAME = "events.out.tfevents.btard"
"""Always the same: TensorBoard adds up the files of a directory, so a second one would double every point."""


def write(run: RunData, target: Path) -> None:
    """Write one event file: accuracy, loss, step time, roster and clipping by step, and each ban as text.

    It takes the place of the one that an earlier call wrote; other files of the directory stay.

    Args:
        run: a finished one.
        target: the log directory; `tensorboard --logdir` on a folder of runs compares them.

    Raises:
        BackendError: the disk is full, or the directory is not writable.
    """
    try:
        target.mkdir(exist_ok=True)
        # The writer chooses a name of its own, after the time and the process.
        with tempfile.TemporaryDirectory() as made:
            writer = EventFileWriter(made)
            _add(run, writer.add_event)
            writer.close()
            (file,) = Path(made).iterdir()
            write_atomically(target / NAME, file.read_bytes())
    except OSError as error:
        raise disk_error(error, target) from error


def _add(run: RunData, add_event: Callable[[Event], None]) -> None:
    started = min((view["time"] for views in run.commits.values() for view in views.values()), default=0.0)

    def add(step: int, tag: str, value: float, when: float = started) -> None:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value)])
        add_event(Event(wall_time=when, step=step, summary=summary))

    for at, accuracy in run.summary.accuracy:
        add(at, "test/accuracy", accuracy, run.view(at)["time"] if at in run.commits else started)
    for step, loss in honest_loss(run):
        add(int(step), "train/loss", loss, run.view(int(step))["time"])
    for at in run.commits:
        view = run.view(at)
        add(at, "protocol/active_peers", len(view["active"]), view["time"])
        add(at, "protocol/clip_iterations", view["clip_iterations"], view["time"])
        slowest = [each["seconds"] for node, each in run.commits[at].items() if node in run.honest]
        add(at, "protocol/step_seconds", max(slowest, default=view["seconds"]), view["time"])
        add(at, "train/gradient_cpu_seconds", statistics.fmean(
            each["gradient_cpu_seconds"] for each in run.commits[at].values()), view["time"])  # fmt: skip
    for ban in run.summary.bans:
        words = f"peer {ban.peer} banned for {ban.reason}; accuser {ban.accuser}; evidence {ban.evidence}"
        text = text_pb(f"bans/peer_{ban.peer}", words)
        add_event(Event(wall_time=run.view(ban.step)["time"], step=ban.step, summary=text))
