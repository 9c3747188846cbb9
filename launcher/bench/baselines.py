"""What the protocol is measured against: gloo's all-reduce, and a mean butterfly over the same kind of sockets."""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import zmq
from torch import Tensor

from btard.node.protocol.attempt.partition import Split
from btard.node.transport.framing import bulk_payload

_LOOPBACK = "lo" if sys.platform == "linux" else "lo0"
_PATIENCE = timedelta(seconds=120)
_BUFFER_BYTES = 4 << 20
_PART, _MEAN = 0, 1


class Gloo:
    """A process group over TCP on the loopback interface.

    Args:
        rank, count: this process's place and how many there are.
        store: a file that all share, not there yet.
    """

    def __init__(self, rank: int, count: int, store: Path) -> None:
        os.environ["GLOO_SOCKET_IFNAME"] = _LOOPBACK
        dist.init_process_group("gloo", f"file://{store}", timeout=_PATIENCE, world_size=count, rank=rank)

    def reduce(self, values_D: Tensor) -> None:
        """Sum over all processes, in place."""
        dist.all_reduce(values_D)

    def close(self) -> None:
        """Leave the group."""
        dist.destroy_process_group()


class Board:
    """Where processes tell each other their addresses: files in one directory, read once all have written.

    Args:
        directory: empty, shared by all.
        rank, count: this process's place and how many there are.
        barrier: of all processes.
    """

    def __init__(self, directory: Path, rank: int, count: int, barrier: Barrier) -> None:
        self._directory, self._rank, self._count, self._barrier = directory, rank, count, barrier

    def exchange(self, name: str, mine: str) -> list[str]:
        """What every process gave under `name`, by rank."""
        (self._directory / f"{name}-{self._rank}").write_text(mine, encoding="utf-8")
        self._barrier.wait(_PATIENCE.total_seconds())
        return [(self._directory / f"{name}-{rank}").read_text(encoding="utf-8") for rank in range(self._count)]


class MeanButterfly:
    """Each process averages one part and hands it to all: the protocol's pattern without any protocol.

    Args:
        board: carries the addresses.
        rank, count: this process's place and how many there are.
        dimension: D.
    """

    def __init__(self, board: Board, rank: int, count: int, dimension: int) -> None:
        self._rank, self._count = rank, count
        self._split = Split(dimension, count)
        self._context = zmq.Context()
        self._in: Any = self._socket(zmq.PULL)
        self._in.bind("tcp://127.0.0.1:*")
        address = self._in.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()
        self._lines: dict[int, Any] = {}
        for peer, endpoint in enumerate(board.exchange("mean", address)):
            if peer != rank:
                self._lines[peer] = self._socket(zmq.PUSH)
                self._lines[peer].connect(endpoint)

    def reduce(self, values_D: Tensor, result_D: Tensor) -> None:
        """Mean over all processes into `result_D`."""
        bounds = self._split.bounds
        for peer, line in self._lines.items():
            self._send(line, _PART, values_D[slice(*bounds[peer])])
        own = slice(*bounds[self._rank])
        total_P = values_D[own].clone()
        parts = means = 1
        while parts < self._count or means < self._count:
            head, payload = self._in.recv_multipart(copy=False)
            kind, peer = head.buffer[0], head.buffer[1]
            received_P = torch.frombuffer(payload.buffer, dtype=torch.float32)
            if kind == _MEAN:
                result_D[slice(*bounds[peer])] = received_P
                means += 1
                continue
            total_P += received_P
            parts += 1
            if parts == self._count:
                total_P /= self._count
                result_D[own] = total_P
                for line in self._lines.values():
                    self._send(line, _MEAN, total_P)

    def close(self) -> None:
        """Close all sockets."""
        self._context.destroy(linger=0)

    def _send(self, line: Any, kind: int, values_P: Tensor) -> None:
        line.send(bytes((kind, self._rank)), zmq.SNDMORE)
        line.send(bulk_payload(values_P), copy=False, track=False)

    def _socket(self, kind: int) -> Any:
        socket = self._context.socket(kind)
        socket.sndbuf = socket.rcvbuf = _BUFFER_BYTES
        return socket
