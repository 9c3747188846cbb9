"""What averaging costs with hivemind, beside whole steps of ours: `python -m tests.hivemind_speed [TURNS [SIZE]]`.

Needs hivemind, which is no dependency of this project: `pip install hivemind==1.1.12` in an environment of its own,
and this project there. In each turn six peers average a vector of SIZE float32 numbers (a million) in groups of six,
without compression, and `btard-launch bench` runs as many whole steps. The figure is CPU time a peer and step, user and
system, of all processes of a peer: hivemind has its DHT, its averager and a daemon of libp2p. Nothing is gated.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import statistics
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

PEERS, ROUNDS, WARM = 6, 10, 2
_CLOCK = os.sysconf("SC_CLK_TCK")


def peer(size: int, initial: list[str]) -> None:
    """One peer: says where it is, then averages once for each line of its input, and says how that went."""
    import hivemind  # no dependency of this project
    import torch
    from hivemind.compression import NoCompression

    torch.set_num_threads(1)
    dht = hivemind.DHT(initial_peers=initial, host_maddrs=["/ip4/127.0.0.1/tcp/0"], start=True)
    averager = hivemind.DecentralizedAverager(
        [torch.randn(size)],
        dht,
        prefix="speed",
        target_group_size=PEERS,
        min_group_size=PEERS,
        min_matchmaking_time=2.0,
        request_timeout=1.0,
        compression=NoCompression(),
        start=True,
    )
    print(str(dht.get_visible_maddrs()[0]), flush=True)
    for _ in sys.stdin:
        gathered = averager.step(timeout=60.0)
        print(0 if gathered is None else len(gathered), flush=True)
    averager.shutdown()
    dht.shutdown()


def cpu_s(session: int) -> float:
    """CPU seconds so far of the processes of a session that still run, and of those that they have waited for."""
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            found += sum(map(int, fields[11:15])) if int(fields[3]) == session else 0
    return found / _CLOCK


def hivemind_ms(size: int) -> list[float]:
    """CPU milliseconds a peer and round, of rounds in which all were in one group."""
    with ExitStack() as stack:
        peers: list[subprocess.Popen[str]] = []
        places: list[str] = []
        for _ in range(PEERS):
            command = [sys.executable, "-m", "tests.hivemind_speed", "peer", str(size), *places[:1]]
            process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                start_new_session=True,
            )
            stack.enter_context(process)
            stack.callback(end, process.pid)
            peers.append(process)
            places.append(answer(process))
        found = []
        for turn in range(WARM + ROUNDS):
            before = sum(cpu_s(process.pid) for process in peers)
            for process in peers:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            groups = {answer(process) for process in peers}
            spent = sum(cpu_s(process.pid) for process in peers) - before
            if turn >= WARM and groups == {str(PEERS)}:
                found.append(1e3 * spent / PEERS)
        for process in peers:
            assert process.stdin is not None
            process.stdin.close()
        for process in peers:
            process.wait(30)
        return found


def end(session: int) -> None:
    """Kill a peer with its daemon, whatever is left of them."""
    with suppress(ProcessLookupError):
        os.killpg(session, signal.SIGKILL)


def answer(process: subprocess.Popen[str]) -> str:
    """The next line of a peer.

    Raises:
        SystemExit: it has ended.
    """
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit("error: a peer of hivemind has ended; try `python -m tests.hivemind_speed peer 1000` alone")
    return line.strip()


def own_ms(size: int) -> float:
    """Median CPU milliseconds a peer and whole step of ours, everything on."""
    command = [sys.executable, "-m", "btard.launcher", "bench", "--size", str(size), "--pairs", str(ROUNDS), "--json"]
    told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: float = json.loads(told)["cpu_ms"]["protocol"]["median"]
    return found


def main(turns: int, size: int) -> None:
    """Print a line a turn, and the range of the ratio."""
    if importlib.util.find_spec("hivemind") is None:
        raise SystemExit("error: hivemind is not installed here; pip install hivemind==1.1.12 and run this again")
    print(f"{PEERS} peers, {size} floats, medians of {ROUNDS}: CPU ms a peer and step")
    ratios = []
    for _ in range(turns):
        theirs = hivemind_ms(size)
        if not theirs:
            raise SystemExit(f"error: hivemind gathered no group of {PEERS} in {ROUNDS} rounds; try again")
        ours = own_ms(size)
        ratios.append(statistics.median(theirs) / ours)
        print(
            f"hivemind {statistics.median(theirs):.1f} ({min(theirs):.1f} to {max(theirs):.1f}, {len(theirs)} whole "
            f"rounds), btard {ours:.1f}, ratio {ratios[-1]:.2f}",
            flush=True,
        )
    print(f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["peer"]:
        peer(int(sys.argv[2]), sys.argv[3:])
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, int(float(sys.argv[2])) if len(sys.argv) > 2 else 1_000_000)
