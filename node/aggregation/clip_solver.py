"""CenteredClip's fixed point in the n dimensions of its coefficients: no pass over the data in here.

The aggregate is `v = c + sum_i a_i (x_i - c)` for a known centre c, and G is the Gram matrix of the `x_i - c`.
Then `||x_i - v||^2 = (e_i - a)^T G (e_i - a)`, and the fixed point `sum_i w_i (x_i - v) = 0` reads `a = w / sum w`.
It is the minimum of the convex sum of Huber functions of the distances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from btard.node import kernels
from btard.node.aggregation.residual import clip_weights

# Plain steps converge in 3 to 8 iterations on gradients; where they have not by then, Newton steps join in.
_PLAIN_STEPS = 8
_STEPS_LIMIT = 1000
# Every so many steps: does rounding in G still let the iteration end? If not, the caller centres it anew.
_PATIENCE = 16
# A Newton step that does not descend as far as the plain one is halved so many times: between two equally large groups
# out of each other's reach the objective is nearly flat, and a step ends where a row comes within the radius.
_HALVINGS = 40
# Shares of the tolerance: for the iteration's end, and for what rounding in G can hide.
_RESIDUAL_SHARE = 0.5
_ROUNDING_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Solution:
    """Coefficients `[N]` (float64, summing to 1), the steps taken, and whether G was exact enough to vouch for them."""

    coefficients_N: Tensor
    iterations: int
    certain: bool


@dataclass(frozen=True, slots=True)
class _Point:
    """A candidate: coefficients a, distances r, weights w, and a bound on the residual's norm."""

    coefficients_N: Tensor
    distances_N: Tensor
    weights_N: Tensor
    residual: float


def solve(gram_NN: Tensor, radius: float, eps: float, rounding: float) -> Solution:
    """Iterate from the centre until the residual is at most `n eps radius`, with room for rounding.

    A plain step (Weiszfeld's) minimises a quadratic that lies above the objective, so it descends by at least
    `||residual||^2 / (2 sum w)`: plain steps alone converge, if slowly. Every later step is the best of that one and
    two Newton steps, so it descends at least as far, and near the fixed point it converges quadratically.

    Args:
        gram_NN: float64 `[N, N]`, the rows relative to the centre.
        radius: clipping radius, an L2 norm.
        eps: share of the radius that the mean residual may leave.
        rounding: relative rounding error of the entries of `gram_NN`.

    Returns:
        The coefficients; not `certain` if the steps ran out, or if rounding in `gram_NN` may hide a residual.

    Source: PROTOCOL section 8; the descent step is the majorisation of Weiszfeld's algorithm.
    """
    goal = _RESIDUAL_SHARE * len(gram_NN) * eps * radius
    taken = kernels.clipped(gram_NN, radius, goal, rounding, _PLAIN_STEPS)
    coefficients_N, iterations, residual, hidden = taken or plain_steps(gram_NN, radius, goal, rounding, _PLAIN_STEPS)
    if residual > goal:
        problem = _Problem.of(gram_NN, radius, rounding)
        point = problem.at(coefficients_N)
        while point.residual > goal and iterations < _STEPS_LIMIT:
            point = problem.best_step(point, problem.at(_normalised(point.weights_N)))
            iterations += 1
            if iterations % _PATIENCE == 0 and problem.hidden(point) > _ROUNDING_SHARE * eps:
                break
        coefficients_N, residual, hidden = point.coefficients_N, point.residual, problem.hidden(point)
    return Solution(coefficients_N, iterations, residual <= goal and hidden <= _ROUNDING_SHARE * eps)


def plain_steps(
    gram_NN: Tensor, radius: float, goal: float, rounding: float, steps: int
) -> tuple[Tensor, int, float, float]:
    """Plain steps alone: what runs where there is no compiled kernel, and the oracle of the one there is.

    Sums run from the first row to the last, each product and each sum rounded on its own, so that both have the same
    bits.

    Args:
        gram_NN, radius, rounding: as in `solve`.
        goal: where to end, a bound on the residual's norm.
        steps: where to end at the latest.

    Returns:
        Coefficients (float64 `[N]`), steps taken, the residual that they leave, and how much rounding may hide of it.
    """
    problem = _Problem.of(gram_NN, radius, rounding)
    # The centre is not in the rows' affine span: its weights are those of the plain distances to it.
    point = problem.at(_normalised(clip_weights(problem.norms_N, radius)))
    iterations = 1
    while point.residual > goal and iterations < steps:
        point = problem.at(_normalised(point.weights_N))
        iterations += 1
    return point.coefficients_N, iterations, point.residual, problem.hidden(point)


