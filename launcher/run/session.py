"""An existing training script as the one that computes a cluster's gradients: `btard.Session`.

The cluster runs in a thread, and asks for a gradient where it needs one; the script's loop answers. One of the two
always waits, so nothing depends on how threads are scheduled. That it takes a thread and not a generator is the
attackers' doing: those that know others' gradients ask in the midst of their work.
"""

from __future__ import annotations

import copy
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import msgspec
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from btard.launcher.backends.backend import Exited
from btard.launcher.options import syntax
from btard.launcher.run import cluster, loaded, plan, run_directory, scoring
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.interrupts import Interrupts
from btard.launcher.run.loaded import LoadedRun
from btard.launcher.run.observer import Silent
from btard.launcher.run.summary import FINISHED
from btard.launcher.verify import verification
from btard.launcher.verify.verification import Report
from btard.node import __main__ as node_process
from btard.node import config as node_config
from btard.node.config import NodeConfig, Plugin
from btard.node.drivers import simulated_cluster
from btard.node.errors import BackendError, ConfigError, PluginError
from btard.node.protocol.state.state import parameters_digest
from btard.node.training import registry, start
from btard.node.training.environment import pinned
from btard.node.training.module_task import layout_of
from btard.node.training.registry import SESSION
from btard.node.training.sampling import drawing_from
from btard.node.training.task import BatchTransform, state_dict, tame

_CPU = torch.device("cpu")
_ENDLESS = 2**31
_PATIENCE_S = 5.0
"""How long a session that is left waits for its cluster, which ends when it next asks for a gradient."""


@dataclass(frozen=True, slots=True)
class Request:
    """A gradient that some peer needs, its own or another's that it recomputes: which of them, nothing says.

    Args:
        parameters: float32 `[D]`; the session's model holds them already.
        seed: 32 bytes, other for each step and peer; torch's, numpy's and Python's global generators are seeded from
            it while the loop's body runs.
    """

    parameters: Tensor
    seed: bytes


_Answer = tuple[Tensor, float]


class _Left(BaseException):
    """Nobody answers any more: the script has left its loop. No mistake of the task's, so no Exception."""


