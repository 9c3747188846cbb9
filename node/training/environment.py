"""What makes a gradient repeat bit for bit: pinned settings, and a fingerprint of everything that could change bits."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path

import msgspec
import torch
from blake3 import blake3

from btard.node.config import Arithmetic
from btard.node.errors import BackendError
from btard.node.kernels import portable
from btard.node.training.models import transformer
from btard.node.training.sampling import generator_from

_CPU_INFO = Path("/proc/cpuinfo")
# Instruction sets that oneDNN and MKL choose kernels by, beside the level that torch itself reports.
_KERNEL_FLAGS = frozenset(
    ("sse4_1", "sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx_vnni", "avx512_vnni",
     "amx_tile", "asimd", "sve", "sve2")
)  # fmt: skip


class Environment(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that a gradient's bits depend on besides its inputs; two peers with equal values need no tolerance."""

    torch: str
    machine: str
    processor: str
    instructions: tuple[str, ...]
    capability: str
    threads: int
    mkldnn: bool
    deterministic: bool
    matmul_precision: str
    device: str
    device_libraries: str
    probe: str
    arithmetic: Arithmetic = "native"


def pin(device: str, memory_fraction: float | None = None) -> None:
    """Fix every setting of this process that could change the bits of a gradient.

    Args:
        device: "cpu" or "cuda".
        memory_fraction: share of the GPU's memory that this process may take (six workers share one GPU).

    Raises:
        BackendError: there is no such device here.
    """
    torch.set_num_threads(1)
    with contextlib.suppress(RuntimeError):  # settable once per process; our operators use only one thread anyway
        torch.set_num_interop_threads(1)
    # cuBLAS reads this when its first handle is made: without a fixed workspace its sums are not reproducible.
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"
    # As use_deterministic_algorithms(True), which imports torch's compiler along the way: 1.5 s and 70 MB a process.
    torch.set_deterministic_debug_mode("error")
    # Otherwise deterministic mode fills every fresh tensor with NaN, which costs time and guards nothing we use.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if device == "cuda":
        if not torch.cuda.is_available():
            raise BackendError("--device cuda: torch finds no usable GPU here; use --device cpu")
        if memory_fraction is not None:
            torch.cuda.set_per_process_memory_fraction(memory_fraction)


@contextlib.contextmanager
def pinned(device: str) -> Iterator[None]:
    """`pin` for the while, in a program that goes on with its own settings."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()
    mode = torch.get_deterministic_debug_mode()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    cudnn = torch.backends.cudnn
    switches = {name: getattr(cudnn, name) for name in ("allow_tf32", "benchmark", "deterministic")}
    pin(device)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.set_float32_matmul_precision(precision)
        for name, value in switches.items():
            setattr(cudnn, name, value)


def usable(device: str) -> str:
    """The device, or the CPU where there is no such device: for what may be computed with other bits."""
    return device if device == "cpu" or torch.cuda.is_available() else "cpu"


@contextlib.contextmanager
def named_problems(device: str) -> Iterator[None]:
    """What a full or broken GPU does to the work inside, in one line instead of torch's paragraphs.

    Raises:
        BackendError: the GPU's memory is full, or its driver reports an error.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error).strip().partition("\n")[0]
        if isinstance(error, torch.OutOfMemoryError):
            remedy = "use a smaller --batch-size, fewer --peers or --device cpu"
            raise BackendError(f"--device cuda: {text.partition('. GPU ')[0]}; {remedy}") from error
        if device == "cuda" and text.startswith(("CUDA", "cuDNN", "cuBLAS")):
            raise BackendError(f"--device cuda: {text}; use --device cpu") from error
        raise


def environment(device: str, arithmetic: Arithmetic = "native") -> Environment:
    """The facts as they are in this process now (call `pin` first).

    Portable arithmetic depends on no processor, library or setting: its facts are what it computes, and nothing else.

    Raises:
        BackendError: this machine has no portable arithmetic.
    """
    if arithmetic == "portable":
        return Environment("", "", "", (), "", 1, False, True, "", "cpu", "", _portable_probe(), arithmetic)
    processor, flags = _processor()
    name = libraries = ""
    if device == "cuda":
        name = torch.cuda.get_device_name()
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        libraries = f"cuda {torch.version.cuda} cudnn {cudnn}"
    mkldnn = torch.backends.mkldnn
    return Environment(
        torch=str(torch.__version__),
        machine=platform.machine(),
        processor=processor,
        instructions=tuple(sorted(flags & _KERNEL_FLAGS)),
        capability=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        mkldnn=bool(mkldnn.is_available() and mkldnn.enabled),  # type: ignore[no-untyped-call]
        deterministic=torch.are_deterministic_algorithms_enabled(),
        matmul_precision=torch.get_float32_matmul_precision(),
        device=f"{device} {name}".strip(),
        device_libraries=libraries,
        probe=_probe(device),
    )