@dataclass(frozen=True, slots=True)
class _Problem:
    """The objective `sum_i huber(||x_i - v||)` seen through the Gram matrix."""

    gram_NN: Tensor
    norms_N: Tensor
    radius: float
    rounding: float

    @classmethod
    def of(cls, gram_NN: Tensor, radius: float, rounding: float) -> _Problem:
        """With the rows' distances to the centre."""
        return cls(gram_NN, _roots(gram_NN.diagonal()), radius, rounding)

    def at(self, coefficients_N: Tensor) -> _Point:
        """Evaluate a candidate whose coefficients sum to 1."""
        image_N = self._image(coefficients_N)
        squares_N = self.gram_NN.diagonal() - 2 * image_N + _total(coefficients_N * image_N)
        distances_N = _roots(squares_N)
        weights_N = clip_weights(distances_N, self.radius)
        # sum_i w_i (x_i - v) = sum_i b_i (x_i - v) = sum_i b_i (x_i - c) with b = w - (sum w) a, which sums to 0.
        # Two bounds on its norm: b^T G b with its rounding, and the triangle inequality, which has none.
        excess_N = weights_N - _total(weights_N) * coefficients_N
        quadratic = max(float(_total(excess_N * self._image(excess_N))), 0.0)
        spread = float(_total(excess_N.abs() * self.norms_N))
        root = math.sqrt(quadratic + self.rounding * (spread * spread))
        residual = min(root, float(_total(excess_N.abs() * distances_N)))
        return _Point(coefficients_N, distances_N, weights_N, residual)

    def best_step(self, point: _Point, plain: _Point) -> _Point:
        """The one of `plain` and the Newton steps from `point` and from the row nearest to it that descends most.

        A minimum within the radius of a lone row draws steps from outside in slowly; from the row it is one step.
        """
        best, descent = plain, self.change(point, plain)
        corner_N = torch.zeros_like(point.coefficients_N)
        corner_N[int(point.distances_N.argmin())] = 1.0
        for start in (point, self.at(corner_N)):
            step_N = self._newton(start)
            for _ in range(_HALVINGS):
                newton = self.at(start.coefficients_N + step_N)
                change = self.change(point, newton)
                if change < descent:
                    best, descent = newton, change
                    break
                step_N = step_N / 2
        return best

    def change(self, point: _Point, other: _Point) -> float:
        """Objective at `other` minus that at `point`, from differences: the objective itself would drown it."""
        step_N = other.coefficients_N - point.coefficients_N
        image_N = self.gram_NN @ step_N
        squares_N = step_N @ image_N - 2 * (image_N - point.coefficients_N @ image_N)
        before_N, after_N = point.distances_N, other.distances_N
        far_N = self.radius * squares_N / (before_N + after_N).clamp(min=self.radius)
        crossing_N = _huber(after_N, self.radius) - _huber(before_N, self.radius)
        outside_N, inside_N = before_N.minimum(after_N) >= self.radius, before_N.maximum(after_N) <= self.radius
        return float(torch.where(outside_N, far_N, torch.where(inside_N, squares_N / 2, crossing_N)).sum())

    def hidden(self, point: _Point) -> float:
        """Mean residual, in radii, that rounding in the Gram matrix may hide through the weights of clipped rows."""
        reach_N = self.norms_N + _total(point.coefficients_N.abs() * self.norms_N)
        errors_N = self.rounding * reach_N.square()
        squares_N = point.distances_N.square()
        square = self.radius * self.radius  # infinite for the largest radii, where a power would raise
        touched_N = torch.where(squares_N + errors_N > square, errors_N / squares_N.clamp(min=square), 0.0)
        return float(_total(touched_N)) / len(touched_N)

    def _image(self, vector_N: Tensor) -> Tensor:
        """`G^T b`, which is `G b`."""
        return _total(vector_N[:, None] * self.gram_NN)

    def _newton(self, point: _Point) -> Tensor:
        """Newton step of `w(a) - (sum w) a = 0`; zero where its matrix is singular (the objective is flat there)."""
        count = len(self.gram_NN)
        total = float(point.weights_N.sum())
        # Rows of `offsets` are e_i - a; only clipped rows have weights that change with v.
        offsets_NN = torch.eye(count, dtype=torch.float64) - point.coefficients_N
        slopes_N = torch.where(point.distances_N > self.radius, point.weights_N / point.distances_N.square(), 0.0)
        system_NN = -(offsets_NN.T * slopes_N) @ (offsets_NN @ self.gram_NN)
        system_NN.diagonal().add_(total)
        step_N, _ = torch.linalg.solve_ex(system_NN, point.weights_N - total * point.coefficients_N)
        return step_N - step_N.sum() / count if bool(torch.isfinite(step_N).all()) else torch.zeros_like(step_N)


def _total(terms_N: Tensor) -> Tensor:
    """Sum over the rows in their order; a library's own sums have no stated one."""
    return terms_N.cumsum(0)[-1]


def _roots(squares_N: Tensor) -> Tensor:
    return kernels.roots(squares_N.clamp(min=0))


def _normalised(weights_N: Tensor) -> Tensor:
    return weights_N / _total(weights_N)


def _huber(distances_N: Tensor, radius: float) -> Tensor:
    near_N = distances_N.clamp(max=radius)
    return near_N * (distances_N - near_N / 2)
