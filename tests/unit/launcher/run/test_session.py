"""A script's own loop computes the gradients of a cluster: simulated in its process, or as one real worker."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from btard import Experiment, Session
from btard.launcher.run import session as sessions
from btard.launcher.run.run_directory import read_record
from btard.launcher.verify.verification import verify
from btard.node.config import Endpoint, RunConfig
from btard.node.errors import BtardError, ConfigError, PluginError
from btard.node.storage import journal
from btard.node.training import registry
from tests.launching import PATIENCE_S, environment
from tests.ports import held_ports
from tests.workers import changed, roster

INPUTS = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
TARGETS = (INPUTS[:, 0] > 0).long() + (INPUTS[:, 1] > 0).long()


def model(width: int = 8) -> nn.Module:
    """A small network with dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Dropout(0.1), nn.Linear(width, 3))


def asked(where: Path, **changes: Any) -> Experiment:
    """A short run of three honest peers."""
    return msgspec.structs.replace(Experiment(peers=3, steps=4, lr=0.2, run_dir=str(where / "run")), **changes)


def loss_of(net: nn.Module) -> Tensor:
    """Of a batch that torch's global generator draws."""
    chosen_B = torch.randint(len(INPUTS), (16,))
    return functional.cross_entropy(net(INPUTS[chosen_B]), TARGETS[chosen_B])


def train(net: nn.Module, session: Session) -> int:
    """A loop that keeps the contract; returns how many requests it answered."""
    count = 0
    for _ in session:
        loss = loss_of(net)
        loss.backward()
        session.contribute(loss=loss)
        count += 1
    return count