class Session:
    """A cluster whose gradients are computed by the loop over it.

    Use it as `with btard.Session(model, experiment) as session: for request in session: ...`, where the body computes
    the loss of a batch that it draws, calls `backward()` and then `session.contribute(loss=loss)`. Leaving the loop
    ends the cluster.

    **The contract**: the gradient has to follow from the parameters, the seed and public data alone, bit for bit, since
    others recompute it. The model's buffers and gradients are reset before each request, and the global generators are
    seeded; anything else that is left from one request to the next breaks it. At the 2nd, 4th, 8th ... request the
    first one is asked again, and the session refuses to go on if its gradient has other bits.

    Args:
        model: its parameters are where the run starts; the session writes each request's into it.
        experiment: options of a run whose peers are all simulated in this process, attackers included. Its task,
            backend, device and batch size are the session's.
        node: the configuration file of one worker; the program then is this worker of a cluster of processes.

    `report` holds what `verify` found once the loop over a simulation has ended: the script has then recomputed the
    gradients that the evidence speaks of.

    Raises:
        ConfigError: not exactly one of `experiment` and `node`, a model that cannot be used, options that cannot be
            run, or a run that starts from other parameters.
    """

    def __init__(
        self, model: nn.Module, experiment: Experiment | None = None, *, node: Path | str | None = None
    ) -> None:
        if (experiment is None) == (node is None):
            raise ConfigError("a session simulates an experiment or is one node: pass `experiment` or `node=`")
        self.report: Report | None = None
        self._served = ServedTask(model, self._ask)
        self.task = Plugin(SESSION, {"initial": self._served.digest})
        """What the configuration of a cluster of processes has as its task."""
        self._experiment, self._node, self._run_dir = experiment, node, Path()
        self._asked: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[_Answer | None] = queue.SimpleQueue()
        self._answer: _Answer | None = None
        self._error: BaseException | None = None
        self._left = False
        self._pinned = pinned("cpu")
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Session:
        registry.SERVED[self._served.digest] = self._served
        work = self._simulation(self._experiment) if self._experiment is not None else self._worker(str(self._node))
        self._pinned.__enter__()
        self._thread = threading.Thread(target=self._carry, args=(work,), name="cluster", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)
        self._pinned.__exit__(None, None, None)

    def __iter__(self) -> Iterator[Request]:
        """Requests to be answered with `contribute`, until the run and its verification are over.

        Raises:
            PluginError: a request was not answered, or a gradient has other bits when it is asked again.
            BtardError: what the run ended with, if it did not finish.
        """
        if self._thread is None:
            raise ConfigError("a session's cluster starts in a `with` block: with btard.Session(...) as session")
        count, first = 0, None
        try:
            while (request := self._asked.get()) is not None:
                answer = yield from self._answered(request)
                count, first = count + 1, first or (request, answer)
                if count > 1 and count.bit_count() == 1:
                    self._check(count, first[1], (yield from self._answered(first[0])))
                self._answers.put(answer)
        finally:
            self._leave()
        if self._error is not None:
            raise self._error

    def contribute(
        self, gradient: Tensor | Sequence[Tensor] | None = None, loss: Tensor | float = float("nan")
    ) -> None:
        """Answer the request.

        Args:
            gradient: float32 `[D]`, or one tensor per parameter in the model's order; None: what `backward()` has left
                in the model.
            loss: of the batch, for the curves.

        Raises:
            PluginError: a second answer, or a gradient of another size than the model's.
        """
        if self._answer is not None:
            raise PluginError("the request is answered already; call `contribute` once in the loop's body")
        self._answer = tame(self._served.flat(gradient)), float(loss.detach() if isinstance(loss, Tensor) else loss)

    @property
    def run(self) -> LoadedRun:
        """The run as it stands.

        Raises:
            ConfigError: it has no run directory, as on a node's own machine.
        """
        return loaded.load_run(self._run_dir)

    def _answered(self, request: Request) -> Generator[Request, None, _Answer]:
        """Have the loop's body answer a request."""
        self._served.load(request.parameters)
        self._answer = None
        with drawing_from(request.seed, _CPU):
            yield request
        if self._answer is None:
            raise PluginError("the loop's body ended without an answer; call `session.contribute()` in it")
        return self._answer

    @staticmethod
    def _check(count: int, first: _Answer, again: _Answer) -> None:
        if not torch.equal(first[0], again[0]):
            raise PluginError(
                f"after {count} requests the gradient of the first one has other bits, so honest peers would be "
                "banned; compute it from the request alone: a counter, an optimiser, an iterator over the data or a "
                "generator of its own is left from one request to the next"
            )

    def _leave(self) -> None:
        """Answer no more; who asks next ends the cluster, and a second loop has nothing to do."""
        self._left = True
        self._answers.put(None)
        self._asked.put(None)

    # --- the cluster ----------------------------------------------------------------------------------

    def _simulation(self, experiment: Experiment) -> Callable[[], None]:
        """All peers, and the verification of what they leave behind."""
        if experiment.task != Experiment().task:
            raise ConfigError(f"task {experiment.task!r}: a session's gradients are the program's own; leave it out")
        if experiment.timeout is not None:
            raise ConfigError(
                f"timeout {experiment.timeout:g}: a session lasts as long as its loop; leave that instead"
            )
        asked = msgspec.structs.replace(
            experiment, task=syntax.written(self.task), backend="simulated", device="cpu", batch_size=1
        )
        prepared = plan.make(asked)
        plan.preflight(prepared)
        made = run_directory.create(
            asked, prepared.run, prepared.roles, prepared.data_directory, conditions=prepared.conditions
        )
        self._run_dir = made.path

        def work() -> None:
            result = cluster.carry(prepared, made, _SameThread(), Silent(), Interrupts(), call=scoring.here)
            if result.summary.outcome != FINISHED:
                raise BackendError(f"{result.summary.problem}; the run is {made.path}")
            if prepared.run.topology == "butterfly":
                self.report = verification.verify(made.path, prepared.data_directory)

        return work

    def _worker(self, path: str) -> Callable[[], None]:
        """One node, as `python -m btard.node` runs it."""
        config = node_config.load(Path(path))
        if config.run.task != self.task:
            raise ConfigError(
                f"{path}: its run has the task {syntax.written(config.run.task)!r}, and this program's model is "
                f"{syntax.written(self.task)!r}; make the model as the others do, from the same seed"
            )
        self._run_dir = Path(config.directory).parent.parent

        def work() -> None:
            code = node_process.main([path])
            if code:
                raise BackendError(
                    f"node {config.node} ended with exit code {code}; see {config.directory}/journal.jsonl"
                )

        return work

    # --- in the cluster's thread ----------------------------------------------------------------------------------

    def _ask(self, parameters_D: Tensor, seed: bytes) -> _Answer:
        if self._left:
            raise _Left
        self._asked.put(Request(parameters_D.detach().clone(), seed))
        answer = self._answers.get()
        if answer is None:
            raise _Left
        return answer

    def _carry(self, work: Callable[[], None]) -> None:
        try:
            work()
        except _Left:
            pass
        except BaseException as error:  # the loop's to raise
            self._error = error
        finally:
            self._asked.put(None)


