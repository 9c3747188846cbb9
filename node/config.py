"""The configuration of a run and of one node: frozen, validated once, the one place for defaults."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec

from btard.node.errors import ConfigError
from btard.node.limits import ENTRY_BYTES, MAX_PEERS, MAX_UNDO, Wire
from btard.node.netem.conditions import Conditions

WIRE_VERSION = 7
RELEASES = {6: "0.1.0"}
"""The release that spoke an earlier wire version and reads its runs."""

LATER_FIELDS = ("optimiser", "schedule", "split", "roster", "members", "admit_every", "wire")
"""Of a `RunConfig`: left out of the genesis at their defaults, so runs from before they came keep their digest."""

CLOSE_STEPS = 5
"""From one evaluation to the next while attacks are looked at closely."""

Parameters = dict[str, Any]

Durability = Literal["grouped", "none"]

Contribute = Literal["auto", "on", "off"]

Arithmetic = Literal["native", "portable"]
"""Torch's kernels, whose bits depend on the processor, or those of node/kernels/portable.py, whose bits do not."""


def validators_contribute(choice: Contribute, peers: int) -> bool:
    """True if the validators of a step contribute to it as well.

    By default where `n - 1 > 2 f_0` fails, for every odd n: with one contributor fewer, the f_0 faulty peers could be
    half of them. Source: PROTOCOL section 10, rule 8.
    """
    faults = (peers + 1) // 2 - 1
    return choice == "on" or (choice == "auto" and peers - 1 <= 2 * faults)


class Plugin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A registered name with the keyword parameters to call it with."""

    name: str
    parameters: Parameters = {}


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When an attacker attacks: steps `start, start + every, ...` before `stop`, each with `probability`, and of them
    those in which `when` holds (node/adversary/timing.py)."""

    start: int = 100
    every: int = 1
    stop: int | None = None
    probability: float = 1.0
    when: str = "always"

    def scheduled(self, step: int) -> bool:
        """True if `step` is one at which the attack may fire (probability and `when` are the attacker's to judge)."""
        return step >= self.start and (step - self.start) % self.every == 0 and (self.stop is None or step < self.stop)