@pytest.fixture(autouse=True)
def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a session serves is gone after its test."""
    monkeypatch.setattr(registry, "SERVED", {})


def test_two_attackers_are_banned_and_the_loop_recomputes_the_evidence(tmp_path: Path) -> None:
    net, experiment = model(), asked(tmp_path, peers=6, byzantine=2, attack="sign_flip", attack_start=3, steps=40)
    with Session(net, experiment) as session:
        train(net, session)
        found, report = session.run, session.report
    assert found.outcome == "finished" and found.roles is not None
    assert sorted(ban.peer for ban in found.bans) == sorted(found.roles) and found.removals == ()
    assert {ban.reason for ban in found.bans} == {"gradient"}
    assert report is not None and report.wrong == 0
    assert [each.kind for each in report.findings if each.subject.startswith("ban")] == ["recomputation"] * 2
    trained = found.model()
    assert float((trained(INPUTS).argmax(dim=1) == TARGETS).float().mean()) > 0.7
    losses = [row.loss for row in found.curves if row.loss is not None]
    assert losses[-1] < losses[0]


def test_the_script_goes_on_with_its_own_settings_and_generators(tmp_path: Path) -> None:
    net, threads, mode = model(), torch.get_num_threads(), torch.get_deterministic_debug_mode()
    torch.set_num_threads(2)
    torch.set_deterministic_debug_mode(0)
    torch.manual_seed(5)
    random.seed(5)
    expected = (torch.rand(1).item(), random.random())
    torch.manual_seed(5)
    random.seed(5)
    try:
        with Session(net, asked(tmp_path)) as session:
            train(net, session)
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2 and torch.get_deterministic_debug_mode() == 0
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
    assert (torch.rand(1).item(), random.random()) == expected


def test_a_gradient_may_be_given_as_a_vector_or_by_parameter(tmp_path: Path) -> None:
    net, seen = model(), []
    with Session(net, asked(tmp_path)) as session:
        for request in session:
            flat_D = nn.utils.parameters_to_vector(net.parameters())
            assert torch.equal(flat_D, request.parameters) and len(request.seed) == 32
            pieces: Sequence[Tensor] = torch.autograd.grad(loss_of(net), list(net.parameters()))
            seen.append(request.seed)
            session.contribute(pieces if len(seen) % 2 else torch.cat([each.flatten() for each in pieces]))
        assert session.run.outcome == "finished"
    assert len(set(seen)) > 4 * 3 / 2


def counted() -> Callable[[nn.Module], Tensor]:
    """A loss that depends on how often it was computed."""
    calls = iter(range(1, 1_000_000))
    return lambda net: next(calls) * loss_of(net)


def drawn() -> Callable[[nn.Module], Tensor]:
    """A loss whose batch comes from a generator that goes on."""
    own = torch.Generator().manual_seed(1)

    def loss(net: nn.Module) -> Tensor:
        chosen_B = torch.randint(len(INPUTS), (16,), generator=own)
        return functional.cross_entropy(net(INPUTS[chosen_B]), TARGETS[chosen_B])

    return loss


@pytest.mark.parametrize("impure", [counted, drawn])
def test_a_loop_that_breaks_the_contract_is_refused_before_anybody_is_banned(
    impure: Callable[[], Callable[[nn.Module], Tensor]], tmp_path: Path
) -> None:
    net, loss = model(), impure()
    with (
        Session(net, asked(tmp_path)) as session,
        pytest.raises(PluginError, match="after 2 requests the gradient of the first one has other bits"),
    ):
        for _ in session:
            loss(net).backward()
            session.contribute()
    assert session.run.bans == ()


def silent(net: nn.Module, session: Session) -> None:
    """No answer."""


def twice(net: nn.Module, session: Session) -> None:
    """Two answers."""
    loss_of(net).backward()
    session.contribute()
    session.contribute()


def short(net: nn.Module, session: Session) -> None:
    """A vector of another model."""
    session.contribute(torch.zeros(3))


def unused(net: nn.Module, session: Session) -> None:
    """No `backward()`."""
    session.contribute()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (silent, r"ended without an answer; call `session\.contribute\(\)`"),
        (twice, "is answered already; call `contribute` once"),
        (short, "a gradient of 3 entries for a model of 83"),
        (unused, r"parameter '0\.weight' has no gradient; call `backward\(\)`"),
    ],
    ids=["silent", "twice", "short", "unused"],
)
def test_a_wrong_answer_is_refused_in_one_line(
    body: Callable[[nn.Module, Session], None], words: str, tmp_path: Path
) -> None:
    net = model()
    with Session(net, asked(tmp_path)) as session, pytest.raises(PluginError, match=words) as refused:
        for _ in session:
            body(net, session)
    assert "\n" not in str(refused.value)


def test_a_loop_that_is_left_leaves_a_stopped_run(tmp_path: Path) -> None:
    net = model()
    with Session(net, asked(tmp_path)) as session:
        for _ in session:
            assert session.run.outcome == "running"
            break
        assert list(session) == [], "it is over"
    assert session.run.outcome == "stopped" and session.report is None


def test_what_the_script_raises_comes_out_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Session(model(), asked(tmp_path)) as session:
        for _ in session:
            raise ZeroDivisionError
    assert session.run.outcome == "stopped"


class Frozen(nn.Module):
    """One parameter that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        self.fixed = nn.Parameter(torch.zeros(3), requires_grad=False)


def _with(**changes: Any) -> Callable[[Path], Session]:
    return lambda where: Session(model(), asked(where, **changes))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda where: Session(model()), "pass `experiment` or `node=`"),
        (lambda where: Session(Frozen(), asked(where)), "parameter 'fixed' is frozen"),
        (_with(task="quadratic"), "task 'quadratic': a session's gradients are the program's own; leave it out"),
        (_with(timeout=9.0), "timeout 9: a session lasts as long as its loop"),
        (_with(attack="label_flip", byzantine=1), "attack 'label_flip' needs a task with labels"),
        (_with(rule="krumm"), "did you mean 'krum'"),
    ],
    ids=["neither", "frozen", "task", "timeout", "labels", "rule"],
)
def test_what_cannot_be_run_is_refused_before_anything_starts(
    make: Callable[[Path], Session], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words), make(tmp_path):
        pass
    assert not (tmp_path / "run").exists()


