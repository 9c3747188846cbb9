"""Every metric of a run, declared once: name, kind, labels, meaning. Whoever feeds, exports, charts or alerts on one
looks it up here; nothing here costs a run without monitoring anything."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

PREFIX = "btard_"
PEER_LABEL_LIMIT = 16
"""Most peers of a run whose nodes tell their peers apart: each node would have n series a metric, the run n^2."""

UNKNOWN_PEER = "unknown"
"""The peer of a message whose sender never proved who it is."""


class Kind(Enum):
    """What Prometheus may do with the values."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Group(Enum):
    """Whose metric it is: a worker's own, or the launcher's, which alone knows the roles."""

    TRAINING = "training"
    PROTOCOL = "protocol"
    NETWORK = "network"
    RESOURCES = "resources"
    TRUTH = "truth"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Args:
        name: without prefix; a counter's ends in `_total`.
        kind: counter, gauge or histogram.
        group: whose it is.
        help: one line, with the unit.
        labels: label names; `run_id` and `node` are added by the scrape, a step is never a label.
        buckets: upper bounds of a histogram.
        waiting: what it needs to have data, where not every run has it.
    """

    name: str
    kind: Kind
    group: Group
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    waiting: str | None = None

    @property
    def full_name(self) -> str:
        """With the prefix."""
        return PREFIX + self.name

    @property
    def series(self) -> tuple[str, ...]:
        """Names of its time series."""
        ends = ("_bucket", "_sum", "_count") if self.kind is Kind.HISTOGRAM else ("",)
        return tuple(self.full_name + end for end in ends)

    def labels_for(self, peers: int) -> tuple[str, ...]:
        """Its labels in a run of `peers` nodes: above 16 the nodes do not tell their peers apart."""
        crowded = peers > PEER_LABEL_LIMIT and self.group is not Group.TRUTH
        return tuple(label for label in self.labels if not (crowded and label == "peer"))


_PHASE_BUCKETS = (0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0,
                  8.0, 16.0, 32.0, 60.0)  # fmt: skip
_STEP_BUCKETS = (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.25, 2.5, 5.0, 10.0, 20.0, 60.0)
_C, _G, _H = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_LINK_MODEL = "an emulated link"
_LIMITED_MODEL = "an emulated link with a limited rate"

METRICS: tuple[Metric, ...] = (
    Metric("step", _G, Group.TRAINING, "Last committed step"),
    Metric("train_loss", _G, Group.TRAINING, "Mini-batch loss of this node's last gradient"),
    Metric("eval_accuracy_ratio", _G, Group.TRAINING, "Accuracy on this node's slice of the test items, 0 to 1"),
    Metric("learning_rate", _G, Group.TRAINING, "Learning rate of the last committed step"),
    Metric("samples_total", _C, Group.TRAINING, "Samples in the gradients that this node contributed"),
    Metric("step_duration_seconds", _H, Group.TRAINING, "From the first phase of a step to its commit",
           buckets=_STEP_BUCKETS),
    Metric("phase_duration_seconds", _H, Group.PROTOCOL, "Time spent in a phase", ("phase",), _PHASE_BUCKETS),
    Metric("active_peers", _G, Group.PROTOCOL, "Peers in the roster of the last committed step"),
    Metric("accusations_total", _C, Group.PROTOCOL, "Charges that were judged", ("kind", "verdict")),
    Metric("bans_total", _C, Group.PROTOCOL, "Certified bans", ("reason",)),
    Metric("peer_state", _G, Group.PROTOCOL, "0 joining, 1 active, 2 accused, 3 banned, 4 gone", ("peer",)),
    Metric("validator", _G, Group.PROTOCOL, "1 if this node was drawn to validate in the next step"),
    Metric("verifications_total", _C, Group.PROTOCOL, "Recomputed gradients, by this node's own verdict", ("result",)),
    Metric("checksum_mismatches_total", _C, Group.PROTOCOL, "Claims on this node's part that it found false"),
    Metric("mprng_rounds_total", _C, Group.PROTOCOL, "Coin tosses: ok, or void with their attempt", ("result",)),
    Metric("centered_clip_iterations", _G, Group.PROTOCOL, "Iterations of the last aggregation of this node's part"),
    Metric("disputes_total", _C, Group.PROTOCOL, "Disputes that ended: commit or retry", ("outcome",)),
    Metric("steps_undone_total", _C, Group.PROTOCOL, "Steps with gradients that undo took back"),
    Metric("late_messages_total", _C, Group.PROTOCOL, "Messages of a step or attempt that is over", ("kind",)),
    Metric("duplicate_messages_total", _C, Group.PROTOCOL, "Messages that were here already", ("kind",)),
    Metric("sent_bytes_total", _C, Group.NETWORK, "Bytes that a queue took", ("peer", "kind")),
    Metric("received_bytes_total", _C, Group.NETWORK, "Bytes that were accepted", ("peer", "kind")),
    Metric("messages_sent_total", _C, Group.NETWORK, "Messages that a queue took", ("peer", "kind")),
    Metric("messages_received_total", _C, Group.NETWORK, "Messages that were accepted", ("peer", "kind")),
    Metric("dropped_messages_total", _C, Group.NETWORK, "Messages refused on arrival, and those that a full queue "
           "did not take", ("peer", "reason")),
    Metric("send_queue_bytes", _G, Group.NETWORK, "Bytes in the kernel that the peer has not confirmed", ("peer",)),
    Metric("reconnects_total", _C, Group.NETWORK, "Times that a line to the peer broke", ("peer",)),
    Metric("handshake_failures_total", _C, Group.NETWORK, "Connections refused before they could speak", ("reason",)),
    Metric("peer_rtt_seconds", _G, Group.NETWORK, "Smoothed round trip to the peer, as TCP measures it", ("peer",)),
    Metric("probe_rtt_seconds", _G, Group.NETWORK, "Shortest of the last answers to probes, modelled links included",
           ("peer",)),
    Metric("emulated_delay_seconds", _G, Group.NETWORK, "Mean one-way delay that the link model asks for, so far",
           ("peer",), waiting=_LINK_MODEL),
    Metric("measured_delay_seconds", _G, Group.NETWORK, "Mean one-way delay that messages were given, so far",
           ("peer",), waiting=_LINK_MODEL),
    Metric("emulated_loss_ratio", _G, Group.NETWORK, "Share of transmissions that the link model means to lose",
           ("peer",), waiting=_LINK_MODEL),
    Metric("measured_loss_ratio", _G, Group.NETWORK, "Share of transmissions that were lost and repeated", ("peer",),
           waiting=_LINK_MODEL),
    Metric("emulated_rate_bytes_per_second", _G, Group.NETWORK, "Rate that the link model asks for, over the long "
           "messages so far", ("peer",), waiting=_LIMITED_MODEL),
    Metric("measured_rate_bytes_per_second", _G, Group.NETWORK, "Rate at which they crossed", ("peer",),
           waiting=_LIMITED_MODEL),
    Metric("gpu_memory_bytes", _G, Group.RESOURCES, "Memory of the GPU held by this worker", ("type",),
           waiting="a GPU"),
    Metric("build_info", _G, Group.INFO, "Always 1; what runs", ("version", "python", "torch")),
    Metric("run_info", _G, Group.INFO, "Always 1; what the run is", ("task", "rule", "peers", "steps", "on_ban")),
    Metric("peer_byzantine", _G, Group.TRUTH, "1 if the peer attacks, 0 if it is honest", ("peer", "attack")),
    Metric("attack_active", _G, Group.TRUTH, "1 while the schedule of the attack is on", ("attack",)),
    Metric("attack_steps_total", _C, Group.TRUTH, "Steps that began while the attack was on", ("attack",)),
    Metric("scenario_event_total", _C, Group.TRUTH, "Events of the run as the launcher sees them", ("event",)),
    Metric("run_step", _G, Group.TRUTH, "Last step that an honest node committed"),
    Metric("run_accuracy_ratio", _G, Group.TRUTH, "Accuracy on all test items: the nodes' slices added up"),
    Metric("final_accuracy_ratio", _G, Group.TRUTH, "Accuracy of the agreed final parameters on all test items",
           waiting="the end of the run"),
    Metric("peer_banned_step", _G, Group.TRUTH, "Step of the peer's first ban", ("peer", "reason"),
           waiting="a ban"),
    Metric("time_to_ban_seconds", _G, Group.TRUTH, "From the start of the peer's attack to its ban", ("peer",),
           waiting="a ban of an attacker"),
    Metric("expected_bytes", _G, Group.TRUTH, "Bulk of all peers in the committed steps by BTARD's formula"),
)  # fmt: skip

_BY_NAME = {metric.name: metric for metric in METRICS}


def metric(name: str) -> Metric:
    """The metric called `name` (without prefix).

    Raises:
        KeyError: nothing of this name is declared.
    """
    return _BY_NAME[name]


def of(*groups: Group) -> tuple[Metric, ...]:
    """The metrics of some groups."""
    return tuple(each for each in METRICS if each.group in groups)