class Role(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one Byzantine node does. Only that node's own configuration and the launcher ever hold it.

    Args:
        attacks: the attacks it composes, applied in order.
        schedule: when they fire.
        accomplices: ids of all attackers of the run, itself included (they share knowledge and a seed).
        attack_seed: seed of the attackers' common randomness.
    """

    attacks: tuple[Plugin, ...]
    schedule: Schedule = Schedule()
    accomplices: tuple[int, ...] = ()
    attack_seed: int = 0


class RunConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all peers of a run must agree on; its digest is part of the genesis.

    `pre` is what contributions go through before the rule; `allow_weak` lets a rule work where its condition fails;
    `topology` other than butterfly is a comparison run (node/baselines/comparison.py), which alone knows
    `worker_momentum`; `split` is which training examples each peer draws from; `validators_contribute` is whether
    validators compute a gradient of their own too (auto: for odd n); `undo` is how many steps back a ban's poison
    can be taken out again (0: off); `init` is the digest of initial parameters from a file (node/training/start.py;
    None: drawn from `init_seed`); `roster` is who may become a member while the run goes on: nobody, those whom a
    founder signs for, or anybody; `members` is how many there may ever be, the founders included, and `admit_every` how
    many steps lie between two newcomers at least; `wire` is what the entries of parts and aggregates travel as;
    `imports` names files with attacks, rules or tasks (node/plugins/extensions.py).
    Units: `tau`, `delta_max` are L2 norms of a part; bounds are seconds; `minimum_rate` is bytes per second.
    """

    peers: int = 6
    task: Plugin = Plugin("mnist_cnn")
    rule: Plugin = Plugin("centered_clip")
    pre: tuple[Plugin, ...] = ()
    allow_weak: bool = False
    imports: tuple[str, ...] = ()
    steps: int = 900
    batch_size: int = 256
    lr: float = 0.05
    momentum: float = 0.9
    optimiser: Plugin = Plugin("sgd")
    schedule: Plugin = Plugin("cosine")
    split: Plugin = Plugin("iid")
    topology: Literal["butterfly", "parameter_server", "ring", "none", "byrdie"] = "butterfly"
    worker_momentum: float = 0.0
    tau: float = 5.0
    validators: int = 1
    validate_every: int = 1
    validators_contribute: Contribute = "auto"
    delta_max: float | None = None
    audit_share: float = 0.1
    on_ban: Literal["remove", "reform"] = "remove"
    probation: int = 3
    undo: int = 0
    roster: Literal["closed", "sponsored", "open"] = "closed"
    members: int = 0
    admit_every: int = 30
    init_seed: int = 0
    init: str | None = None
    data_seed: int = 0
    delivery_bound_s: float = 2.0
    gradient_bound_s: float = 5.0
    measure_delivery: bool = False
    measure_gradient: bool = False
    tight_budgets: bool = False
    minimum_rate: float = 1e6
    wire: Wire = "float32"
    recompute_tolerance: float = 0.0
    device: Literal["cpu", "cuda"] = "cpu"
    encrypt_bulk: bool = False
    eval_every: int = 50

    def __post_init__(self) -> None:
        """Refuse every value that cannot be run.

        Raises:
            ConfigError: the option, its value and the range it must lie in.
        """
        at_least = {"peers": (self.peers, 2), "steps": (self.steps, 1), "batch-size": (self.batch_size, 1),
                    "validators": (self.validators, 0), "validate-every": (self.validate_every, 1),
                    "probation": (self.probation, 0), "admit-every": (self.admit_every, 1),
                    "eval-every": (self.eval_every, 1)}  # fmt: skip
        for option, (value, low) in at_least.items():
            if value < low:
                raise ConfigError(f"--{option} {value} is too small; use at least {low}")
        positive = {"lr": self.lr, "tau": self.tau, "delivery-bound": self.delivery_bound_s,
                    "gradient-bound": self.gradient_bound_s, "minimum-rate": self.minimum_rate}  # fmt: skip
        if self.delta_max is not None:
            positive["delta-max"] = self.delta_max
        for option, number in positive.items():
            if not (math.isfinite(number) and number > 0):
                raise ConfigError(f"--{option} {number} must be a positive, finite number")
        for option, share in {"momentum": self.momentum, "audit-share": self.audit_share}.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"--{option} {share} must lie between 0 and 1")
        if self.optimiser.name != "sgd" and self.momentum != 0.9:
            raise ConfigError(
                f"--momentum {self.momentum} is that of --optimiser sgd; leave it out, or give --optimiser "
                f"{self.optimiser.name} parameters of its own (`btard-launch optimisers` lists them)"
            )
        if not 0 <= self.worker_momentum < 1:
            raise ConfigError(f"--worker-momentum {self.worker_momentum} must lie in [0, 1)")
        if not 0 <= self.recompute_tolerance < 1:
            raise ConfigError(f"--recompute-tolerance {self.recompute_tolerance} must lie in [0, 1)")
        if self.init is not None and not re.fullmatch("[0-9a-f]{64}", self.init):
            raise ConfigError(f"init {self.init!r} is no digest in hexadecimal")
        if self.arithmetic == "portable" and self.device != "cpu":
            raise ConfigError(
                f"--arithmetic portable computes on the CPU, not on --device {self.device}; use --device cpu"
            )
        if self.undo and not 2 <= self.undo <= MAX_UNDO:
            raise ConfigError(f"--undo {self.undo} must be 0 (off) or lie between 2 and {MAX_UNDO}")
        if self.undo and self.recompute_tolerance > 0:
            raise ConfigError(
                f"--undo {self.undo} recomputes gradients bit for bit; leave out --recompute-tolerance "
                f"{self.recompute_tolerance}"
            )
        if self.wire != "float32" and self.recompute_tolerance > 0:
            raise ConfigError(
                f"--wire {self.wire} makes large steps of small differences between machines; leave it out, or "
                f"--recompute-tolerance {self.recompute_tolerance}"
            )
        if self.wire != "float32" and self.topology != "butterfly":
            raise ConfigError(f"--wire {self.wire} is the butterfly's; leave out --topology {self.topology}")
        if self.peers > MAX_PEERS:
            raise ConfigError(f"--peers {self.peers} is more than the {MAX_PEERS} one roster holds")
        self._check_roster()

    def _check_roster(self) -> None:
        if self.roster == "closed":
            if self.members:
                raise ConfigError(f"--members {self.members} is for newcomers; add --roster sponsored, or open")
            return
        if not self.peers < self.members <= MAX_PEERS:
            raise ConfigError(
                f"--members {self.members} with --roster {self.roster} must be more than --peers {self.peers} and at "
                f"most {MAX_PEERS}: it is how many members there may ever be"
            )
        if self.probation == 0:
            raise ConfigError(f"--roster {self.roster} admits nobody with --probation 0; use at least 1")
        unfit = {
            "--undo": self.undo,
            "--recompute-tolerance": self.recompute_tolerance,
            "--split": self.split.name if self.split.name != "iid" else "",
            "--topology": self.topology if self.topology != "butterfly" else "",
        }
        for option, value in unfit.items():
            if value:
                raise ConfigError(
                    f"{option} {value}: newcomers are not for such a run; leave it out, or use --roster closed"
                )

    @property
    def arithmetic(self) -> Arithmetic:
        """What the task computes gradients in: a parameter of the tasks that have a choice, and so of the genesis."""
        return "portable" if self.task.parameters.get("arithmetic") == "portable" else "native"

    @property
    def entry_bytes(self) -> int:
        """Bytes of an entry of a part or an aggregate on the wire."""
        return ENTRY_BYTES[self.wire]

    @property
    def capacity(self) -> int:
        """How many peers there may ever be, newcomers included: ids lie below it."""
        return max(self.peers, self.members)

    @property
    def everyone_contributes(self) -> bool:
        """True if validators compute a gradient of their own too: where newcomers come, the number of peers changes."""
        if self.roster != "closed" and self.validators_contribute == "auto":
            return True
        return validators_contribute(self.validators_contribute, self.peers)


