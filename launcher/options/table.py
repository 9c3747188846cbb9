"""The table of options: name, syntax, group and help of each field of `Experiment`. Defaults are the fields' own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from btard.launcher.options import syntax
from btard.launcher.run.experiment import Experiment


@dataclass(frozen=True, slots=True)
class Option:
    """One option, usable as a flag, as a `BTARD_*` variable and as a key of a configuration file.

    Args:
        field: the field of `Experiment`; flag, variable and key are spelled after it.
        group: the heading it is listed under.
        help: one line.
        metavar: what stands for its value in the help; empty for a switch.
        parse: reads the value from text.
        short: a one-letter flag.
        many: the flag may be repeated; a variable separates values by `;`.
        spelled: the flag without its dashes, where it differs from the field.
        negated: the switch that turns a field off whose default is on.
    """

    field: str
    group: str
    help: str
    metavar: str = ""
    parse: Callable[[str], object] = syntax.boolean
    short: str | None = None
    many: bool = False
    negated: str | None = None
    spelled: str | None = None

    @property
    def flag(self) -> str:
        """`--batch-size` for `batch_size`."""
        return self.negated or "--" + (self.spelled or self.field).replace("_", "-")

    @property
    def variable(self) -> str:
        """`BTARD_BATCH_SIZE` for `batch_size`."""
        return "BTARD_" + (self.spelled or self.field).upper()

    @property
    def default(self) -> object:
        """The default, as the field of `Experiment` has it."""
        return getattr(_DEFAULTS, self.field)


def or_none(parse: Callable[[str], object], word: str) -> Callable[[str], object]:
    """A reader that takes `word` (as "auto" or "none") for None."""

    def read(text: str) -> object:
        return None if text.strip().lower() == word else parse(text)

    return read


_DEFAULTS = Experiment()
_CLUSTER, _ATTACK, _TRAINING, _DEFENCE = "Cluster", "Attack", "Training", "Defence"
_NETWORK, _SEEDS, _PLACE = "Network", "Seeds", "Where it runs"

OPTIONS: tuple[Option, ...] = (
    Option("peers", _CLUSTER, "number of peers, one process each", "N", syntax.integer, short="-n"),
    Option("backend", _CLUSTER, "where workers run", "local|simulated|compose", str),
    Option("device", _CLUSTER, "what computes gradients", "auto|cpu|cuda", str),
    Option("arithmetic", _CLUSTER, "portable: gradients with equal bits on every CPU; auto: if the task has it",
           "auto|native|portable", str),
    Option("delivery_bound", _CLUSTER, "longest delivery time of a message between honest peers (D)", "auto|TIME",
           or_none(syntax.seconds, "auto")),
    Option("gradient_bound", _CLUSTER, "longest time one gradient takes", "auto|TIME",
           or_none(syntax.seconds, "auto")),
    Option("measure_bounds", _CLUSTER, "lower bounds that are not given to what step 0 measures"),
    Option("tight_budgets", _CLUSTER, "call peers late that are slower than step 0 was, not only than the bounds"),
    Option("minimum_rate", _CLUSTER, "slowest bulk transfer, bytes per second", "RATE", syntax.number),
    Option("wire", _CLUSTER, "entries of gradients and aggregates as they travel; bf16: half the bytes", "float32|bf16",
           str),
    Option("encrypt_bulk", _CLUSTER, "encrypt tensors too (control always is)"),
    Option("one_port", _CLUSTER, "one port a peer in place of two: tensors are encrypted then"),
    Option("attack", _ATTACK, "what attackers do; several joined by '+'", "NAME[:k=v,...]", or_none(str, "none")),
    Option("byzantine", _ATTACK, "how many peers attack: the highest ids", "B", syntax.integer),
    Option("role", _ATTACK, "one peer's attack, e.g. 4=noise:variant=small,start=300,every=5 (repeatable)", "ID=ATTACK",
           str, many=True),
    Option("attack_start", _ATTACK, "first step that may be attacked", "STEP", syntax.integer),
    Option("attack_every", _ATTACK, "attack every K-th step from there", "K", syntax.integer),
    Option("attack_stop", _ATTACK, "first step that is left alone again", "none|STEP", or_none(syntax.integer, "none")),
    Option("attack_probability", _ATTACK, "chance that a scheduled attack happens", "P", syntax.number),
    Option("attack_when", _ATTACK, "attack only where it pays: no attacker validates, an earlier attack stays; or both",
           "always|together|beyond_undo", str),
    Option("attack_last", _ATTACK, "attack in the last K steps only", "none|K", or_none(syntax.integer, "none")),
    Option("allow_majority", _ATTACK, "allow more attackers than the promises hold for"),
    Option("imports", _TRAINING, "file with own attacks, rules or tasks (repeatable)", "FILE.py", str, many=True,
           spelled="import"),
    Option("task", _TRAINING, "model and data", "NAME[:k=v,...]", str),
    Option("steps", _TRAINING, "training steps", "STEPS", syntax.integer),
    Option("batch_size", _TRAINING, "samples per worker and step", "B", syntax.integer),
    Option("lr", _TRAINING, "base learning rate", "RATE", syntax.number),
    Option("momentum", _TRAINING, "Nesterov momentum of --optimiser sgd", "M", syntax.number),
    Option("optimiser", _TRAINING, "update that follows from an aggregate (docs/optimisers.md)", "NAME[:k=v,...]", str),
    Option("schedule", _TRAINING, "learning rate over the steps, e.g. cosine:warmup=100", "NAME[:k=v,...]", str),
    Option("split", _TRAINING, "which training examples each peer draws from, e.g. dirichlet:alpha=0.3",
           "NAME[:k=v,...]", str),
    Option("eval_every", _TRAINING, "steps between test accuracies; auto: 50, and 5 around attacks", "auto|STEPS",
           or_none(syntax.integer, "auto")),
    Option("rule", _DEFENCE, "how an aggregator combines a part; pre-aggregations in front, joined by '+'",
           "NAME[:k=v,...]", str),
    Option("allow_weak", _DEFENCE, "allow a rule whose condition on n and f fails"),
    Option("topology", _DEFENCE, "how gradients come together; all but butterfly are comparison runs",
           "butterfly|parameter_server|ring|none|byrdie", str),
    Option("worker_momentum", _DEFENCE, "momentum of each worker's own gradients, in comparison runs", "BETA",
           syntax.number),
    Option("tau", _DEFENCE, "clipping radius of a part", "TAU", syntax.number),
    Option("validators", _DEFENCE, "validators drawn for each step", "M", syntax.integer),
    Option("validate_every", _DEFENCE, "validate a step with probability 1/K", "K", syntax.integer),
    Option("validators_contribute", _DEFENCE, "validators compute a gradient too; auto: if peers are odd",
           "auto|on|off", str),
    Option("delta_max", _DEFENCE, "largest accepted distance to an aggregate", "auto|NORM",
           or_none(syntax.number, "auto")),
    Option("audit_share", _DEFENCE, "share of parts recomputed under rules without a residual", "SHARE",
           syntax.number),
    Option("on_ban", _DEFENCE, "what a ban does", "remove|reform", str),
    Option("probation", _DEFENCE, "correct gradients that let a `gone` peer back; 0: never", "K", syntax.integer),
    Option("roster", _DEFENCE, "who may become a member later: nobody, whom a founder signs for, or anybody "
           "(docs/hosts.md)", "closed|sponsored|open", str),
    Option("members", _DEFENCE, "most members there may ever be, where newcomers come", "N", syntax.integer),
    Option("admit_every", _DEFENCE, "fewest steps between two newcomers", "K", syntax.integer),
    Option("undo", _DEFENCE, "steps that can be taken back when a peer is banned (docs/undo.md)", "auto|off|W",
           or_none(syntax.integer_or_off, "auto")),
    Option("recompute_tolerance", _DEFENCE, "relative L2 error a recomputed gradient may have", "TOL", syntax.number),
    Option("delay", _NETWORK, "delay of every message, on top of the real network's", "TIME", syntax.latency),
    Option("jitter", _NETWORK, "further delay, uniform up to this: messages overtake each other", "TIME",
           syntax.latency),
    Option("loss", _NETWORK, "share of transmissions that are lost, and repeated after 200 ms", "SHARE", syntax.share),
    Option("duplicate", _NETWORK, "share of messages that arrive twice", "SHARE", syntax.share),
    Option("bandwidth", _NETWORK, "rate of each link, e.g. 10mbit or 2MB/s", "none|RATE", or_none(syntax.rate, "none")),
    Option("link", _NETWORK, "one direction that differs, e.g. '0->4:delay=50ms,loss=1%' or '*<->5:...' (repeatable)",
           "FROM->TO:...", str, many=True),
    Option("scenario", _NETWORK, "what happens to links and processes, and when (docs/faults.md)", "FILE",
           or_none(str, "none")),
    Option("shaping", _NETWORK, "who does that to the links: each process, or the kernel of --backend compose",
           "process|kernel", str),
    Option("seed", _SEEDS, "seed that the others are derived from", "SEED", syntax.integer),
    Option("init", _TRAINING, "initial weights: model.pt or parameters.f32 of an earlier run", "none|FILE",
           or_none(str, "none")),
    Option("init_seed", _SEEDS, "initial parameters; auto: derived", "auto|SEED", or_none(syntax.integer, "auto")),
    Option("data_seed", _SEEDS, "mini-batches; auto: derived", "auto|SEED", or_none(syntax.integer, "auto")),
    Option("attack_seed", _SEEDS, "attackers' randomness; auto: derived", "auto|SEED",
           or_none(syntax.integer, "auto")),
    Option("protocol_seed", _SEEDS, "keys and the peers' coins; auto: from the system (simulated: derived)",
           "auto|SEED", or_none(syntax.integer, "auto")),
    Option("checkpoints", _PLACE, "keep nothing to resume from (saves the writing at each step)",
           negated="--no-checkpoints"),
    Option("durability", _PLACE, "wait until the disk has what a message rests on, or let a loss of power take it",
           "grouped|none", str),
    Option("run_dir", _PLACE, "run directory [runs/<time>-<name>]", "DIR", or_none(str, "none")),
    Option("data_dir", _PLACE, "where data sets lie [~/.cache/btard/data]", "DIR", or_none(str, "none")),
    Option("download", _PLACE, "fail when the data set is missing instead of fetching it", negated="--no-download"),
    Option("base_port", _PLACE, "first of 2N local ports; 0: the system chooses", "PORT", syntax.integer),
    Option("monitor", _PLACE, "serve metrics, and collect them where Prometheus is installed"),
    Option("timeout", _PLACE, "stop the run after this time (exit 5)", "none|TIME", or_none(syntax.seconds, "none")),
    Option("expect", _PLACE, "check a field of summary.json, e.g. 'honest_banned==0' (repeatable; exit 4)", "CHECK",
           str, many=True),
    Option("allow_honest_removals", _PLACE, "end with 0 though honest peers were banned, or gone without a cause"),
)  # fmt: skip
