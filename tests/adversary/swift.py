"""The core's pure functions, remembered: all peers of a world hash and decode the same few bytes.

Nothing else about the code under test changes; `slow` in a test undoes it and finds the same runs.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable

from btard.node.protocol.wire import certificate, encoding
from btard.node.protocol.wire.messages import Body

_remembered = functools.lru_cache(maxsize=200_000)
_decoded, _plain = _remembered(encoding.decode_body), encoding.signing_bytes


@_remembered
def _covered(data: bytes) -> bytes:
    return _plain(_decoded(data), data)


def _signing_bytes(body: Body, data: bytes) -> bytes:
    return _covered(data)  # `body` is what it encodes


_MADE: dict[Callable[..., object], Callable[..., object]] = {
    encoding.decode_body: _decoded,
    encoding.signing_bytes: _signing_bytes,
    encoding.body_digest: _remembered(encoding.body_digest),
    encoding.digest: _remembered(encoding.digest),
    certificate.remembering: lambda verify: verify,  # tests/adversary/cluster.py remembers for all peers
}


def swift() -> None:
    """Let every module of the core use the remembering ones."""
    _replace(_MADE)


def slow() -> None:
    """Let them use the plain ones again."""
    _replace({made: function for function, made in _MADE.items()})


def _replace(which: dict[Callable[..., object], Callable[..., object]]) -> None:
    for name, module in tuple(sys.modules.items()):
        if name.startswith("btard.node.protocol.") or name == "tests.adversary.cluster":
            for attribute, value in tuple(vars(module).items()):
                if callable(value) and getattr(value, "__hash__", None) and value in which:
                    setattr(module, attribute, which[value])
