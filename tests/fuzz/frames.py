"""Fuzzes everything that reads a peer's bytes: `make fuzz RUNS=1000000`.

With atheris (an optional development dependency) the bytes follow the coverage; without it, or with `--random`, they
are drawn at random from the same corpus. An input that raises, accuses an honest peer or stops the peer is a crash;
one crash, or memory that grows by 10 MB, ends the run with exit code 1. A crash leaves what the peer was told since
it started in a file; `python -m tests.fuzz.frames --replay FILE` does it again.
"""

from __future__ import annotations

import random
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from time import process_time
from typing import Any

import msgspec
import psutil

try:
    import atheris
except ImportError:
    atheris = None

CORPUS = Path(__file__).parent / "corpus"
STORY = Path("crash-story")
LARGEST = 600
GROWTH_MB = 10.0
_WARM_UP = 50_000
"""Inputs after which caches are full: what memory grows by is counted from here on, or from half of a short run."""
_RENEW = 500
"""Inputs after which the honest peer starts again, elsewhere in a run; sooner if it stops listening to the attacker."""
_AFTER_BAN = 8
"""Inputs that still come after the attacker is banned."""


def _imported(guided: bool) -> tuple[Any, Any, Any, Any]:
    """Arenas, mutations, ways back and scenes, with the program under test: instrumented if coverage guides."""
    if not guided:
        from tests.fuzz import arena, mutations, returning, scenes
    else:
        with atheris.instrument_imports(
            include=["btard.node.transport.framing", "btard.node.transport.envelope", "btard.node.protocol"]
        ):
            from tests.fuzz import arena, mutations, returning, scenes
    return arena, mutations, returning, scenes


class Fuzz:
    """Feeds inputs to the decoders and to one honest peer after the other.

    Args:
        runs: how many inputs will come.
        guided: instrument the program for coverage.
    """

    def __init__(self, runs: int, guided: bool) -> None:
        self.count = 0
        self._arenas, self._mutations, self._returning, self._scenes = _imported(guided)
        self._runs, self._first_mb = runs, 0.0
        self._warm_up = min(_WARM_UP, runs // 2)
        self._arena: Any = None
        self._places = self._left = 0
        self._told: list[tuple[int, bytes]] = []
        self._process = psutil.Process()

    @property
    def growth_mb(self) -> float:
        """What the process has grown by since it was warm; 0 before."""
        return self._rss_mb() - self._first_mb if self._first_mb else 0.0

    def __call__(self, data: bytes) -> None:
        """One input.

        Raises:
            AssertionError: the honest peer blames another honest one, or stops; or memory grows.
            Exception: whatever a decoder or the peer lets through.
        """
        if self._arena is None or self.count % _RENEW == 0:
            self._renew()
        self.count += 1
        self._told.append((self.count, data))
        try:
            self._feed(data)
        except BaseException:
            STORY.write_bytes(msgspec.msgpack.encode((self._places, self._told)))
            print(f"crash at input {self.count}; what led to it is left in the file {STORY}", flush=True)
            raise
        if self.count == self._warm_up:
            self._first_mb = self._rss_mb()
        if self.count % max(1, self._runs // 10) == 0:
            self._report()

    def replay(self, story: Path) -> None:
        """Do again what led to a crash."""
        place, told = msgspec.msgpack.decode(story.read_bytes(), type=tuple[int, list[tuple[int, bytes]]])
        self._places = place - 1
        self._renew()
        for self.count, data in told:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        self._decode(data)
        arena = self._arena
        arena.strike(self._mutations.Source(data))
        assert arena.accused <= {self._scenes.ATTACKER}, f"honest peers are blamed: {arena.accused}"
        assert not arena.halted, f"the honest peer stops: {arena.halted}"
        self._left -= 1 if arena.accused else 0
        if arena.refused or arena.node.peer.stopped or not self._left:
            self._arena = None  # it would hear no more of the attacker
        elif self.count % 8 == 0:
            arena.go_on(1, self.count % 16 == 0)

    def _renew(self) -> None:
        scenes = len(self._scenes.SCENES)
        scene, self._places, self._left = self._places % (scenes + 1), self._places + 1, _AFTER_BAN
        self._told = []
        if scene == scenes:
            self._arena = self._returning.Returning(7 * self._places)
            return
        self._arena = self._arenas.Arena(scene, 37 * self._places % len(self._scenes.recorded(scene)))

    def _report(self) -> None:
        seconds = process_time()
        print(f"{self.count} inputs, 0 crashes, memory {self.growth_mb:+.1f} MB since input {self._warm_up}, "
              f"{seconds:.0f} s of CPU", flush=True)  # fmt: skip
        assert self.growth_mb < GROWTH_MB, f"memory has grown by {self.growth_mb:.1f} MB"

    def _rss_mb(self) -> float:
        return float(self._process.memory_info().rss) / 2**20

    def _decode(self, data: bytes) -> None:
        from btard.node.errors import WireError
        from btard.node.transport import framing

        # As the sockets hand them over: one frame of a buffer that may be written to.
        frame = memoryview(bytearray(data))
        with suppress(WireError):
            content = framing.decode_control(frame, LARGEST)
            if isinstance(content, bytes):
                self._arena.frame(content)
        with suppress(WireError):
            framing.decode_bulk_header(frame)
        with suppress(WireError):
            framing.bulk_tensor([frame])


def seeds() -> list[bytes]:
    """The corpus."""
    return [path.read_bytes() for path in sorted(CORPUS.iterdir())]


def at_random(fuzz: Fuzz, runs: int, seed: int = 0) -> None:
    """Feed `runs` inputs: seeds of the corpus with up to seven bytes changed, or bytes drawn at random.

    Raises:
        Exception: what the input raised that crashed it.
    """
    known, drawn = seeds(), random.Random(seed)
    for _ in range(runs):
        data = bytearray(drawn.choice(known) if drawn.random() < 0.5 else drawn.randbytes(drawn.randrange(LARGEST)))
        for _ in range(drawn.randrange(8) if data else 0):
            data[drawn.randrange(len(data))] = drawn.randrange(256)
        fuzz(bytes(data))


def main(runs: int, guided: bool) -> None:
    """Fuzz `runs` inputs."""
    fuzz = Fuzz(runs, guided)
    if not guided:
        at_random(fuzz, runs)
        return
    with tempfile.TemporaryDirectory() as found:
        # libFuzzer writes what it finds into the first folder; the small corpus in the clone stays as it is.
        options = [f"-runs={runs}", f"-max_len={LARGEST}", "-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=0"]
        atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={Path.cwd()}/", found, str(CORPUS)], fuzz)
        atheris.Fuzz()


if __name__ == "__main__":
    if "--replay" in sys.argv:
        Fuzz(1, guided=False).replay(Path(sys.argv[sys.argv.index("--replay") + 1]))
        raise SystemExit("it did not crash")
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdecimal()]
    main(numbers[0] if numbers else 1_000_000, atheris is not None and "--random" not in sys.argv)