def test_without_a_with_block_there_is_no_cluster(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="starts in a `with` block"):
        next(iter(Session(model(), asked(tmp_path))))


def test_an_attack_on_batches_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    served = sessions.ServedTask(model(), lambda parameters_D, seed: (parameters_D, 0.0))
    with pytest.raises(PluginError, match="an attack changes the batch, which the session's loop draws for itself"):
        served.gradient(served.initial(0), b"\x01" * 32, lambda inputs_B, targets_B: (inputs_B, targets_B))


def test_a_module_with_batch_norm_is_refused_and_its_tensors_are_there() -> None:
    served = sessions.ServedTask(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), lambda *asked: asked)  # type: ignore[arg-type, return-value]
    with pytest.raises(ConfigError, match="batch norm's statistics come from the program's data"):
        served.module(served.initial(0))


SCRIPT = """
import sys
from btard import Session
from tests.unit.launcher.run.test_session import model, train
net = model()
with Session(net, node=sys.argv[1]) as session:
    print(train(net, session))
"""


def laid_out(where: Path, run: RunConfig, ports: Sequence[int]) -> list[Path]:
    """The configuration files of a cluster whose nodes know where the others listen."""
    lines = iter(f"tcp://127.0.0.1:{port}" for port in ports)
    addresses = {str(node): Endpoint(next(lines), next(lines)) for node in range(run.peers)}
    found = []
    for config in roster(where, run):
        path = Path(config.directory) / "config.json"
        listening = changed(config, addresses=addresses, listen=addresses[str(config.node)])
        path.write_bytes(msgspec.json.encode(listening))
        found.append(path)
    return found


@pytest.mark.sockets
def test_three_scripts_are_a_cluster_and_end_with_the_bits_of_a_simulated_one(tmp_path: Path) -> None:
    net = model()
    with Session(net, asked(tmp_path, protocol_seed=0)) as session:
        train(net, session)
        simulated = session.run
    (digest,) = ends(simulated.path)
    # Slow machines are no matter of this test.
    run = msgspec.structs.replace(read_record(simulated.path).run, delivery_bound_s=30.0, gradient_bound_s=60.0)
    with held_ports(2 * run.peers) as ports, ExitStack() as stack:
        scripts = []
        for path in laid_out(tmp_path / "real", run, ports):
            scripts.append(
                subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)], env=environment(), stdout=subprocess.PIPE)
            )
            stack.callback(scripts[-1].wait)
            stack.callback(scripts[-1].kill)
        answered = [int(script.communicate(timeout=4 * PATIENCE_S)[0]) for script in scripts]
    assert [script.returncode for script in scripts] == [0, 0, 0] and min(answered) >= run.steps
    assert ends(tmp_path / "real") == {digest}


def ends(run_dir: Path) -> set[object]:
    """Digests of the parameters that the nodes finished with."""
    files = run_dir.glob("nodes/*/journal.jsonl")
    return {each["parameter_digest"] for path in files for each in journal.read(path)[0] if each["event"] == "finished"}


def test_a_node_whose_run_starts_from_another_model_is_refused(tmp_path: Path) -> None:
    other = Session(model(width=9), asked(tmp_path)).task
    (path, *_) = laid_out(tmp_path, RunConfig(peers=3, task=other), range(1, 7))
    words = "make the model as the others do, from the same seed"
    with pytest.raises(ConfigError, match=words), Session(model(), node=path):
        pass


def test_a_session_s_run_is_none_of_another_programs(tmp_path: Path) -> None:
    net = model()
    with Session(net, asked(tmp_path)) as session:
        train(net, session)
    registry.SERVED.clear()
    with pytest.raises(BtardError, match="the program that ran the session, which this one is not"):
        session.run.state_dict()
    assert verify(session.run.path).wrong == 0
