"""Fuzzes everything that reads a peer's bytes: `make fuzz RUNS=1000000`.

With atheris (an optional development dependency) the bytes follow the coverage; without it they are drawn at random.
Prints how the memory of the process grows; a crash prints the input that caused it.
"""

from __future__ import annotations

import random
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

try:
    import atheris
except ImportError:
    atheris = None

CORPUS = Path(__file__).parent / "corpus"
LARGEST = 600
_WARM_UP = 20_000
_RENEW = 500
"""Inputs after which the honest peer starts again, elsewhere in a run."""


def _imported() -> Any:
    """The program under test, instrumented."""
    if atheris is None:
        from tests.fuzz import arena
    else:
        with atheris.instrument_imports(include=["node.wire", "node.envelope", "node.protocol"]):
            from tests.fuzz import arena
    return arena


class Fuzz:
    """Feeds inputs to the decoders and to one honest peer after the other."""

    def __init__(self, runs: int) -> None:
        self._arenas = _imported()
        self._runs, self._count, self._first = runs, 0, 0
        self._arena: Any = None
        self._process = psutil.Process()

    def __call__(self, data: bytes) -> None:
        """One input."""
        if self._count % _RENEW == 0:
            place = self._count // _RENEW
            scene = place % len(self._arenas.SCENES)
            self._arena = self._arenas.Arena(scene, 37 * place % len(self._arenas.recorded(scene)))
        self._count += 1
        self._decode(data)
        arena = self._arena
        arena.strike(self._arenas.Source(data))
        if arena.node.peer.stopped or not arena.accused <= {self._arenas.ATTACKER}:
            assert arena.accused <= {self._arenas.ATTACKER}, arena.accused
            assert not arena.halted, arena.halted
        if self._count % 8 == 0:
            arena.go_on(1, self._count % 16 == 0)
        if self._count == _WARM_UP:
            self._first = self._process.memory_info().rss
        if self._count % (self._runs // 10) == 0:
            grown = (self._process.memory_info().rss - self._first) / 2**20 if self._first else 0.0
            print(f"{self._count} inputs, memory {grown:+.1f} MB since input {_WARM_UP}", flush=True)

    def _decode(self, data: bytes) -> None:
        from node import wire
        from node.errors import WireError

        with suppress(WireError):
            content = wire.decode_control(memoryview(data), LARGEST)
            if isinstance(content, bytes):
                self._arena._frame(content)
        with suppress(WireError):
            wire.decode_bulk_header(memoryview(data))
        with suppress(WireError):
            wire.bulk_tensor(memoryview(data))


def _at_random(fuzz: Fuzz, runs: int) -> None:
    seeds = [path.read_bytes() for path in sorted(CORPUS.iterdir())] or [b""]
    drawn = random.Random(0)
    for _ in range(runs):
        data = bytearray(drawn.choice(seeds) if drawn.random() < 0.5 else drawn.randbytes(drawn.randrange(LARGEST)))
        for _ in range(drawn.randrange(8) if data else 0):
            data[drawn.randrange(len(data))] = drawn.randrange(256)
        fuzz(bytes(data))


def main(runs: int) -> None:
    """Fuzz `runs` inputs."""
    fuzz = Fuzz(runs)
    if atheris is None:
        _at_random(fuzz, runs)
        return
    with tempfile.TemporaryDirectory() as found:
        # libFuzzer writes what it finds into the first folder; the small corpus in the clone stays as it is.
        options = [f"-runs={runs}", f"-max_len={LARGEST}", "-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={Path.cwd()}/", found, str(CORPUS)], fuzz)
        atheris.Fuzz()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
