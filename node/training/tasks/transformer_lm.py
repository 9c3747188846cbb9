"""A character model on a text that ships with the package."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import torch
from torch import Tensor

from btard.node.errors import ConfigError, DataError
from btard.node.kernels import portable
from btard.node.training import datasets
from btard.node.training.models import transformer
from btard.node.training.registry import task
from btard.node.training.sampling import generator_from, generator_from_int
from btard.node.training.task import BatchTransform, TaskContext, same_data, tame

TEXT = Path(datasets.__file__).parent / "texts" / "alice.txt"
_TEST_SHARE = 0.1
_EVALUATED = 64
"""Windows in one pass of an evaluation."""


class TransformerLm:
    """Cross entropy of the next character at every place of uniformly drawn windows of the training text.

    A test item is one place of the test text; places are counted window by window. In portable arithmetic torch draws
    integers and scales initial parameters elementwise; all else is `kernels/portable.py`.
    """

    name = "transformer_lm"

    def __init__(
        self, text: str, batch_size: int, device: str, shape: tuple[int, int, int], is_portable: bool = False
    ) -> None:
        context, width, blocks = shape
        self._portable = is_portable
        alphabet = sorted(set(text))
        numbers = torch.tensor([alphabet.index(character) for character in text])
        held_out = round(len(text) * _TEST_SHARE)
        windows = (held_out - 1) // context
        if windows < 1 or len(text) - held_out <= context:
            raise ConfigError(f"task 'transformer_lm': context={context} is too long for a text of {len(text)}")
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.classes = len(alphabet)
        self._shape = transformer.Shape(len(alphabet), context, width, blocks)
        self.layout = self._shape.layout()
        self.dimension = self.layout[-1].stop
        train, test = numbers[:-held_out], numbers[-held_out:]
        self._train = train.to(self.device)
        places = torch.arange(windows)[:, None] * context + torch.arange(context)
        self._test_inputs, self._test_targets = test[places].to(self.device), test[places + 1].to(self.device)
        self.train_size, self.test_size = len(train) - context, windows * context

    def resized(self, batch_size: int) -> TransformerLm:
        """The task with batches of another size."""
        return same_data(self, batch_size)

    def initial(self, seed: int) -> Tensor:
        """Initial parameters drawn from `seed`, float32 `[D]`; see `transformer.initial`."""
        generator = generator_from_int(seed, "transformer_lm initial")
        return transformer.initial(self.layout, generator, portable=self._portable)

    def gradient(
        self, parameters_D: Tensor, seed: bytes, transform: BatchTransform | None = None
    ) -> tuple[Tensor, float]:
        """Gradient of the mean cross entropy over the windows that `seed` draws; see `Task.gradient`.

        A `transform` sees characters int64 `[B, T]` and the characters that follow them, int64 `[B, T]`.
        """
        generator = generator_from(seed, "transformer_lm batch")
        starts_B = torch.randint(self.train_size, (self.batch_size,), generator=generator).to(self.device)
        places_BT = starts_B[:, None] + torch.arange(self._shape.context, device=self.device)
        inputs_BT, targets_BT = self._train[places_BT], self._train[places_BT + 1]
        if transform is not None:
            inputs_BT, targets_BT = transform(inputs_BT, targets_BT)
        if self._portable:
            gradient_D, loss = portable.transformer_gradient(
                astuple(self._shape), parameters_D.detach(), inputs_BT, targets_BT
            )
        else:
            here_D = parameters_D.to(self.device)
            gradient_D, loss = transformer.gradient(self._shape, self.layout, here_D, inputs_BT, targets_BT)
        return tame(gradient_D.cpu()), loss

    @torch.no_grad()
    def evaluate(self, parameters_D: Tensor, start: int, stop: int) -> int:
        """Number of places of `[start, stop)` whose next character has the largest score."""
        if start >= stop:
            return 0
        context = self._shape.context
        here_D = parameters_D.detach().clone().to(self.device)
        first = start // context
        correct = []
        for window in range(first, -(-stop // context), _EVALUATED):
            inputs_BT = self._test_inputs[window : window + _EVALUATED]
            if self._portable:
                scores_BTV = portable.transformer_scores(astuple(self._shape), here_D, inputs_BT)
            else:
                scores_BTV = transformer.logits(self._shape, self.layout, here_D, inputs_BT)
            guesses_BT = scores_BTV.argmax(dim=-1)
            correct.append((guesses_BT == self._test_targets[window : window + _EVALUATED]).flatten())
        return int(torch.cat(correct)[start - first * context : stop - first * context].sum())


@task(
    "transformer_lm",
    source="Vaswani et al. 2017; text: Lewis Carroll 1865, in the public domain",
    examples=(
        {"context_length": 16, "width": 16, "blocks": 1},
        {"context_length": 20, "width": 20, "blocks": 2, "arithmetic": "portable"},
    ),
)
def transformer_lm(
    context: TaskContext,
    *,
    context_length: int = 64,
    width: int = 64,
    blocks: int = 2,
    arithmetic: str = "native",
) -> TransformerLm:
    """A small transformer that predicts the next character of a text; it needs no data set."""
    sizes = {"context_length": context_length, "width": width, "blocks": blocks}
    for name, value in sizes.items():
        if value < 1:
            raise ConfigError(f"task 'transformer_lm': {name}={value} is too small; use at least 1")
    if width % 4:
        raise ConfigError(f"task 'transformer_lm': width={width} must be a multiple of its 4 heads")
    is_portable = portable.chosen(arithmetic, "transformer_lm")
    try:
        text = TEXT.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {TEXT}: {error}; install the package again") from error
    shape = (context_length, width, blocks)
    return TransformerLm(text, context.batch_size, context.device, shape, is_portable)