class ServedTask:
    """A model whose gradients somebody else computes: a `Task` (node/training/task.py).

    Args:
        model: written into at each request.
        ask: `(parameters_D, seed) -> (gradient_D, loss)`.

    Raises:
        ConfigError: the model cannot be trained as a whole.
    """

    name, classes, train_size, test_size = SESSION, 0, _ENDLESS, 0

    def __init__(self, model: nn.Module, ask: Callable[[Tensor, bytes], _Answer]) -> None:
        self.layout = layout_of(self.name, model)
        self.dimension = self.layout[-1].stop
        self._model, self._ask = model, ask
        self._buffers = {name: each.detach().clone() for name, each in model.named_buffers()}
        self._initial_D = torch.cat([each.detach().flatten() for each in model.parameters()])
        if not start.usable(self._initial_D):
            raise ConfigError("the session's model has parameters that are not finite or beyond 2^40")
        self.digest = f"blake3_{parameters_digest(self._initial_D).hex()}"

    def initial(self, seed: int) -> Tensor:
        """What the model held, whatever the seed; a fresh tensor."""
        return self._initial_D.clone()

    def gradient(
        self, parameters_D: Tensor, seed: bytes, transform: BatchTransform | None = None
    ) -> tuple[Tensor, float]:
        """Whatever `ask` returns; see `Task.gradient`.

        Raises:
            PluginError: an attack wants to change the batch, which is not here.
        """
        if transform is not None:
            raise PluginError(
                "an attack changes the batch, which the session's loop draws for itself: use one on gradients or "
                "messages, or make the model a ModuleTask"
            )
        return self._ask(parameters_D, seed)

    def evaluate(self, parameters_D: Tensor, start: int, stop: int) -> int:
        """There are no test items."""
        return 0

    def module(self, parameters_D: Tensor) -> nn.Module:
        """A copy of the model with these parameters, set to evaluate.

        Raises:
            ConfigError: batch norm needs statistics of data that is not here.
        """
        if any(isinstance(each, _BatchNorm) for each in self._model.modules()):
            raise ConfigError("batch norm's statistics come from the program's data: use `state_dict()`, then train()")
        model = copy.deepcopy(self._model)
        _copy(model.named_buffers(), self._buffers)
        _copy(model.named_parameters(), state_dict(self.layout, parameters_D))
        return model.eval()

    def load(self, parameters_D: Tensor) -> None:
        """Write parameters into the model, and take back what the request before left in it."""
        _copy(self._model.named_buffers(), self._buffers)
        _copy(self._model.named_parameters(), state_dict(self.layout, parameters_D))
        self._model.zero_grad()

    def flat(self, gradient: Tensor | Sequence[Tensor] | None) -> Tensor:
        """A gradient as a fresh float32 `[D]` tensor; None: what is in the model.

        Raises:
            PluginError: a parameter has none, or it is of another size.
        """
        if gradient is None:
            lacking = [name for name, each in self._model.named_parameters() if each.grad is None]
            if lacking:
                raise PluginError(f"parameter {lacking[0]!r} has no gradient; call `backward()` on a loss that uses it")
            gradient = [each.grad for each in self._model.parameters() if each.grad is not None]
        pieces = [gradient] if isinstance(gradient, Tensor) else list(gradient)
        gradient_D = torch.cat([each.detach().flatten().float().cpu() for each in pieces])
        if gradient_D.numel() != self.dimension:
            raise PluginError(f"a gradient of {gradient_D.numel()} entries for a model of {self.dimension}")
        return gradient_D


def _copy(named: Iterable[tuple[str, Tensor]], values: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, each in named:
            each.copy_(values[name])


class _SameThread:
    """A `Backend` without a process: all peers are simulated in the thread that polls."""

    def __init__(self) -> None:
        self._configs: tuple[NodeConfig, ...] = ()

    def warm_up(self) -> None:
        """Nothing takes time."""

    def prepare(self, plan: plan.Plan) -> None:
        """It needs nothing."""

    def start(self, configs: Sequence[NodeConfig]) -> None:
        """They run when they are polled."""
        self._configs = tuple(configs)

    def poll(self, timeout_s: float) -> list[Exited]:
        """The whole simulation."""
        codes = {config.node: 0 for config in self._configs}
        simulated_cluster.run(self._configs, codes.__setitem__)
        return [Exited(node, code) for node, code in codes.items()]

    @property
    def bound(self) -> frozenset[int]:
        """All nodes."""
        return frozenset(config.node for config in self._configs)

    def stop(self) -> None:
        """Nothing is left."""