def fingerprint(device: str, arithmetic: Arithmetic = "native") -> bytes:
    """Canonical bytes of `environment(device, arithmetic)`, as `encoded` makes them."""
    return encoded(environment(device, arithmetic))


def encoded(facts: Environment) -> bytes:
    """Canonical bytes of an environment: equal bytes promise equal gradients.

    The processor's model is part of it: a needless mismatch only asks for a tolerance, a missed one bans honest peers.
    """
    return msgspec.json.encode(facts, order="deterministic")


def difference(here: Environment, there: Environment) -> str:
    """What differs between two environments in one line, and whether torch and processor do not.

    Args:
        here: this machine's.
        there: the run's.
    """
    if here.arithmetic == there.arithmetic == "portable":
        return "the bits of a small computation in portable arithmetic"
    named: dict[str, Callable[[Environment], str]] = {
        "torch": lambda facts: facts.torch,
        "processor": lambda facts: f"{facts.processor} ({facts.machine})",
        "instructions": lambda facts: f"{facts.capability} ({', '.join(facts.instructions)})",
        "device": lambda facts: f"{facts.device} {facts.device_libraries}".strip(),
        "threads": lambda facts: str(facts.threads),
        "mkldnn": lambda facts: _switched(facts.mkldnn),
        "deterministic algorithms": lambda facts: _switched(facts.deterministic),
        "matmul precision": lambda facts: facts.matmul_precision,
    }
    facts = {name: (show(here), show(there)) for name, show in named.items()}
    found = [f"{name} {mine} here, {theirs} there" for name, (mine, theirs) in facts.items() if mine != theirs]
    if not found and here.probe != there.probe:
        found = ["the bits of a small computation"]
    equal = [name for name in ("torch", "processor") if facts[name][0] == facts[name][1]]
    if "processor" in equal and facts["instructions"][0] != facts["instructions"][1]:
        equal.remove("processor")
    return "; ".join([*found, *([f"{' and '.join(equal)} equal"] if equal else [])])


def _switched(on: bool) -> str:
    return "on" if on else "off"


def describe(device: str = "cpu") -> str:
    """The environment in one line for people."""
    facts = environment(device)
    return (
        f"torch {facts.torch}, {facts.processor} ({facts.capability}), {facts.threads} thread"
        f"{'s' if facts.threads != 1 else ''}, device {facts.device}"
    )


def _probe(device: str) -> str:
    """Digest of the bits of a small computation: catches what no version names, such as a library's own switches."""
    count = torch.arange(96 * 513, dtype=torch.float32, device=device)
    matrix = torch.frac(count.mul_(0.6180339)).sub_(0.5).view(96, 513)
    results = (matrix @ matrix.t(), matrix.log_softmax(dim=0), matrix.exp(), matrix.sum(dim=1))
    digest = blake3()
    for values in results:
        digest.update(values.cpu().numpy().tobytes())
    return digest.hexdigest(length=16)


def _portable_probe() -> str:
    """Digest of what portable gradients are made of: draws, elementwise operations and each kernel."""
    generator = generator_from(b"probe", "environment")
    batch = 17  # one block of the kernels' and a part of one
    images_B = torch.randint(256, (batch, 1, 28, 28), generator=generator).float().mul_(1 / 80).sub_(0.4)
    targets_B = torch.randint(10, (batch,), generator=generator)
    masks = [torch.rand(units, batch, generator=generator).lt(0.5).float().div_(0.5) for units in (20, 50)]
    parameters_D = torch.rand(portable.LENET_DIMENSION, generator=generator).mul_(0.2).sub_(0.1)
    gradient_D, loss = portable.lenet_gradient(parameters_D, images_B, targets_B, masks[0], masks[1])
    shape = transformer.Shape(characters=7, context=20, width=8, blocks=1)
    initial_D = transformer.initial(shape.layout(), generator, portable=True)
    text_BT = torch.randint(7, (2, 20), generator=generator)
    backward_D, other_loss = portable.transformer_gradient(astuple(shape), initial_D, text_BT, text_BT.flip(1))
    losses = torch.tensor((loss, other_loss), dtype=torch.float64)
    results = (parameters_D, gradient_D, initial_D, backward_D, losses)
    return blake3(b"".join(each.numpy().tobytes() for each in results)).hexdigest(length=16)


def _processor() -> tuple[str, frozenset[str]]:
    """Model name and instruction flags of the first CPU."""
    name, flags = platform.processor(), frozenset[str]()
    with contextlib.suppress(OSError):  # no /proc on macOS: the name alone must do
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            match key.strip():
                case "model name":
                    name = value.strip()
                case "flags" | "Features":
                    flags = frozenset(value.split())
                case "" if flags:
                    break
    return name or "unknown processor", flags
