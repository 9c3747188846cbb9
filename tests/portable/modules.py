"""Models with most layers that torch has, and what portable arithmetic computes of them.

`python -m tests.portable.modules` prints one digest for each, the same on every processor.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from blake3 import blake3
from torch import Tensor, nn
from torch.nn import functional

from btard.node.kernels.dispatch import Portable

CLASSES = 5


class Attending(nn.Module):
    """A block of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places = nn.Embedding(20, 16), nn.Parameter(torch.zeros(8, 16))
        self.before, self.after = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2, dropout=0.1, batch_first=True)
        self.feed = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Dropout(0.1), nn.Linear(32, 16), nn.SiLU())
        self.out = nn.Linear(16, CLASSES)

    def forward(self, texts: Tensor) -> Tensor:
        """Scores `[B, CLASSES]` of texts `[B, 8]`."""
        hidden = self.table(texts) + self.places
        looked = self.before(hidden)
        hidden = hidden + self.attention(looked, looked, looked, need_weights=False)[0]
        scores: Tensor = self.out((hidden + self.feed(self.after(hidden))).mean(1))
        return scores


class Convolving(nn.Module):
    """Convolutions of all shapes, pooling, norms."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.second, self.groups = nn.Conv2d(8, 8, (3, 2), stride=2, padding=(2, 1), groups=2), nn.GroupNorm(2, 8)
        self.wide, self.line = nn.Conv2d(8, 8, 3, dilation=2, padding=2), nn.Conv1d(8, 6, 3, stride=2, padding=1)
        self.out = nn.Linear(6, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Scores `[B, CLASSES]` of images `[B, 3, 17, 17]`."""
        hidden = functional.max_pool2d(functional.relu(self.norm(self.first(images)), inplace=True), 3, 2, 1)
        hidden = hidden + torch.tanh(self.groups(self.wide(hidden)))
        hidden = functional.avg_pool2d(functional.leaky_relu(self.second(hidden)), 2, 1)
        hidden = functional.elu(self.line(hidden.flatten(2)))
        hidden = functional.adaptive_avg_pool1d(hidden, 1).flatten(1)
        scores: Tensor = self.out(functional.dropout(functional.softplus(hidden), 0.5, self.training))
        return scores


class Recurring(nn.Module):
    """Two recurrent layers."""

    def __init__(self) -> None:
        super().__init__()
        self.long, self.gated = nn.LSTM(6, 8, batch_first=True), nn.GRU(8, 8, batch_first=True)
        self.out = nn.Linear(8, CLASSES)

    def forward(self, lines: Tensor) -> Tensor:
        """Scores `[B, CLASSES]` of lines `[B, 7, 6]`."""
        scores: Tensor = self.out(torch.sigmoid(self.gated(self.long(lines)[0])[0][:, -1]))
        return scores


Inputs = Callable[[torch.Generator], Tensor]
MODELS: dict[str, tuple[Callable[[], nn.Module], Inputs]] = {
    "attending": (Attending, lambda generator: torch.randint(20, (4, 8), generator=generator)),
    "convolving": (Convolving, lambda generator: _integers((4, 3, 17, 17), generator)),
    "recurring": (Recurring, lambda generator: _integers((4, 7, 6), generator)),
}


def _integers(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Numbers of a grid: no library's arithmetic is in them."""
    return torch.randint(-64, 64, shape, generator=generator).float() / 32.0


def batch(name: str) -> tuple[Tensor, Tensor]:
    """Inputs and targets."""
    generator = torch.Generator().manual_seed(5)
    return MODELS[name][1](generator), torch.randint(CLASSES, (4,), generator=generator)


def computed(name: str, mode: Portable) -> list[Tensor]:
    """Parameters, gradient, buffers and the scores of an evaluation, all in portable arithmetic."""
    inputs, targets = batch(name)
    torch.manual_seed(7)
    with mode.on():
        model = MODELS[name][0]()
        loss = functional.cross_entropy(model(inputs), targets)
        gradient = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():
            scores = model.eval()(inputs)
    return [*(each.detach() for each in (*model.parameters(), *model.buffers())), *gradient, loss.detach(), scores]


def digest(name: str) -> str:
    """Of everything `computed`, bit by bit."""
    mode = Portable()
    data = b"".join(each.contiguous().numpy().tobytes() for each in computed(name, mode))
    assert not mode.foreign, mode.foreign
    return blake3(data).hexdigest(length=16)


if __name__ == "__main__":
    for each in MODELS:
        print(each, digest(each))
