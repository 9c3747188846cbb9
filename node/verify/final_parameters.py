"""Which final parameters of a run's nodes a certificate of the last step covers: a node's word for them is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from btard.node.build import settings_of, task_of, tools_of
from btard.node.errors import DataError, WireError
from btard.node.genesis.genesis import genesis_roster, read_genesis
from btard.node.plugins import extensions
from btard.node.protocol.evidence.format import tensor_of
from btard.node.protocol.evidence.verifier import Ground, UnprovenError, Verifier
from btard.node.protocol.state.state import Ban, Summary, parameters_digest
from btard.node.protocol.wire.messages import Signed
from btard.node.storage.records import read_regular

_CERTIFICATE_BYTES = 1 << 26


def certified(
    run_dir: Path, data_directory: Path, nodes: Sequence[int], bans: Sequence[Ban],
    returned: Sequence[tuple[int, int]], imports: Sequence[Path] = (),
) -> dict[int, str | None]:  # fmt: skip
    """The digest of the parameters in each node's folder, None where their certificate does not hold.

    Args:
        run_dir: the run directory.
        data_directory: the public data.
        nodes: whose.
        bans: every verdict of the run, in order: the roster, and with it the certificate's signers, follow from them.
        returned: (peer, first step of which it was in the roster again).
        imports: files that the run was made with.

    Raises:
        ConfigError: no run directory of this version.
        DataError: the public data is missing.
    """
    genesis = read_genesis(run_dir)
    extensions.load(imports)
    task = task_of(msgspec.structs.replace(genesis.run, device="cpu"), data_directory)
    settings = settings_of(genesis.run_id, genesis.run, genesis.members, task.dimension, b"")
    initial_D = task.initial(genesis.run.init_seed)
    keys = genesis_roster(genesis.members).keys
    ground = Ground(settings, tools_of(genesis.run), keys, initial_D, lambda *what: initial_D)  # nothing is recomputed
    verifier = Verifier(ground)
    verifier.settle(bans)
    verifier.returned += returned
    return {node: _certified(verifier, run_dir, f"nodes/{node}", genesis.run.steps) for node in nodes}


def _certified(verifier: Verifier, run_dir: Path, folder: str, last: int) -> str | None:
    dimension = verifier.ground.settings.dimension
    try:
        parameters_D = tensor_of(read_regular(run_dir, f"{folder}/parameters.f32", 4 * dimension))
        certificate = read_regular(run_dir, f"{folder}/certificate", _CERTIFICATE_BYTES)
        verifier.take_word(certificate)  # it names the newcomers' keys
        verifier.check_final(certificate, parameters_D)
        summary, _ = msgspec.msgpack.decode(certificate, type=tuple[Summary, tuple[Signed, ...]])
    except (OSError, DataError, WireError, UnprovenError):
        return None
    whole = parameters_D.numel() == dimension and summary.step > last  # undo steps may follow the last one
    return parameters_digest(parameters_D).hex() if whole else None
