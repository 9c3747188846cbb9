"""Name to plug-in, for attacks, rules and tasks: lists its folder, refuses duplicates, knows the nearest name."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from btard.node.errors import ConfigError
from btard.node.nearest import nearest, suggestion
from btard.node.plugins.extensions import load_installed, place

T = TypeVar("T")

_PARAMETER_TYPES = (bool, int, float, str, type(None))
"""What an option can spell behind the colon of a name."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One registered plug-in.

    Args:
        name: what a user types.
        target: the registered function or class.
        source: paper and section it comes from.
        facts: what else its registry records (where an attack acts, which residual a rule leaves).
        examples: parameter sets that the shared test table runs.
    """

    name: str
    target: T
    source: str
    facts: Mapping[str, object]
    examples: tuple[Mapping[str, object], ...]

    @property
    def summary(self) -> str:
        """First line of the plug-in's docstring."""
        return (inspect.getdoc(self.target) or "").split("\n", 1)[0]

    @property
    def own(self) -> bool:
        """True if it comes from outside this package: from a file of `--import` or an installed package."""
        return not str(getattr(self.target, "__module__", "")).startswith("btard.")

    @property
    def parameters(self) -> dict[str, object]:
        """Keyword-only parameters of the plug-in with their defaults."""
        signature = inspect.signature(self.target)  # type: ignore[arg-type]
        return {each.name: each.default for each in signature.parameters.values() if each.kind is each.KEYWORD_ONLY}


class Registry(Generic[T]):
    """All plug-ins of one kind; `package`, with the modules in it, is imported on first use."""

    def __init__(self, kind: str, package: str, listed_by: str | None = None) -> None:
        self.kind = kind
        self._listed_by = listed_by or f"{kind}s"
        self._package = package
        self._entries: dict[str, Entry[T]] = {}
        self._loaded = False
        self._loading = threading.RLock()

    def register(
        self, name: str, *, source: str, takes: tuple[str, ...], needs: tuple[str, ...] = (),
        examples: tuple[Mapping[str, object], ...] = (), **facts: object,
    ) -> Callable[[T], T]:  # fmt: skip
        """Decorator that adds a plug-in under `name`.

        Args:
            takes: what it is called with, in order; its own parameters are keyword-only, with defaults.
            needs: parameters that it must have, for what else it declares.

        Raises:
            ConfigError: the name is taken, or the plug-in cannot be called so.
        """

        def add(target: T) -> T:
            if name in self._entries:
                raise ConfigError(f"{self.kind} {name!r} is registered twice; give one of them another name")
            _check_signature(f"{self.kind} {name!r}", target, takes, needs)
            self._entries[name] = Entry(name, target, source, facts, examples)
            return target

        return add

    def get(self, name: str) -> Entry[T]:
        """The entry called `name`.

        Raises:
            ConfigError: no such name; the message gives the nearest one.
        """
        self._load()
        if name not in self._entries:
            near = nearest(name, self._entries)
            hint = f"; did you mean {near!r}?" if near else ";"
            raise ConfigError(f"unknown {self.kind} {name!r}{hint} `btard-launch {self._listed_by}` lists them all")
        return self._entries[name]

    def check(self, name: str, parameters: Mapping[str, object]) -> None:
        """Refuse parameters that the plug-in does not take or whose type differs from its default's.

        Raises:
            ConfigError: unknown name, unknown parameter or wrong type.
        """
        known = self.get(name).parameters
        for key, value in parameters.items():
            if key not in known:
                hint = suggestion(key, known) if known else "it takes none"
                raise ConfigError(f"{self.kind} {name!r} has no parameter {key!r}; {hint}")
            default = known[key]
            kinds: tuple[type, ...] = (int, float, type(None)) if default is None else (type(default),)
            if isinstance(default, float):
                kinds = (float, int)
            if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(default, bool)):
                wanted = "number or none" if default is None else type(default).__name__
                raise ConfigError(f"{self.kind} {name!r}: {key}={value!r} must be a {wanted}")

    def __iter__(self) -> Iterator[Entry[T]]:
        self._load()
        return iter(sorted(self._entries.values(), key=lambda entry: entry.name))

    def _load(self) -> None:
        load_installed()
        with self._loading:  # the runs of a sweep ask from several threads
            if self._loaded:
                return
            self._loaded = True
            package = importlib.import_module(self._package)
            for module in pkgutil.iter_modules(getattr(package, "__path__", ())):
                importlib.import_module(f"{self._package}.{module.name}")


def _check_signature(what: str, target: object, takes: tuple[str, ...], needs: tuple[str, ...]) -> None:
    """Refuse what cannot be called with `takes`, lacks a parameter that it needs, or has one that no option can set.

    Raises:
        ConfigError: the parameter and how to write it.
    """
    own = [f"{each}=default" for each in needs or ("parameter",)]
    wanted = f"write `def f({', '.join((*takes, '*', *own))})`"
    if not callable(target):
        raise ConfigError(f"{what} is a {type(target).__name__}, no function; {wanted}")
    where = place(target)
    try:
        signature = inspect.signature(target)
        signature.bind(*takes)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}{where} cannot be called with ({', '.join(takes)}): {error}; {wanted}") from error
    for each in needs:
        if each not in signature.parameters:
            raise ConfigError(f"{what}{where} has no parameter {each!r}, which its decorator asks for; {wanted}")
    for position, parameter in enumerate(signature.parameters.values()):
        positional = parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if positional and position >= len(takes):
            raise ConfigError(
                f"{what}{where} has its parameter {parameter.name!r} before the `*`, where no option can set it; "
                f"{wanted}"
            )
        if parameter.kind is parameter.KEYWORD_ONLY and not isinstance(parameter.default, _PARAMETER_TYPES):
            raise ConfigError(
                f"{what}{where}: the default of {parameter.name!r} is a {type(parameter.default).__name__}; an option "
                "can set whole numbers, numbers, text, true or false, and none"
            )
