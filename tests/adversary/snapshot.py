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

from btard.node.protocol.api import DeadlinePassed
from btard.node.protocol.settings import Settings, Tools
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

_OPAQUE = (FunctionType, BuiltinFunctionType, MethodType, ModuleType, Settings, Tools, type)
_SKIPPED = frozenset(
    {"settings", "tools", "_settings", "_tools", "_keys", "_secret_seed", "secret_seed", "keys", "_bodies"}
)
"""What never changes, or follows from what is beside it."""
_BY_VALUE = {int, str, bytes, float, bool, type(None)}
"""Kinds whose own hash says all of a value; structs and enumerations join them as they are met."""
_HOWS = ((dict, "map"), ((tuple, list), "row"), ((set, frozenset), "set"), (Tensor, "tensor"), (_OPAQUE, "opaque"),
         ((msgspec.Struct, Enum), "value"), (object, "object"))  # fmt: skip
_hows: dict[type, str] = {}
_slots: dict[type, tuple[str, ...]] = {}


def _how(kind: type) -> str:
    """How values of a kind are named."""
    how = _hows[kind] = next(how for kinds, how in _HOWS if issubclass(kind, kinds))
    if how == "value":
        _BY_VALUE.add(kind)
    return how


def _fields(value: object) -> tuple[str, ...]:
    kind = type(value)
    known = _slots.get(kind)
    if known is None:
        names = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ())]
        known = _slots[kind] = tuple(name for name in names if name not in _SKIPPED and not name.startswith("__"))
    more = getattr(value, "__dict__", None)
    return (*known, *[name for name in more if name not in _SKIPPED]) if more else known


_lasting: dict[int, tuple[object, int]] = {}
"""Names of values that never change, with the values: an id is one object's for as long as it lives."""


def _kept_name(value: object, made: int) -> int:
    if len(_lasting) > 100_000:
        _lasting.clear()
    _lasting[id(value)] = value, made
    return made


class _Namer:
    """One pass over a graph of objects. Keys of dictionaries and members of sets are named by their own hash."""

    def __init__(self) -> None:
        self._known: dict[int, object] = {}
        self._kept: list[object] = []

    def name(self, value: object) -> object:
        """Something hashable that is equal for equal values."""
        kind = type(value)
        how = _hows.get(kind) or _how(kind)
        if how == "row":
            return hash(tuple([item if type(item) in _BY_VALUE else self.name(item) for item in value]))  # type: ignore[attr-defined]
        if how == "map":
            if not value:
                return 0
            pairs = value.items()  # type: ignore[attr-defined]
            if not _BY_VALUE.issuperset(map(type, value.values())):  # type: ignore[attr-defined]
                pairs = [(key, item if type(item) in _BY_VALUE else self.name(item)) for key, item in pairs]
            return hash(frozenset(pairs))
        if how == "set":
            return hash(frozenset(value)) if value else 0  # type: ignore[call-overload]
        if how == "value":
            return value
        if how == "opaque":
            return 0
        found = self._known.get(id(value))
        if found is not None:
            return found
        lasting = how == "tensor" or _is_shared(value)
        if lasting and (kept := _lasting.get(id(value))) is not None and kept[0] is value:
            return kept[1]
        if how == "tensor":
            return _kept_name(value, hash(value.numpy().tobytes()))  # type: ignore[attr-defined]
        self._known[id(value)] = kind.__name__  # a cycle
        self._kept.append(value)
        items = [getattr(value, field, None) for field in _fields(value)]
        names = [item if type(item) in _BY_VALUE else self.name(item) for item in items]
        made = self._known[id(value)] = hash((kind.__name__, *names))
        return _kept_name(value, made) if lasting else made


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
