"""Copies of a world, and the name of its state.

A copy shares whatever never changes (messages, tensors, settings, functions) and pickles the rest, which is small. The
name of a state is a hash in which the order of dictionaries and sets does not count, and times are relative to now.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, is_dataclass
from enum import Enum
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType

import msgspec
from torch import Tensor

from btard.node.protocol.api.events import DeadlinePassed
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.wire.messages import Signed
from tests.adversary.cluster import Size
from tests.adversary.world import Style, World

_SHARED = (
    msgspec.Struct,
    Tensor,
    Settings,
    Tools,
    Size,
    Style,
    FunctionType,
    BuiltinFunctionType,
    ModuleType,
    Enum,
    type,
)
_fetching: list[object] = []


def _fetch(place: int) -> object:
    return _fetching[place]


def _frozen(kind: type) -> bool:
    return is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


_shares: dict[type, bool] = {}


def _is_shared(value: object) -> bool:
    kind = type(value)
    known = _shares.get(kind)
    if known is None:
        known = _shares[kind] = isinstance(value, _SHARED) or _frozen(kind)
    return known


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, shared: list[object]) -> None:
        super().__init__(file, protocol=5)
        self._shared = shared

    def reducer_override(self, value: object) -> object:
        if value is _fetch or not _is_shared(value):
            return NotImplemented
        self._shared.append(value)
        return _fetch, (len(self._shared) - 1,)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A world as it was."""

    data: bytes
    shared: list[object]

    @classmethod
    def of(cls, world: World) -> Snapshot:
        """Take one."""
        file, shared = io.BytesIO(), list[object]()
        _Pickler(file, shared).dump(world)
        return cls(file.getvalue(), shared)

    def world(self) -> World:
        """The world again; as often as one likes."""
        global _fetching
        _fetching = self.shared
        copy = pickle.loads(self.data)
        assert isinstance(copy, World)
        return copy


# --- names ------------------------------------------------------------------------------------------------------------

_PLAIN = (int, str, bytes, float, bool, type(None))
_OPAQUE = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, Settings, Tools, type)
_SKIPPED = frozenset(
    {"settings", "tools", "_settings", "_tools", "_keys", "_secret_seed", "secret_seed", "keys", "_bodies"}
)
"""What never changes, or follows from what is beside it."""
_slots: dict[type, tuple[str, ...]] = {}


def _fields(value: object) -> tuple[str, ...]:
    kind = type(value)
    known = _slots.get(kind)
    if known is None:
        names = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
        known = _slots[kind] = tuple(name for name in names if name not in _SKIPPED and not name.startswith("__"))
    more = getattr(value, "__dict__", None)
    return (*known, *(name for name in more if name not in _SKIPPED)) if more else known


_lasting: dict[int, tuple[object, int]] = {}
"""Names of values that never change, with the values: an id is one object's for as long as it lives."""


class _Namer:
    """One pass over a graph of objects."""

    def __init__(self) -> None:
        self._known: dict[int, object] = {}
        self._kept: list[object] = []

    def name(self, value: object) -> object:
        """Something hashable that is equal for equal values."""
        kind = type(value)
        if kind in _PLAIN or value is None:
            return value
        if kind is Signed:
            return hash(value)
        if kind is tuple:
            return tuple([self.name(item) for item in value])  # type: ignore[attr-defined]
        if isinstance(value, Enum):
            return value.name
        if isinstance(value, Tensor):
            return hash(value.numpy().tobytes())
        if isinstance(value, _OPAQUE):
            return 0
        found = self._known.get(id(value))
        if found is not None:
            return found
        lasting = _is_shared(value)
        if lasting:
            kept = _lasting.get(id(value))
            if kept is not None and kept[0] is value:
                return kept[1]
        self._known[id(value)] = kind.__name__  # a cycle
        self._kept.append(value)
        if isinstance(value, dict):
            made: object = hash(frozenset([(self.name(key), self.name(item)) for key, item in value.items()]))
        elif isinstance(value, (set, frozenset)):
            made = hash(frozenset([self.name(item) for item in value]))
        elif isinstance(value, msgspec.Struct):
            made = hash(value)
        elif isinstance(value, list):
            made = hash(tuple([self.name(item) for item in value]))
        else:
            made = hash((kind.__name__, *[self.name(getattr(value, field, None)) for field in _fields(value)]))
        self._known[id(value)] = made
        if lasting:
            if len(_lasting) > 100_000:
                _lasting.clear()
            _lasting[id(value)] = value, made
        return made


def names(world: World) -> tuple[int, int]:
    """(the joint state of all honest peers and the network, the same with the puppets)."""
    now = world.now
    timers = frozenset(
        (node, name, due - now)
        for (node, name), (due, _) in world.timers.items()
        if node in world.honest and not world.peers[node].stopped
    )
    namer = _Namer()
    flying = frozenset(
        (time - now, node, namer.name(event))
        for time, _, _, node, event in world.heap
        if not isinstance(event, DeadlinePassed) and node in world.honest and not world.peers[node].stopped
    )

    def peer(node: int) -> int:
        mark, known = world.named.get(node, (-1, 0))
        if mark != world.marks[node]:
            known = hash(namer.name(world.peers[node]))
            world.named[node] = world.marks[node], known
        return known

    honest = tuple(peer(node) for node in world.honest)
    network = timers, flying, tuple(sorted((node, due - now) for node, due in world.busy.items() if due > now))
    first = hash((honest, network, tuple(sorted((node, due - now) for node, due in world.away.items()))))
    puppets = tuple(peer(node) for node in world.puppets)
    pool = tuple((said.sender, hash(said.signed), said.waiting, said.fresh) for said in world.pool)
    theirs = frozenset(
        (node, name, due - now) for (node, name), (due, _) in world.timers.items() if node in world.puppets
    )
    towards = frozenset(
        (time - now, node, namer.name(event))
        for time, _, _, node, event in world.heap
        if not isinstance(event, DeadlinePassed) and node in world.puppets
    )
    return first, hash((first, puppets, pool, theirs, towards))