def shared(source: msgspec.Struct, names: Iterable[str]) -> dict[str, Any]:
    """Those of the named fields that a configuration has: an option that goes through several is copied by its name."""
    return {name: getattr(source, name) for name in names if name in source.__struct_fields__}


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a peer listens: ZeroMQ addresses of its control and its bulk socket; where the second is empty, tensors go
    to the first as well."""

    control: str
    bulk: str = ""

    @property
    def urls(self) -> tuple[str, ...]:
        """Both addresses, or the only one; tensors go to the last."""
        return (self.control, self.bulk) if self.bulk else (self.control,)


class Member(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A genesis peer's public identity: hex Ed25519 signing key and Z85 CURVE transport key."""

    id: int
    signing_key: str
    transport_key: str


class NodeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything one worker process needs; `role` is None for an honest node.

    Args:
        run_id: name of the run, unique on this machine.
        node: this worker's genesis id, or the one that it has applied for.
        members: the genesis roster, in id order; empty where a ceremony comes to it.
        secrets_file: file with this node's secret keys and secret seed (mode 0600).
        directory: where the node writes its journal, evidence and parameters, and in a ceremony what it signs.
        data_directory: where the data sets lie.
        listen: endpoints to bind (port 0 or `*`: the system chooses).
        addresses: where the peers are reached, by id; before a ceremony at most this node's own, where that is not what
            it binds.
        conditions: what the network is to be like; None: as it is.
        shaped: the kernel sees to the links, from outside; this process only measures them.
        checkpoints: note at each step what is needed to go on after a crash, and go on from there if it is found.
        durability: what of that is on the disk before anything that rests on it leaves: all of it, with one wait for
            all that leaves at once (grouped), or what the kernel happens to have written (none).
        imports: paths of the files that `run.imports` names.
        metrics: HOST:PORT to serve `/metrics` on (port 0: the system chooses); None: no monitoring.
        files: serve the node's public files there besides (node/storage/public_files.py).
        ceremony: directory in which the peers that one launcher starts meet (node/genesis/ceremony.py); None: members,
            addresses and keys are there.
        applications: directory in which the owner leaves applications for this node to introduce; None: none come.
        approvals: file of the members' approvals: no step is taken before all are there; None: none are asked for.
        wait_s: longest wait for the other peers, where no launcher has seen them start.
        grace_s: how much of it for the last f, whose machines may still be fetching the image.
        evaluate: what of the test items, where the run evaluates: this node's slice of them, or the whole.
        closely: first and last steps between which every `CLOSE_STEPS`-th is evaluated as well.
        stay: after the end, answer whoever missed it and serve metrics and files until a signal ends this node.
    """

    run_id: str
    node: int
    run: RunConfig
    members: tuple[Member, ...]
    secrets_file: str
    directory: str
    data_directory: str
    listen: Endpoint = Endpoint("tcp://127.0.0.1:*", "tcp://127.0.0.1:*")
    addresses: dict[str, Endpoint] = {}
    role: Role | None = None
    cuda_memory_fraction: float | None = None
    conditions: Conditions | None = None
    shaped: bool = False
    checkpoints: bool = False
    durability: Durability = "grouped"
    imports: tuple[str, ...] = ()
    metrics: str | None = None
    files: bool = False
    ceremony: str | None = None
    applications: str | None = None
    approvals: str | None = None
    wait_s: float = 180.0
    grace_s: float = 60.0
    evaluate: Literal["slice", "whole"] = "slice"
    closely: tuple[tuple[int, int], ...] = ()
    stay: bool = False

    def __post_init__(self) -> None:
        """Refuse an address of metrics that is none, and one port where others look for two, or the other way round.

        Raises:
            ConfigError: it is not HOST:PORT, or `listen` has not as many ports as `addresses` says.
        """
        if self.metrics is not None:
            split_address(self.metrics)
        reached = self.addresses.get(str(self.node), self.listen)
        if len(reached.urls) != len(self.listen.urls):
            raise ConfigError(
                f"listen is {','.join(self.listen.urls)}, and the others know peer {self.node} at "
                f"{','.join(reached.urls)}; name as many ports for it (--listen) as there"
            )


class Secrets(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One node's secrets: hex Ed25519 seed, Z85 CURVE secret key, hex seed of its x and salt."""

    signing_seed: str
    transport_secret: str
    randomness_seed: str


def split_address(address: str) -> tuple[str, int]:
    """HOST and PORT of `HOST:PORT` or `[HOST]:PORT`.

    Raises:
        ConfigError: it is neither.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdecimal() and int(port) <= 65535):
        raise ConfigError(f"metrics address {address!r} is not HOST:PORT; use for example 127.0.0.1:9464")
    return host.strip("[]"), int(port)


def load(path: Path) -> NodeConfig:
    """Read a node's configuration from a JSON file.

    Raises:
        ConfigError: the file is missing, not JSON, or has a wrong or unknown key.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=NodeConfig)
    except OSError as error:
        raise ConfigError(f"cannot read the node configuration {path}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not a valid node configuration: {error}") from error
