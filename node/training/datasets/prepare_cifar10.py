"""Getting CIFAR-10 once, by torchvision's own download; used by `btard-launch data`."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from btard.node.errors import DataError
from btard.node.training.datasets import cifar10
from btard.node.training.datasets.prepare import Report, Source, run_download, unwritable

_TORCHVISION = "import sys; from torchvision.datasets import CIFAR10; CIFAR10(sys.argv[1], download=True)"


def from_torchvision(scratch: Path) -> Path:
    """torchvision's `CIFAR10(download=True)` (170 MB), in a process of its own."""
    run_download([sys.executable, "-c", _TORCHVISION, str(scratch)])
    return cifar10.raw_directory(scratch)


def prepare_cifar10(
    data_directory: Path, report: Report = lambda line: None, source: Source = from_torchvision
) -> bool:
    """Put the six batches under `data_directory`, unless they are there and intact; True if files were written.

    Raises:
        DataError: the source could not deliver.
        BackendError: the folder cannot be written (no permission, disk full).
    """
    try:
        cifar10.check(data_directory)
        return False
    except DataError:
        pass
    target = cifar10.raw_directory(data_directory)
    report("CIFAR-10 from torchvision ...")
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".preparing-", dir=data_directory) as scratch:
            found = source(Path(scratch))
            batches = (*cifar10.TRAIN, *cifar10.TEST)
            for batch in batches:
                cifar10.read(found / batch.name, batch)
            for batch in batches:
                (found / batch.name).replace(target / batch.name)  # the same file system: atomic
    except DataError as error:
        names = ", ".join(batch.name for batch in (*cifar10.TRAIN, *cifar10.TEST))
        raise DataError(f"cannot get CIFAR-10 ({error}); connect to a network, or copy {names} to {target}") from error
    except OSError as error:
        raise unwritable("CIFAR-10", data_directory, error, 700) from error
    report(f"CIFAR-10 is ready in {target}")
    return True
