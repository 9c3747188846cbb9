"""Any `torch.nn.Module` and any map-style data set as a task: `btard.ModuleTask(...)` in a file for `--import`.

A gradient must repeat bit for bit at whoever recomputes it, so nothing may be left between two of them: parameters come
in as one flat vector (`torch.func.functional_call`), the global generators, from which dropout and augmentation draw,
are seeded from xi and restored, and buffers are fresh each time. Batch norm therefore normalises by the batch while it
trains; its running statistics are computed anew, from training batches that are always the same, where the model is
evaluated (Wu and Johnson 2021, "Rethinking Batch in BatchNorm", section 3: PreciseBN). In portable arithmetic all that
torch does for the task goes through btard/node/kernels/dispatch.py, the data set's own part and the first draw of the
parameters included.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import TensorDataset, default_collate

from btard.node.errors import ConfigError, DataError, PluginError
from btard.node.kernels import portable
from btard.node.training.registry import TASKS
from btard.node.training.sampling import Shards, drawing_from, generator_from
from btard.node.training.task import (
    EVALUATED,
    BatchTransform,
    Layer,
    TaskContext,
    lay_out,
    same_data,
    state_dict,
    tame,
)

if TYPE_CHECKING:
    from btard.node.kernels.dispatch import Portable

STATISTICS_BATCHES = 8
"""Training batches from which running statistics are computed for an evaluation."""


@dataclass(frozen=True, slots=True)
class Declared:
    """What a `ModuleTask` computes, its data apart.

    Args:
        name: of the task, for messages.
        model, loss, correct: as `ModuleTask` takes them.
    """

    name: str
    model: Callable[[], nn.Module]
    loss: Callable[[Any, Any], Tensor]
    correct: Callable[[Any, Any], Tensor] | None = None


class ModuleTask:
    """A model and its data under a name that `--task` knows.

    Args:
        name: what a user types.
        model: returns a new module, its parameters drawn from torch's global generator, or loaded.
        train, test: map-style data sets of (input, target) pairs, or functions from the data folder to them.
        loss: `(outputs_B, targets_B) -> scalar`, a mean over the batch.
        correct: `(outputs_B, targets_B) -> bool [B]`; None: the largest of the outputs is the target's class.
        source: where the task comes from, for `btard-launch tasks`.

    Raises:
        ConfigError: the name is taken.
    """

    def __init__(
        self,
        name: str,
        *,
        model: Callable[[], nn.Module],
        train: Any,
        test: Any,
        loss: Callable[[Any, Any], Tensor],
        correct: Callable[[Any, Any], Tensor] | None = None,
        source: str = "own",
    ) -> None:
        self.declared, self._train, self._test = Declared(name, model, loss, correct), train, test

        def build(context: TaskContext, *, arithmetic: str = "native") -> TrainedModule:
            return self(context, arithmetic)

        build.__doc__ = getattr(model, "__doc__", None) or f"{getattr(model, '__name__', 'a module')}, by ModuleTask"
        # A task of the user's own, not of this package: messages name where its model is.
        build.__module__ = getattr(model, "__module__", "__main__")
        build.declared = model  # type: ignore[attr-defined]
        TASKS.register(name, source=source, takes=("context",))(build)

    def __call__(self, context: TaskContext, arithmetic: str = "native") -> TrainedModule:
        """The task on its data.

        Raises:
            ConfigError: the model, the data or the loss cannot be used, or no such arithmetic, or not on this device.
            DataError: a data set cannot be opened.
            BackendError: portable arithmetic cannot be compiled here.
        """
        name, data_directory = self.declared.name, context.data_directory
        train, test = (_opened(name, each, data_directory) for each in (self._train, self._test))
        return TrainedModule(self.declared, train, test, context, arithmetic)


class TrainedModule:
    """A `ModuleTask` on its data: a `Task` (node/training/task.py).

    Args:
        declared: the model, the loss and the name.
        train, test: map-style data sets.
        context: batch size and device.
        arithmetic: portable: compute with the same bits on every processor, as far as the layers are known.

    Raises:
        ConfigError: a gradient of it would not repeat, or would not train all of it; no such arithmetic, or not on this
            device.
        BackendError: portable arithmetic cannot be compiled here.
    """

    def __init__(
        self, declared: Declared, train: Any, test: Any, context: TaskContext, arithmetic: str = "native"
    ) -> None:
        self.name, self._declared, self._train, self._test = declared.name, declared, train, test
        self.batch_size, self.device = context.batch_size, torch.device(context.device)
        self.train_size, self.test_size = len(train), len(test)
        self._portable: Portable | None = None
        if portable.chosen(arithmetic, self.name):
            if context.device != "cpu":
                raise self._unusable("portable arithmetic has no kernels for a GPU; use --device cpu")
            from btard.node.kernels.dispatch import Portable

            self._portable = Portable()
        with self._seeded(b"model"):
            self._model = declared.model().to(self.device)
        for module in self._model.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = None  # averages over all batches; training keeps none of them
        self._buffers = {name: each.detach().clone() for name, each in self._model.named_buffers()}
        self.layout = layout_of(self.name, self._model)
        self.buffers = frozenset(self._model.state_dict()) - {layer.name for layer in self.layout}
        """Names in a state dictionary beside the parameters'."""
        self.dimension = self.layout[-1].stop
        self.classes, self._running = self._try_out()
        self.shards = Shards(self.train_size) if context.deal is None else context.deal(self._labels())
        self._evaluated: tuple[Tensor, dict[str, Tensor], int] | None = None

    @property
    def foreign(self) -> frozenset[str]:
        """Operations of torch without a portable form that have been computed in portable arithmetic."""
        return frozenset() if self._portable is None else frozenset(self._portable.foreign)

    def resized(self, batch_size: int) -> TrainedModule:
        """The task with batches of another size."""
        return same_data(self, batch_size)

    def initial(self, seed: int) -> Tensor:
        """What the model draws with the global generators seeded from `seed`, float32 `[D]`."""
        with self._seeded(f"initial {seed}".encode()):
            model = self._declared.model()
        return torch.cat([each.detach().flatten().cpu() for each in model.parameters()]).contiguous()

    def gradient(
        self, parameters_D: Tensor, seed: bytes, transform: BatchTransform | None = None
    ) -> tuple[Tensor, float]:
        """Gradient of the loss on the batch that `seed` draws; see `Task.gradient`."""
        with self._seeded(seed):
            inputs_B, targets_B = self._batch(self._train, self._drawn(seed))
            if transform is not None:
                inputs_B, targets_B = transform(inputs_B, targets_B)
            here_D = parameters_D.detach().clone().to(self.device).requires_grad_()
            loss = self._declared.loss(self._outputs(here_D, self._fresh(), inputs_B, training=True), targets_B)
            (gradient_D,) = torch.autograd.grad(loss, here_D)
        return tame(gradient_D).cpu(), float(loss.detach())

    def evaluate(self, parameters_D: Tensor, start: int, stop: int) -> int:
        """Number of test items of `[start, stop)` that are classified correctly."""
        here_D, count = parameters_D.detach().clone().to(self.device), 0
        with torch.no_grad():
            buffers = self._statistics(here_D)
            for first in range(start, stop, EVALUATED):
                chosen_B = torch.arange(first, min(first + EVALUATED, stop))
                with self._seeded(f"test {first}".encode()):
                    inputs_B, targets_B = self._batch(self._test, chosen_B)
                    outputs_B = self._outputs(here_D, dict(buffers), inputs_B, training=False)
                count += int(self._right(outputs_B, targets_B).sum())
        return count

    def pieces(self, parameters_D: Tensor, start: int, stop: int) -> list[Callable[[], int]]:
        """`evaluate` in pieces that take no longer than a gradient, in this order; its result is the sum of theirs."""

        def prepared() -> int:
            with torch.no_grad():
                self._statistics(parameters_D.detach().clone().to(self.device), 1)
            return 0

        items = min(self.batch_size, EVALUATED)
        first = [prepared] * (STATISTICS_BATCHES if self._running else 0)
        tests = (partial(self.evaluate, parameters_D, at, min(at + items, stop)) for at in range(start, stop, items))
        return [*first, *tests]

    def module(self, parameters_D: Tensor) -> nn.Module:
        """A new model with these parameters, set to evaluate; its buffers are those of an evaluation."""
        model = self.blank()
        here_D = parameters_D.detach().clone().to(self.device)
        with torch.no_grad():
            values = {**state_dict(self.layout, here_D), **self._statistics(here_D)}
            for name, each in (*model.named_parameters(), *model.named_buffers()):
                each.copy_(values[name])
        return model

    def blank(self) -> nn.Module:
        """A new model as its author draws it, set to evaluate."""
        with self._seeded(b"model"):
            return self._declared.model().to(self.device).eval()

    def examples(self, count: int) -> Any:
        """Inputs of the first test items."""
        with self._seeded(b"examples"):
            return self._batch(self._test, torch.arange(count) % self.test_size)[0]

    @contextmanager
    def _seeded(self, seed: bytes) -> Iterator[None]:
        """The global generators seeded, and the run's arithmetic."""
        with drawing_from(seed, self.device), nullcontext() if self._portable is None else self._portable.on():
            yield

    # --- one batch --------------------------------------------------------------------------------------------

    def _drawn(self, seed: bytes) -> Tensor:
        return self.shards.draw(seed, self.batch_size, generator_from(seed, "module batch"))

    def _batch(self, data: Any, chosen_B: Tensor) -> tuple[Any, Any]:
        if isinstance(data, TensorDataset):
            inputs_B, targets_B = (each.index_select(0, chosen_B) for each in data.tensors)
        else:
            inputs_B, targets_B = self._collated([(place, data[place]) for place in map(int, chosen_B)])
        for what, each in (("inputs", inputs_B), ("targets", targets_B)):
            if not isinstance(each, Tensor):
                raise self._unusable(
                    f"the {what} of a batch are no tensor but a {type(each).__name__}; have the data set put each "
                    "item's into one tensor, and the model or the loss take it apart"
                )
        return inputs_B.to(self.device), targets_B.to(self.device)

    def _collated(self, drawn: Sequence[tuple[int, Any]]) -> Any:
        """Items of a data set, by their places, as one batch; one that is drawn twice is in it twice.

        Torch's own words on an item that does not fit name neither it nor the task.

        Raises:
            PluginError: one has another form than the first.
        """
        (first, example), *others = drawn
        try:
            return default_collate([item for _, item in drawn])
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            for place, item in others:
                try:
                    default_collate([example, item])
                except type(error):
                    fault = f"items {first} and {place} of a data set do not go into one batch"
                    raise PluginError(f"task {self.name!r}: {fault}: {error}; give all items one form") from error
            raise

    def _fresh(self) -> dict[str, Tensor]:
        return {name: each.clone() for name, each in self._buffers.items()}

    def _outputs(self, here_D: Tensor, buffers: dict[str, Tensor], inputs_B: Any, training: bool) -> Any:
        self._model.train(training)
        parameters = {layer.name: layer.view(here_D) for layer in self.layout}
        return functional_call(self._model, {**parameters, **buffers}, (inputs_B,))

    def _right(self, outputs_B: Any, targets_B: Any) -> Tensor:
        if self._declared.correct is not None:
            return self._declared.correct(outputs_B, targets_B)
        right_B: Tensor = outputs_B.argmax(dim=1) == targets_B
        return right_B

    def _statistics(self, here_D: Tensor, turns: int = STATISTICS_BATCHES) -> Mapping[str, Tensor]:
        """Buffers for an evaluation, after so many batches more at most; those of the parameters asked for last are
        kept, since evaluations come in pieces."""
        if not self._running:
            return self._buffers
        if self._evaluated is None or not torch.equal(self._evaluated[0], here_D):
            self._evaluated = here_D, self._fresh(), 0
        here_D, gathered, done = self._evaluated
        if done == STATISTICS_BATCHES:  # as for all pieces but the first
            return gathered
        stop = min(done + turns, STATISTICS_BATCHES)
        buffers = {name: each.clone() for name, each in gathered.items()}
        for turn in range(done, stop):
            seed = f"statistics {turn}".encode()
            with self._seeded(seed):
                inputs_B, _ = self._batch(self._train, self._drawn(seed))
                self._outputs(here_D, buffers, inputs_B, training=True)
        self._evaluated = here_D, buffers, stop
        return buffers

    # --- what cannot be used ----------------------------------------------------------------------------------

    def _try_out(self) -> tuple[int, bool]:
        """(number of classes, whether there are running statistics), from a batch of the smallest size that works."""
        for what, data in (("train", self._train), ("test", self._test)):
            if len(data) == 0:
                raise self._unusable(f"the {what} data set is empty")
            for place in {0, len(data) - 1}:
                if not _same(*(self._item(what, data, place) for _ in range(2))):
                    raise self._unusable(
                        f"item {place} of the {what} data set is another at a second read; gradients are recomputed "
                        "from it: draw from torch's, numpy's or Python's global generator, which are seeded for it"
                    )
        buffers = self._fresh()
        with self._seeded(b"try"):
            inputs_B, targets_B = self._batch(self._train, torch.arange(2) % self.train_size)
            self._model.train()
            parameters = dict(self._model.named_parameters())
            outputs_B = functional_call(self._model, {**parameters, **buffers}, (inputs_B,))
            loss: Any = self._declared.loss(outputs_B, targets_B)
            if not isinstance(loss, Tensor) or loss.numel() != 1:
                shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
                raise self._unusable(f"the loss is no scalar but {shape}; return its mean over the batch")
            if not bool(torch.isfinite(loss.detach())):
                raise self._unusable(f"the loss is {float(loss.detach())} at the model's own initial parameters")
            found: Sequence[Any] = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        unused = [name for name, each in zip(parameters, found, strict=True) if each is None]
        if unused:
            raise self._unusable(f"parameter {unused[0]!r} is not used for the loss; take it out of the model")
        endless = [name for name, each in zip(parameters, found, strict=True) if not bool(torch.isfinite(each).all())]
        if endless:
            raise self._unusable(f"parameter {endless[0]!r} has a gradient that is not finite at the model's own start")
        return self._classes(outputs_B, targets_B), self._has_statistics(buffers)

    def _has_statistics(self, after: Mapping[str, Tensor]) -> bool:
        norms = {name for name, module in self._model.named_modules() if isinstance(module, _BatchNorm)}
        changed = [name for name, each in after.items() if not torch.equal(each, self._buffers[name])]
        state = [name for name in changed if name.rpartition(".")[0] not in norms]
        if state:
            raise self._unusable(
                f"buffer {state[0]!r} changes when the model computes: no peer could recompute a gradient without the "
                "steps before; only batch norm's statistics may"
            )
        return bool(changed)

    def _classes(self, outputs_B: Any, targets_B: Any) -> int:
        labels = isinstance(targets_B, Tensor) and targets_B.dim() == 1 and not targets_B.is_floating_point()
        if labels and isinstance(outputs_B, Tensor) and outputs_B.dim() == 2:
            return outputs_B.shape[1]
        if self._declared.correct is None:
            raise self._unusable("outputs are not [batch, classes] with a class for each item; pass `correct=`")
        return 0

    def _labels(self) -> Tensor:
        """The training examples' classes, int64 `[train_size]`: the data set's own list, or read once."""
        if isinstance(self._train, TensorDataset):
            found: Any = self._train.tensors[1]
        else:
            found = getattr(self._train, "targets", None)
            if found is None or len(found) != self.train_size:
                found = [self._item("train", self._train, place)[1] for place in range(self.train_size)]
        try:
            labels = torch.as_tensor(found)
        except (TypeError, ValueError, RuntimeError):
            labels = torch.empty(0)
        if labels.shape != (self.train_size,) or labels.is_floating_point() or labels.is_complex():
            raise self._unusable("its targets are no classes, whole numbers that a split could go by; use --split iid")
        return labels.long()

    def _item(self, what: str, data: Any, place: int) -> Any:
        with self._seeded(f"item {place}".encode()):
            item = data[place]
        if not isinstance(item, tuple | list) or len(item) != 2:
            raise self._unusable(f"item {place} of the {what} data set is no (input, target) pair")
        return item

    def _unusable(self, problem: str) -> ConfigError:
        return ConfigError(f"task {self.name!r}: {problem}")


