"""Recomputation on a GPU that several processes share: the same bits in all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from btard.launcher.cli import doctor
from btard.launcher.run.experiment import gpu_share
from btard.node.errors import BackendError
from btard.node.training import environment
from tests.gpu.gradients import CASES, PEERS, at_once, distance

pytestmark = pytest.mark.gpu
FAR = 1e-2
"""A rounding that decides a maximum otherwise moves a gradient by less; another batch or another loss by far more."""


@pytest.mark.parametrize(("task", "batch_size"), CASES[:4])
def test_all_processes_on_one_card_compute_the_same_bits(task: str, batch_size: int) -> None:
    made = at_once(task, batch_size, "cuda", PEERS, 20)
    assert len({each.fingerprint for each in made}) == 1
    assert len({each.digests for each in made}) == 1
    assert len(set(made[0].digests)) == 20, "each of another state"
    (on_cpu,) = at_once(task, batch_size, "cpu", 1, 4)
    assert on_cpu.fingerprint != made[0].fingerprint
    assert distance(made[0].first_D, on_cpu.first_D) < FAR


def test_a_share_of_the_memory_is_kept_and_its_end_is_one_clear_line() -> None:
    (taken,) = at_once("mnist_cnn", 256, "cuda", 1, 4)
    assert 0 < taken.peak_bytes < torch.cuda.get_device_properties(0).total_memory * gpu_share(PEERS)
    one_line = pytest.raises(BackendError, match=r"^--device cuda: CUDA out of memory.*; use a smaller --batch-size")
    with one_line, environment.named_problems("cuda"):
        torch.empty(1 << 50, device="cuda")


def test_the_doctor_names_the_card(card: str, tmp_path: Path) -> None:
    (found,) = (check for check in doctor.examine(tmp_path, tmp_path) if check.subject == "gpu")
    assert (found.level, found.found.partition(",")[0]) == ("ok", card)
    assert found.found.endswith("for each of 6 workers")
