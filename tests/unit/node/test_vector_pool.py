"""Memory of large vectors: used again once nobody holds it, and never before."""

from __future__ import annotations

import torch

from btard.node.vector_pool import Pool

SIZE = 1 << 17


def test_memory_returns_when_the_last_view_is_gone() -> None:
    pool = Pool()
    first = pool.empty(SIZE)
    address = first.data_ptr()
    view = first[5:10].fill_(7.0)
    array = first.numpy()
    del first
    assert pool.free(SIZE) == 0
    del array
    assert pool.free(SIZE) == 0
    other = pool.empty(SIZE)
    assert other.data_ptr() != address
    assert view.tolist() == [7.0] * 5
    del view
    assert pool.free(SIZE) == 1
    assert pool.empty(SIZE).data_ptr() == address


def test_small_vectors_are_left_to_the_allocator() -> None:
    pool = Pool()
    small = pool.empty(100)
    assert (small.shape, small.dtype) == ((100,), torch.float32)
    del small
    assert pool.free(100) == 0


def test_sizes_that_are_asked_for_in_turn_wait_for_each_other() -> None:
    pool = Pool()
    for _ in range(1000):
        vectors = [pool.empty(SIZE), pool.empty(SIZE + 1)]
        del vectors
    assert (pool.free(SIZE), pool.free(SIZE + 1)) == (1, 1)


def test_a_size_that_nobody_asks_for_any_more_is_let_go() -> None:
    pool = Pool()
    held, waiting = pool.empty(SIZE), pool.empty(SIZE)
    del waiting
    for _ in range(1000):
        pool.empty(SIZE + 1)
    assert (pool.free(SIZE), pool.free(SIZE + 1)) == (0, 1)
    del held  # after it was let go
    assert pool.free(SIZE) == 1
    for _ in range(1000):
        pool.empty(SIZE + 1)
    assert pool.free(SIZE) == 0
