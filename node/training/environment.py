"""What makes a gradient repeat bit for bit: pinned settings, and a fingerprint of everything that could change bits."""

from __future__ import annotations

import contextlib
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import torch

from btard.node.config import Arithmetic
from btard.node.errors import BackendError
from btard.node.training import probes
from btard.node.training.probes import Probes

_CPU_INFO, _DRIVER = Path("/proc/cpuinfo"), Path("/sys/module/nvidia/version")
# Instruction sets that oneDNN and MKL choose kernels by, beside the level that torch itself reports.
_KERNEL_FLAGS = frozenset(
    ("sse4_1", "sse4_2", "avx", "avx2", "fma", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx_vnni", "avx512_vnni",
     "amx_tile", "asimd", "sve", "sve2")
)  # fmt: skip


class Environment(msgspec.Struct, frozen=True, omit_defaults=True):
    """All that a gradient's bits depend on besides its inputs: what selects kernels, and what was computed with them.

    Two peers whose `encoded` facts are equal need no tolerance. Portable arithmetic has `probes` alone. `processor` is
    there to be read: what it is called says nothing of what it computes.
    """

    torch: str = ""
    machine: str = ""
    processor: str = ""
    instructions: tuple[str, ...] = ()
    capability: str = ""
    threads: int = 1
    mkldnn: bool = False
    deterministic: bool = True
    matmul_precision: str = ""
    device: str = "cpu"
    device_libraries: str = ""
    probes: Probes = ()
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


def environment(device: str, arithmetic: Arithmetic = "native", probed: Probes = ()) -> Environment:
    """The facts as they are in this process now (call `pin` first).

    Args:
        device: "cpu" or "cuda".
        arithmetic: portable depends on no processor, library or setting: its facts are what it computes.
        probed: what a run computes here (`btard.node.build.environment_of`).
    """
    if arithmetic == "portable":
        return Environment(probes=probed, arithmetic=arithmetic)
    name = libraries = ""
    if device == "cuda":
        # A share of a card (MIG, MPS) has fewer of them, and libraries choose kernels by their number.
        processors = torch.cuda.get_device_properties(torch.cuda.current_device()).multi_processor_count
        name = f"{torch.cuda.get_device_name()}, {processors} multiprocessors"
        cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        libraries = f"cuda {torch.version.cuda} cudnn {cudnn} driver {_driver()}"
    mkldnn = torch.backends.mkldnn
    return Environment(
        torch=str(torch.__version__),
        machine=platform.machine(),
        processor=processor(),
        instructions=tuple(sorted(frozenset(_cpu_info("flags", "Features").split()) & _KERNEL_FLAGS)),
        capability=torch.backends.cpu.get_cpu_capability(),
        threads=torch.get_num_threads(),
        mkldnn=bool(mkldnn.is_available() and mkldnn.enabled),  # type: ignore[no-untyped-call]
        deterministic=torch.are_deterministic_algorithms_enabled(),
        matmul_precision=torch.get_float32_matmul_precision(),
        device=f"{device} {name}".strip(),
        device_libraries=libraries,
        probes=(*probes.of_library(device), *probed),
    )


def fingerprint(device: str, arithmetic: Arithmetic = "native") -> bytes:
    """Canonical bytes of `environment(device, arithmetic)`, as `encoded` makes them."""
    return encoded(environment(device, arithmetic))


def encoded(facts: Environment) -> bytes:
    """Canonical bytes of an environment, without the processor's name: equal bytes promise equal gradients."""
    return msgspec.json.encode(msgspec.structs.replace(facts, processor=""), order="deterministic")


def difference(here: Environment, there: Environment) -> str:
    """What differs between two environments in one line; empty: nothing that both of them know.

    Args:
        here: this machine's; without the run's data it lacks probes of the task.
        there: the run's.
    """
    named: dict[str, Callable[[Environment], str]] = {
        "arithmetic": lambda facts: facts.arithmetic,
        "torch": lambda facts: facts.torch,
        "machine": lambda facts: facts.machine,
        "kernels": lambda facts: facts.capability,
        "instructions": lambda facts: ", ".join(facts.instructions),
        "device": lambda facts: f"{facts.device} {facts.device_libraries}".strip(),
        "threads": lambda facts: str(facts.threads),
        "mkldnn": lambda facts: _switched(facts.mkldnn),
        "deterministic algorithms": lambda facts: _switched(facts.deterministic),
        "matmul precision": lambda facts: facts.matmul_precision,
    }
    facts = {name: (show(here), show(there)) for name, show in named.items()}
    found = [
        f"{name} {mine or 'none'} here, {theirs or 'none'} there"
        for name, (mine, theirs) in facts.items()
        if mine != theirs
    ]
    mine, theirs = dict(here.probes), dict(there.probes)
    both = [name for name in mine if name in theirs]
    unequal = [f"{name}, differs" for name in both if mine[name] != theirs[name]]
    equal = ["all probes equal"] if both and found and not unequal else []
    return "; ".join([*found, *unequal, *equal])


def explained(here: bytes, there: bytes) -> str:
    """`difference` of two fingerprints, of which a peer has sent the second: anything may be in it."""
    try:
        found = difference(*(msgspec.json.decode(each, type=Environment) for each in (here, there)))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "its fingerprint cannot be read: another release?"
    return "".join(each if each.isprintable() else "?" for each in found)


def _switched(on: bool) -> str:
    return "on" if on else "off"


def processor() -> str:
    """What this machine's processor is called."""
    return _cpu_info("model name") or platform.processor() or "unknown processor"


def _cpu_info(*names: str) -> str:
    """The first of these entries that the system has of its processors; empty: none."""
    with contextlib.suppress(OSError):  # no /proc on macOS
        for line in _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in names:
                return value.strip()
    return ""


def _driver() -> str:
    """Version of the GPU's driver, as its kernel module states it."""
    with contextlib.suppress(OSError):
        return _DRIVER.read_text(encoding="utf-8", errors="replace").strip()
    return "unknown"