def layout_of(name: str, model: nn.Module) -> tuple[Layer, ...]:
    """The tensors of a model that is to be trained, in order.

    Args:
        name: of its task.
        model: all of whose parameters are trained.

    Raises:
        ConfigError: it has none, or frozen ones, or some that are not float32.
    """
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ConfigError(f"task {name!r}: the model has no parameters")
    frozen = [each for each, values in parameters.items() if not values.requires_grad]
    if frozen:
        raise ConfigError(
            f"task {name!r}: parameter {frozen[0]!r} is frozen (requires_grad is False); make it a buffer"
        )
    other = [each for each, values in parameters.items() if values.dtype != torch.float32]
    if other:
        kind = str(parameters[other[0]].dtype).removeprefix("torch.")
        raise ConfigError(f"task {name!r}: parameter {other[0]!r} is {kind}; peers exchange float32: call `.float()`")
    return lay_out((each, tuple(values.shape)) for each, values in parameters.items())


def _opened(name: str, data: Any, directory: Path) -> Any:
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return data
    try:
        found = data(directory)
    except Exception as error:
        raise DataError(f"task {name!r}: its data cannot be opened: {type(error).__name__}: {error}") from error
    if not hasattr(found, "__getitem__") or not hasattr(found, "__len__"):
        raise ConfigError(f"task {name!r}: a {type(found).__name__} is no map-style data set (`len` and `[...]`)")
    return found


def _same(first: Any, second: Any) -> bool:
    """Equal, and a NaN is to a NaN: it was read twice alike, and the loss will tell of it."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return first.shape == second.shape and bool((first.eq(second) | first.ne(first) & second.ne(second)).all())
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return False
    if isinstance(first, np.ndarray):
        return bool(np.array_equal(first, second, equal_nan=first.dtype.kind in "fc"))
    if isinstance(first, Mapping):
        return first.keys() == second.keys() and all(_same(first[each], second[each]) for each in first)
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(_same, first, second))
    return bool(first == second or (first != first and second != second))
