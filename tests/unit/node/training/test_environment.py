"""node/training/environment.py: pinned settings and the fingerprint that two workers compare."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import torch

from btard.node.errors import BackendError
from btard.node.training import environment
from tests.portable.small import printed

FINGERPRINT = "import sys; from btard.node.training import environment as e; e.pin('cpu'); sys.stdout.buffer.write({})"


def in_another_process(expression: str, variables: dict[str, str] | None = None) -> bytes:
    command = [sys.executable, "-c", FINGERPRINT.format(expression)]
    variables = {**os.environ, **(variables or {})}
    return subprocess.run(command, capture_output=True, check=True, timeout=120, env=variables).stdout


def test_pin_sets_what_bits_depend_on() -> None:
    environment.pin("cpu")
    facts = environment.environment("cpu")
    assert facts.threads == 1
    assert facts.deterministic
    assert facts.matmul_precision == "highest"
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.benchmark


def test_a_share_of_a_card_is_another_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """MIG and MPS give a part of its multiprocessors. There need be no GPU here: torch is asked, and answers."""

    def found(processors: int) -> environment.Environment:
        properties = SimpleNamespace(multi_processor_count=processors)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: properties)
        return environment.environment("cuda")

    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "card")
    monkeypatch.setattr(environment.probes, "of_library", lambda device: ())
    whole, part = found(132), found(16)
    assert whole.device == "cuda card, 132 multiprocessors"
    assert environment.encoded(whole) != environment.encoded(part) and whole == found(132)


def test_two_processes_have_one_fingerprint() -> None:
    assert in_another_process("e.fingerprint('cpu')") == environment.fingerprint("cpu")


@pytest.mark.slow
def test_another_setting_is_another_fingerprint() -> None:
    settings = (
        "torch.set_num_threads(2)",
        "torch.use_deterministic_algorithms(False)",
        "torch.backends.mkldnn.set_flags(False)",
    )
    steps = ", ".join(f"e.{setting}, e.fingerprint('cpu')" for setting in settings)
    seen = in_another_process(f"b'\\n'.join(x for x in [{steps}] if isinstance(x, bytes))").split(b"\n")
    assert len({environment.fingerprint("cpu"), *seen}) == 1 + len(settings)


@pytest.mark.slow
@pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this torch has no MKL")
@pytest.mark.parametrize("variable", [("MKL_CBWR", "COMPATIBLE"), ("ATEN_CPU_CAPABILITY", "default")])
def test_another_library_switch_is_another_fingerprint(variable: tuple[str, str]) -> None:
    changed = in_another_process("e.fingerprint('cpu')", dict([variable]))
    assert changed != environment.fingerprint("cpu")


def test_what_a_processor_is_called_is_known_and_no_part_of_the_fingerprint() -> None:
    here = environment.environment("cpu")
    assert here.processor
    assert environment.encoded(msgspec.structs.replace(here, processor="an abacus")) == environment.encoded(here)
    assert here.processor.encode() not in environment.encoded(here)


def test_a_missing_gpu_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendError, match=r"--device cuda: .*use --device cpu") as problem:
        environment.pin("cuda", 0.15)
    assert "\n" not in str(problem.value)


def test_what_may_have_other_bits_is_computed_on_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, wanted in ((False, "cpu"), (True, "cuda")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert [environment.usable(device) for device in ("cpu", "cuda")] == ["cpu", wanted]


FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 8 GiB.\nSee the documentation"


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (torch.OutOfMemoryError(FULL),
         "--device cuda: CUDA out of memory. Tried to allocate 2.00 GiB; use a smaller --batch-size, fewer --peers or "
         "--device cpu"),
        (RuntimeError("CUDA error: an illegal address\nFor debugging"),
         "--device cuda: CUDA error: an illegal address; use --device cpu"),
        (RuntimeError("cuDNN error: none"), "--device cuda: cuDNN error: none; use --device cpu"),
    ],
)  # fmt: skip
def test_what_a_gpu_cannot_do_is_one_line(problem: RuntimeError, line: str) -> None:
    with pytest.raises(BackendError) as caught, environment.named_problems("cuda"):
        raise problem
    assert (str(caught.value), caught.value.__cause__) == (line, problem)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_mistakes_of_our_own_keep_their_traces(device: str) -> None:
    for mistake in (RuntimeError("a shape is wrong"), RuntimeError(), ValueError("CUDA")):
        with pytest.raises(type(mistake)) as caught, environment.named_problems(device):
            raise mistake
        assert caught.value is mistake


@pytest.mark.slow
def test_a_gradient_loads_nothing_of_torchs_compiler() -> None:
    """It is 900 modules, 1.5 s and 70 MB for each worker."""
    compiler = "[name for name in sys.modules if name.startswith(('torch._dynamo', 'torch._inductor'))]"
    code = f"(e.torch.nn.Linear(2, 2)(e.torch.ones(1, 2)).sum().backward(), repr({compiler}).encode())[1]"
    assert in_another_process(code) == b"[]"


@pytest.mark.parametrize("variables", [{}, {"MKL_CBWR": "COMPATIBLE", "ATEN_CPU_CAPABILITY": "default"}])
def test_portable_arithmetic_has_one_fingerprint_under_every_library_switch(variables: dict[str, str]) -> None:
    here = printed()
    code = "__import__('tests.portable.small').portable.small.printed()"
    assert in_another_process(f"e.torch.set_num_threads(2) or {code}", variables) == here
    assert b"gradient of mnist_cnn, probe 3" in here and b"torch" not in here


HERE = environment.Environment(
    torch="2.14", instructions=("avx",), capability="AVX512", probes=(("gradient of t, probe 2", "1"), ("update", "2"))
)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"capability": "AVX2"}, "kernels AVX512 here, AVX2 there; all probes equal"),
        ({"probes": (("gradient of t, probe 2", "0"), ("update", "2"))}, "gradient of t, probe 2, differs"),
        ({"probes": (), "torch": "2.13"}, "torch 2.14 here, 2.13 there"),
        ({"processor": "an abacus"}, ""),
        ({"probes": (("update", "2"),)}, ""),
    ],
)
def test_what_differs_is_named(facts: dict[str, Any], words: str) -> None:
    assert environment.difference(HERE, msgspec.structs.replace(HERE, **facts)) == words


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (environment.encoded(msgspec.structs.replace(HERE, torch="\x1b[2J\n")), "torch 2.14 here, ?[2J? there"),
        (b"another machine", "its fingerprint cannot be read: another release?"),
        (b"\xff{", "its fingerprint cannot be read: another release?"),
        (b'{"torch":7}', "its fingerprint cannot be read: another release?"),
    ],
)
def test_what_a_peer_sent_may_be_anything(sent: bytes, words: str) -> None:
    assert environment.explained(environment.encoded(HERE), sent).removesuffix("; all probes equal") == words
