"""5x5 convolution followed by 2x2 max-pooling, as one matrix product: more than twice as fast here as the two layers.

One pooled output looks at a 6x6 window of the input (stride 2). The four convolution outputs under it, its *phases*,
are four placements of the 5x5 kernel in that window, so `[4 O, C 36] @ [C 36, positions]` yields all four as separate
planes and pooling is an elementwise maximum. The batch is the innermost axis, which keeps every copy and every
elementwise operation on long contiguous runs. Only operations with a fixed order of summation are used, on any device.

Shapes: B batch, C input channels, O output channels, M = positions x B columns. A window of an input that is stored
as *parity planes* `[C, 2, 2, H/2, W/2, B]` (row 2u+p, column 2v+q at `[p, q, u, v]`) is contiguous in v and B.
"""

from __future__ import annotations

import torch
from torch import Tensor

KERNEL, WINDOW = 5, 6
_OFFSETS = ((0, 0), (0, 1), (1, 0), (1, 1))


def kernel_matrix(weight: Tensor, *, planes: bool) -> Tensor:
    """Place a `[O, C, 5, 5]` kernel at the four phases of a window: `[4 O, C 36]`.

    Args:
        weight: the convolution's kernel.
        planes: True if the windows come from `plane_windows`, whose 36 elements are ordered by parity first.
    """
    outputs, channels = weight.shape[:2]
    placed = weight.new_zeros(2, 2, outputs, channels, WINDOW, WINDOW)
    for row, column in _OFFSETS:
        placed[row, column, :, :, row : row + KERNEL, column : column + KERNEL] = weight
    if planes:
        placed = placed.view(2, 2, outputs, channels, 3, 2, 3, 2).permute(0, 1, 2, 3, 5, 7, 4, 6)
    return placed.reshape(4 * outputs, channels * WINDOW * WINDOW)


def kernel_gradient(matrix_gradient: Tensor, channels: int, *, planes: bool) -> Tensor:
    """Adjoint of `kernel_matrix`: `[4 O, C 36]` to `[O, C, 5, 5]`."""
    shape = (2, 2, -1, channels)
    if planes:
        placed = matrix_gradient.view(*shape, 2, 2, 3, 3).permute(0, 1, 2, 3, 6, 4, 7, 5)
        placed = placed.reshape(2, 2, -1, channels, WINDOW, WINDOW)
    else:
        placed = matrix_gradient.view(*shape, WINDOW, WINDOW)
    slices = [placed[row, column, ..., row : row + KERNEL, column : column + KERNEL] for row, column in _OFFSETS]
    return slices[0] + slices[1] + slices[2] + slices[3]


def image_windows(image: Tensor) -> Tensor:
    """All windows of a one-channel image `[H, W, B]`: `[36, M]`, positions ordered as parity planes of the output."""
    windows = image.unfold(0, WINDOW, 2).unfold(1, WINDOW, 2)  # [rows, columns, B, 6, 6]
    rows, columns, batch = windows.shape[:3]
    split = windows.view(rows // 2, 2, columns // 2, 2, batch, WINDOW, WINDOW)  # [u, p, v, q, B, 6, 6]
    return split.permute(5, 6, 1, 3, 0, 2, 4).reshape(WINDOW * WINDOW, -1)


def plane_windows(planes: Tensor) -> Tensor:
    """All windows of parity planes `[C, 2, 2, h, w, B]`: `[C 36, M]`, positions in row-major order."""
    windows = planes.unfold(3, 3, 1).unfold(4, 3, 1)  # [C, p, q, rows, columns, B, 3, 3]
    return windows.permute(0, 1, 2, 6, 7, 3, 4, 5).reshape(planes.shape[0] * WINDOW * WINDOW, -1)


def plane_windows_gradient(windows_gradient: Tensor, shape: torch.Size) -> Tensor:
    """Adjoint of `plane_windows`: adds the overlapping windows up into planes of `shape` `[C, 2, 2, h, w, B]`."""
    channels, _, _, height, width, batch = shape
    rows, columns = height - 2, width - 2
    windows = windows_gradient.view(4 * channels, 3, 3, rows, columns, batch)
    total = windows.new_zeros(4 * channels, height, width, batch)
    for row in range(3):
        for column in range(3):
            total[:, row : row + rows, column : column + columns] += windows[:, row, column]
    return total.view(shape)


def pool(phases: Tensor) -> Tensor:
    """Maximum over the four phases `[2, 2, O, M]`: `[O, M]`."""
    return torch.maximum(torch.maximum(phases[0, 0], phases[0, 1]), torch.maximum(phases[1, 0], phases[1, 1]))


def pool_gradient(gradient: Tensor, phases: Tensor) -> Tensor:
    """Hand the gradient `[O, M]` to the phase `[2, 2, O, M]` that held the maximum; of equal ones, to the first."""
    rows = torch.maximum(phases[:, 0], phases[:, 1])
    by_row = torch.empty_like(rows)
    _hand_on(gradient, rows[0], rows[1], by_row[0], by_row[1])
    by_phase = torch.empty_like(phases)
    _hand_on(by_row, phases[:, 0], phases[:, 1], by_phase[:, 0], by_phase[:, 1])
    return by_phase


def _hand_on(gradient: Tensor, first: Tensor, second: Tensor, to_first: Tensor, to_second: Tensor) -> None:
    """Write `gradient` to the side with the larger value and 0 to the other one."""
    # Comparing into floats and multiplying is vectorised on CPUs; `where` and `max(dim)` are not (20 times slower).
    torch.gt(second, first, out=to_second)
    to_second.mul_(gradient)
    torch.sub(gradient, to_second, out=to_first)
