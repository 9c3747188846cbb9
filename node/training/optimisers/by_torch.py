"""Elementwise optimisers of torch, and `btard.TorchOptimiser` for one of one's own, as pure functions of flat vectors.

What an optimiser keeps for its parameters travels in one vector: its tensors of the parameters' shape, its scalars,
both in order of their names, and a 1 once it has begun. Torch's kernels may contract products and sums, so the bits are
those of one kind of processor: peers whose environments differ cannot agree on them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from btard.node.errors import ConfigError
from btard.node.training.registry import OPTIMISERS, UpdateContext
from btard.node.training.task import Rate

Make = Callable[[Tensor, float], Optimizer]
"""`(parameters, learning rate) -> optimiser` of these parameters alone."""

_SWITCHES = ("lr", "params", "foreach", "maximize", "capturable", "differentiable", "fused")
_TRIED = 6
"""Entries of the vector on which an optimiser is tried out."""


class TorchOptimiser:
    """An optimiser class of torch's kind under a name that `--optimiser` knows.

    Args:
        name: what a user types.
        optimiser: called with (parameters, lr=...) and what the user gives of its other keyword parameters; a pair
            `betas=(a, b)` is given as `beta1=a,beta2=b`.
        source: where it comes from.

    Raises:
        ConfigError: the name is taken.
    """

    def __init__(self, name: str, optimiser: type[Optimizer], source: str = "own") -> None:
        self.name, self.optimiser = name, optimiser
        self._pairs, accepted = _parameters(optimiser)

        def build(context: UpdateContext, **given: Any) -> ByTorch:
            return self(context, **given)

        build.__doc__ = f"{optimiser.__module__}.{optimiser.__qualname__}, elementwise."
        context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        build.__signature__ = inspect.Signature([context, *accepted])  # type: ignore[attr-defined]
        build.declared = optimiser  # type: ignore[attr-defined]
        if not optimiser.__module__.startswith("torch."):  # then it is the user's own code, which is tried out first
            build.__module__ = optimiser.__module__
        OPTIMISERS.register(name, source=source, takes=("context",), portable=False)(build)

    def __call__(self, context: UpdateContext, **given: Any) -> ByTorch:
        """It with some parameters.

        Raises:
            ConfigError: it does not take them, or its updates are no elementwise function of gradient and state.
        """
        for pair, names in self._pairs.items():
            if any(name in given for name in names):
                defaults = inspect.signature(self.optimiser).parameters[pair].default
                given[pair] = tuple(given.pop(name, default) for name, default in zip(names, defaults, strict=True))

        def make(parameters_D: Tensor, rate: float) -> Optimizer:
            # A keyword: torch's classes and those in their manner call it so.
            return self.optimiser([parameters_D], lr=rate, **given)  # type: ignore[call-arg]

        try:
            return ByTorch(context.rate, make)
        except ConfigError as error:
            raise ConfigError(f"--optimiser {self.name}: {error}") from error
        except Exception as error:
            text = str(error).partition("\n")[0]
            raise ConfigError(f"--optimiser {self.name} cannot be used: {type(error).__name__}: {text}") from error


class ByTorch:
    """An optimiser of torch's between flat vectors.

    Args:
        rate: learning rate of a step.
        make: makes one for some parameters.

    Raises:
        ConfigError: its updates are no elementwise function of gradient and state.
    """

    def __init__(self, rate: Rate, make: Make) -> None:
        self._rate, self._make = rate, make
        self._vectors: tuple[str, ...] = ()
        self._scalars: tuple[str, ...] = ()
        self._try_out()

    def initial_state(self, dimension: int) -> Tensor:
        """Of one that has not begun: zeros, float32 `[S]`."""
        return torch.zeros(len(self._vectors) * dimension + len(self._scalars) + 1, dtype=torch.float32)

    def apply(
        self, parameters_D: Tensor, state_S: Tensor, gradient: Sequence[Tensor], step: int
    ) -> tuple[Tensor, Tensor]:
        """One update; see `Optimiser.apply`."""
        return self._apply(parameters_D, state_S, torch.cat(list(gradient)), self._rate(step))

    def _apply(self, parameters_D: Tensor, state_S: Tensor, gradient_D: Tensor, rate: float) -> tuple[Tensor, Tensor]:
        here_D, kept = self._step(parameters_D, self._unpacked(state_S, parameters_D.numel()), gradient_D, rate)
        parts = [kept[name] for name in self._vectors]
        scalars = [torch.tensor([float(kept[name]) for name in self._scalars] + [1.0], dtype=torch.float32)]
        return here_D, torch.cat(parts + scalars)

    def _step(
        self, parameters_D: Tensor, kept: Mapping[str, Tensor] | None, gradient_D: Tensor, rate: float
    ) -> tuple[Tensor, dict[str, Any]]:
        """New parameters, and what it keeps then; `kept` is None before its first update."""
        here_D = parameters_D.detach().clone().requires_grad_()
        here_D.grad = gradient_D.clone()
        made = self._make(here_D, rate)
        if kept is not None:
            made.state[here_D] = dict(kept)
        made.step()
        return here_D.detach(), {key: value for key, value in made.state[here_D].items() if value is not None}

    def _unpacked(self, state_S: Tensor, dimension: int) -> dict[str, Tensor] | None:
        if not state_S[-1]:
            return None
        sizes = [dimension] * len(self._vectors) + [1] * len(self._scalars) + [1]
        parts = [each.clone() for each in torch.split(state_S, sizes)]
        return dict(zip(self._vectors, parts, strict=False)) | {
            name: part.squeeze(0) for name, part in zip(self._scalars, parts[len(self._vectors) :], strict=False)
        }

    # --- what cannot be used ----------------------------------------------------------------------------------

    def _try_out(self) -> None:
        """Two updates of a small vector: at once, again, and in two pieces."""
        source = torch.Generator().manual_seed(0)
        start_D, *gradients = torch.randn(3, _TRIED, generator=source).unbind()
        _, kept = self._step(start_D, None, gradients[0], 0.1)
        self._vectors = tuple(sorted(key for key, value in kept.items() if _is_float(value, start_D.shape)))
        self._scalars = tuple(sorted(key for key, value in kept.items() if _is_float(value, torch.Size())))
        other = sorted(set(kept) - {*self._vectors, *self._scalars})
        if other:
            raise ConfigError(f"it keeps {other[0]!r}, which is neither a float32 number nor as long as its parameters")
        whole, again = (self._twice(start_D, gradients) for _ in range(2))
        if not all(map(torch.equal, whole, again)):
            raise ConfigError("its update is another at a second call; it has to follow from gradient and state")
        half = _TRIED // 2
        pieces = [
            self._twice(start_D[part], [each_D[part] for each_D in gradients])[0]
            for part in (slice(half), slice(half, _TRIED))
        ]
        if not torch.allclose(whole[0], torch.cat(pieces), rtol=1e-4, atol=1e-6):
            raise ConfigError("its update of one entry depends on others, and it would not see the model's layers")

    def _twice(self, parameters_D: Tensor, gradients: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        state_S = self.initial_state(parameters_D.numel())
        for gradient_D in gradients:
            parameters_D, state_S = self._apply(parameters_D, state_S, gradient_D, 0.1)
        return parameters_D, state_S


def _is_float(value: object, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.float32 and value.shape == shape


def _parameters(optimiser: type[Optimizer]) -> tuple[dict[str, tuple[str, str]], list[inspect.Parameter]]:
    """Its keyword parameters that an option can set: pairs by the names of their halves, and all of them."""
    pairs: dict[str, tuple[str, str]] = {}
    found: dict[str, object] = {}
    for name, parameter in inspect.signature(optimiser).parameters.items():
        default = parameter.default
        if name in _SWITCHES or default is inspect.Parameter.empty:
            continue
        if isinstance(default, tuple) and len(default) == 2 and all(isinstance(each, int | float) for each in default):
            pairs[name] = (f"{name.removesuffix('s')}1", f"{name.removesuffix('s')}2")
            found |= dict(zip(pairs[name], map(float, default), strict=True))
        elif isinstance(default, bool | int | float | str | None):
            # `weight_decay: float = 0` takes 0.01 as well.
            whole = isinstance(default, bool) or parameter.annotation in (int, "int")
            found[name] = float(default) if isinstance(default, int) and not whole else default
    kind = inspect.Parameter.KEYWORD_ONLY
    return pairs, [inspect.Parameter(name, kind, default=default) for name, default in found.items()]


for _optimiser, _source in (
    (torch.optim.Adadelta, "Zeiler 2012"),
    (torch.optim.Adagrad, "Duchi, Hazan and Singer 2011"),
    (torch.optim.Adamax, "Kingma and Ba 2015, section 7.1"),
    (torch.optim.ASGD, "Polyak and Juditsky 1992"),
    (torch.optim.NAdam, "Dozat 2016"),
    (torch.optim.RAdam, "Liu et al. 2020"),
    (torch.optim.RMSprop, "Hinton 2012, lecture 6"),
    (torch.optim.Rprop, "Riedmiller and Braun 1993"),
):
    TorchOptimiser(_optimiser.__name__.lower(), _optimiser, f"{_source}; torch.optim")
