"""The core's pure functions, remembered: all peers of a world hash and decode the same few bytes.

Nothing else about the code under test changes; `slow` in a test undoes it and finds the same runs.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import TypeVar

from btard.node.protocol.wire import digest as digests
from btard.node.protocol.wire import encoding

Result = TypeVar("Result")
_MOST = 200_000


def _remembered(function: Callable[..., Result], key: Callable[..., object]) -> Callable[..., Result]:
    known: dict[object, Result] = {}

    @functools.wraps(function)
    def answer(*arguments: object) -> Result:
        name = key(*arguments)
        found = known.get(name)
        if found is None:
            if len(known) > _MOST:
                known.clear()
            found = known[name] = function(*arguments)
        return found

    return answer


_PURE = {
    encoding.decode_body: lambda data: data,
    encoding.signing_bytes: lambda _, data: data,
    encoding.body_digest: lambda body: body,
    digests.digest: lambda *fields: fields,
}
_MADE = {function: _remembered(function, key) for function, key in _PURE.items()}


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
