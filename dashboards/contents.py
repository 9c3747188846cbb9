"""What each dashboard shows: rows that answer one question each."""

from __future__ import annotations

from typing import Any

import yaml

from btard.launcher.assets import asset
from btard.node.protocol.adjudication.offences import OFFENCES
from dashboards.parts import STATES, YES_NO, Colors, Column, Row, Show, attacked

RUN = 'run_id="$run_id"'
COMPARED = 'run_id="$compare_run"'
NODE = 'run_id="$run_id", node="$node"'
PEER = 'run_id="$run_id", peer="$node"'
NODES = 'run_id="$run_id", node!="launcher"'
RATE = "$__rate_interval"
SHOWN = "[$__range]"
EACH = "[$__range:$__interval]"
STEPS = f"sum by (le) (rate(btard_step_duration_seconds_bucket{{{NODE}}}[{RATE}]))"

NONE_GOOD: Colors = ((None, "green"), (1, "red"))
"""For a number of something that must not happen."""
NONE_GOOD_ODD: Colors = ((None, "green"), (1, "orange"))
"""For a number of something that an honest peer may suffer, too."""
CORES = "suffix:cores"
NO_STEP = {"-1": ("none yet", "text")}
NOTHING = {"0": ("none", "green")}


def _stat(title: str, about: str, expression: str, unit: str = "short", width: int = 4, **more: Any) -> Show:
    return Show(title, about, ((expression, title),), "stat", unit, width, 4, **more)


def _runbook() -> dict[str, tuple[str, str]]:
    """What to do about each alert, from the rules themselves."""
    rules = yaml.safe_load(asset("deploy", "prometheus", "rules", "alerts.yml").read_text())["groups"][0]["rules"]
    return {rule["alert"]: (rule["annotations"]["runbook"], "text") for rule in rules}


def _happened(event: str) -> str:
    return f'(last_over_time(btard_scenario_event_total{{{RUN}, event="{event}"}}{SHOWN}) > bool 0)'


FOUND = f"max(last_over_time(run_id:btard_attackers_banned:count{{{RUN}}}{SHOWN}))"
PRESENT = f"max(last_over_time(run_id:btard_peers_byzantine:count{{{RUN}}}{SHOWN}) > 0)"
STATUS = (
    # The highest that holds: the launcher gone -2, no step yet -1, no step for a while 0, steps 1, finished 2.
    f'max((up{{job="btard", {RUN}, node="launcher"}} - 1) * 2 == -2 or clamp_max(btard_run_step{{{RUN}}}, 0) '
    f"or (run_id:btard_steps:rate30s{{{RUN}}} > bool 0) == 1 or 2 * {_happened('finished')} == 2)"
)
# The processes end with the run: then it is no fault that they cannot be read.
READ = f'max(up{{job="btard", {NODE}}} or 2 * ({_happened("finished")} == 1))'
HONEST_BANNED = f"max(run_id:btard_peers_banned:count{{{RUN}}}) - max(run_id:btard_attackers_banned:count{{{RUN}}})"
GONE = f"sum(max by (peer) (btard_peer_state{{{RUN}}}) == bool 4)"
# While nothing is wrong there is no alert; 0 is said only while Prometheus reads something of the run.
WATCHED = f'0 * max(up{{job="btard", {RUN}}})'
DOWN = f'count(ALERTS{{{RUN}, alertname="NodeDown"}}) or {WATCHED}'
FIRING = f'{RUN}, alertstate="firing"'
ALERTS = (
    f'max(3 * ALERTS{{{FIRING}, severity="critical"}} or 2 * ALERTS{{{FIRING}, severity="warning"}} '
    f'or ALERTS{{{FIRING}, severity="info"}}) or {WATCHED}'
)
BANS = f"btard_peer_banned_step{{{RUN}}}"


# What is known of a ban or a dispute beyond the launcher's count takes its place.
HAPPENED = (
    f'btard_scenario_event_total{{{RUN}, event!~"banned|disputed"}} > 0 '
    f'or label_replace({BANS} ^ 0, "event", "banned", "", "") '
    f"or label_replace(label_replace(max by (outcome) (btard_disputes_total{{{RUN}}}) > 0, "
    '"event", "disputed", "", ""), "reason", "$1", "outcome", "(.+)") '
    f'or label_replace(max(btard_steps_undone_total{{{RUN}}}) > 0, "event", "undone", "", "")'
)
_OF_EVENTS = "event, peer, reason"
REASONS = {name: (f"{name}: {offence.sentence}", "text") for name, offence in OFFENCES.items()} | {
    "commit": ("the step stood", "text"), "retry": ("the step was tried again", "text")}  # fmt: skip
EXPLAINED = {event: (f"docs/{page}", "text") for page, events in {
    "catalogue.md#attacks": ("attack_started", "attack_stopped"),
    "protocol.md#charges-and-bans": ("banned",),
    "faults.md#recovery": ("gone", "eliminated", "returned"),
    "debugging.md#reading-a-dispute": ("voided", "disputed"),
    "undo.md#what-it-restores": ("undone",),
    "debugging.md#by-symptom": ("halted", "failed"),
    "own-model.md#what-a-run-left-behind": ("finished",),
    "faults.md#scenarios": ("kill", "restart", "pause", "continue", "begins", "ends"),
}.items() for event in events}  # fmt: skip


def _events(expression: str) -> str:
    """With the label that the page of the guide is told by."""
    return f'label_replace({expression}, "guide", "$1", "event", "(.+)")'


def _alerted(over_time: str) -> str:
    """Milliseconds since the epoch, by alert and what it is about."""
    when = f"{over_time}_over_time(timestamp(ALERTS{{{FIRING}}}){EACH})"
    by = f"1000 * {over_time} by (alertname, severity, node, peer) ({when})"
    return f'label_replace({by}, "runbook", "$1", "alertname", "(.+)")'


TIME = Show("Where a step's time goes", "Seconds in each phase per step, mean over the nodes.", (
    (f"sum by (phase) (rate(btard_phase_duration_seconds_sum{{{RUN}}}[{RATE}])) / on () group_left () "
     f"sum(rate(btard_step_duration_seconds_count{{{RUN}}}[{RATE}]))", "{{phase}}"),
), "bars", "s")  # fmt: skip
WAITING = Show("Bytes that wait", "In the kernel, not yet confirmed by the peer; the longest queue of each node.", (
    (f"max by (node) (btard_send_queue_bytes{{{RUN}}})", "node {{node}}"),
), unit="decbytes", label="node")  # fmt: skip
PROBES = Show("Round trips of probes", "The slowest peer of each node, modelled links included.", (
    (f"max by (node) (btard_probe_rtt_seconds{{{RUN}}})", "node {{node}}"),
), unit="s", label="node")  # fmt: skip
REFUSED = Show("Refused messages", "A second, by reason: full queues, credits, and what fits no rule.", (
    (f"sum by (reason) (rate(btard_dropped_messages_total{{{RUN}}}[{RATE}]))", "{{reason}}"),
), unit="ops")  # fmt: skip
"""On two dashboards each."""

OVERVIEW = (
    Row("Is the run going?", "monitoring.md#is-the-run-going", (
        Show("Peers", "What the nodes hold of each peer: the gravest of their views. On probation a peer "
             "is in no roster yet: it is gone until it is let back, and joining for a step.", (
            (f"max by (peer) (btard_peer_state{{{RUN}}})", "peer {{peer}}"),
        ), "states", width=24, height=7, names=STATES, label="peer"),
        _stat("Run", "Whether steps are committed; slow gradients may take longer than 30 s.", STATUS, names={
            "-2": ("launcher gone", "red"), "-1": ("no step yet", "blue"), "0": ("no step for 30 s", "orange"),
            "1": ("training", "green"), "2": ("finished", "blue")}, empty="nothing is read"),
        _stat("Step", "The last that an honest node committed.", f"btard_run_step{{{RUN}}}", "count", 3, names=NO_STEP),
        _stat("Steps per second", "Over the last 30 s.", f"run_id:btard_steps:rate30s{{{RUN}}}", "suffix:steps/s", 3),
        _stat("Test accuracy", "On all test items: the nodes' slices added up.", f"btard_run_accuracy_ratio{{{RUN}}}",
              "percentunit", 3, empty="not measured yet"),
        _stat("Active peers", "Neither banned nor gone.", f"run_id:btard_peers_active:count{{{RUN}}}", "count", 3),
        _stat("Nodes down", "That cannot be read, though nobody banned them.", DOWN, "count", names=NOTHING,
              colors=NONE_GOOD, empty="nothing is read"),
        _stat("Alerts", "The gravest that fires; what to do stands below.", ALERTS, names={
            "0": ("none", "green"), "1": ("info", "blue"), "2": ("warning", "orange"), "3": ("critical", "red")},
            empty="nothing is read"),
    )),
    Row("Is it learning?", "monitoring.md#is-it-learning", (
        Show("Accuracy", "Of this run, and where the run to compare with ended, for example one without an attack.", (
            (f"btard_run_accuracy_ratio{{{RUN}}}", "this run"),
            (f"btard_final_accuracy_ratio{{{RUN}}} >= 0", "final parameters"),
            (f"max(last_over_time(btard_run_accuracy_ratio{{{COMPARED}}}[30d]))", "end of $compare_run"),
        ), unit="percentunit", top=1.0, empty="not measured yet"),
        Show("Training loss", "Mean over the nodes of their last mini-batch's loss, and where the other run ended.", (
            (f"run_id:btard_train_loss:avg{{{RUN}}}", "this run"),
            (f"max(last_over_time(run_id:btard_train_loss:avg{{{COMPARED}}}[30d]))", "end of $compare_run"),
        )),
    )),
    Row("Who lies?", "monitoring.md#who-lies", (
        Show("Attackers found", "Banned attackers of all attackers, which only the launcher knows.", (
            (f'count_values("present", {PRESENT}) * on () group_left (found) count_values("found", {FOUND}) '
             f"* scalar({FOUND} / {PRESENT})", "{{found}} of {{present}}"),
        ), "name", width=6, height=4, colors=((None, "orange"), (1, "green")), empty="no attacker known"),
        _stat("Honest peers banned", "By certified verdicts; must not happen.", HONEST_BANNED, "count", 6,
              names=NOTHING, colors=NONE_GOOD, empty="nothing is read"),
        _stat("Peers gone", "Silent, late or eliminated: they left without proof, honest ones perhaps.", GONE, "count",
              6, names=NOTHING, colors=NONE_GOOD_ODD, empty="nothing is read"),
        _stat("Slowest ban", "From the start of a peer's attack to its ban.",
              f"max(btard_time_to_ban_seconds{{{RUN}}})", "s", 6, empty="no attacker banned"),
        Show("Ground truth", "Who attacks, and when: only the launcher knows.", (
            (attacked("> bool 0"), "{{attack}}"),
            (f"max by (peer) (btard_peer_byzantine{{{RUN}}})", "peer {{peer}} is Byzantine"),
        ), "states", names=YES_NO, label="peer"),
        Show("Precision and recall", "Attackers among the banned, and banned among the attackers.", (
            (f"run_id:btard_detection_precision:ratio{{{RUN}}}", "precision"),
            (f"run_id:btard_detection_recall:ratio{{{RUN}}}", "recall"),
        ), unit="percentunit", top=1.0, empty="no attacker or no ban is known"),
        Show("Banned peers", "Each once: when it was first seen, and why.", (
            (f"1000 * min by (peer, reason) (min_over_time(timestamp({BANS}){EACH}))", ""),
            (f"max by (peer, reason) (last_over_time({BANS}{SHOWN}))", ""),
            (f"max by (peer) (last_over_time(btard_time_to_ban_seconds{{{RUN}}}{SHOWN}))", ""),
            (f"max by (peer, attack) (last_over_time(btard_peer_byzantine{{{RUN}}}{SHOWN})) "
             f"and on (peer) last_over_time({BANS}{SHOWN})", ""),
        ), "table", width=24, height=6, columns=(
            Column("Value #A", "Seen", "dateTimeAsIso"), Column("peer", "Peer"),
            Column("attack", "Attack", names={"none": ("honest", "red")}), Column("reason", "Reason"),
            Column("Value #B", "Step"), Column("Value #C", "After its attack began", "s"), Column("Value #D", ""),
        ), empty="nobody was banned"),
    )),
    Row("What happened, and what is to be done?", "monitoring.md#runbook", (
        Show("Events", "Bans by peer and certified reason (evidence: RUN/nodes/N/evidence/), all others by kind.", (
            (_events(f"1000 * min by ({_OF_EVENTS}) (min_over_time(timestamp({HAPPENED}){EACH}))"), ""),
            (_events(f"max by ({_OF_EVENTS}) (last_over_time(({HAPPENED}){EACH}))"), ""),
        ), "table", width=24, columns=(
            Column("Value #A", "First seen", "dateTimeAsIso", width=170), Column("event", "Event", width=150),
            Column("peer", "Peer", width=60), Column("reason", "Reason", names=REASONS),
            Column("Value #B", "Times", width=70),
            Column("guide", "Explained in", names=EXPLAINED),
        ), empty="nothing so far"),
        Show("Alerts that fired", "By Prometheus's rules, in the time that is shown.", (
            (_alerted("min"), ""),
            (_alerted("max"), ""),
        ), "table", width=24, columns=(
            Column("Value #A", "From", "dateTimeAsIso", width=170),
            Column("Value #B", "Last", "dateTimeAsIso", width=170), Column("alertname", "Alert", width=190),
            Column("severity", "Severity", width=80, names={
                "critical": ("critical", "red"), "warning": ("warning", "orange"), "info": ("info", "blue"),
            }),
            Column("node", "Node", width=60), Column("peer", "Peer", width=60),
            Column("runbook", "What to do", names=_runbook()),
        ), empty="none"),
    )),
    Row("Is the network the bottleneck?", "monitoring.md#is-the-network-the-bottleneck", (
        TIME, WAITING, PROBES, REFUSED,
    ), folded=True),
    Row("Is a node sick?", "monitoring.md#is-a-node-sick", (
        Show("Nodes", "Whether Prometheus can read them; a banned one may go.", (
            (f'max by (node) (up{{job="btard", {NODES}}})', "node {{node}}"),
        ), "states", width=8, names={"0": ("DOWN", "red"), "1": ("UP", "green")}, label="node"),
        Show("Processor of each node", "Cores in use by its process.", (
            (f"sum by (node) (rate(process_cpu_seconds_total{{{NODES}}}[{RATE}]))", "node {{node}}"),
        ), unit=CORES, width=8, label="node"),
        Show("Memory of each node", "Of its process.", (
            (f"sum by (node) (process_resident_memory_bytes{{{NODES}}})", "node {{node}}"),
        ), unit="decbytes", width=8, label="node"),
    ), folded=True),
)  # fmt: skip

PROTOCOL = (
    Row("Who was accused, and what came of it?", "monitoring.md#who-lies", (
        Show("Accusations", "Charges that were judged, by kind and verdict; every node counts the same ones.", (
            (f"max by (kind, verdict) (btard_accusations_total{{{RUN}}}) > 0", "{{kind}}: {{verdict}}"),
        ), unit="count", empty="nobody was accused"),
        Show("Bans", "Certified bans by reason.", (
            (f"max by (reason) (btard_bans_total{{{RUN}}}) > 0", "{{reason}}"),
        ), unit="count", empty="nobody was banned"),
        Show("Validators", "Who was drawn to recompute another's gradient.", (
            (f"btard_validator{{{RUN}}}", "node {{node}}"),
        ), "states", names=YES_NO, label="node"),
        Show("Verifications", "Recomputed gradients a second, by verdict.", (
            (f"sum by (result) (rate(btard_verifications_total{{{RUN}}}[{RATE}]))", "{{result}}"),
        ), unit="ops"),
    )),
    Row("Where does a step's time go?", "monitoring.md#is-the-network-the-bottleneck", (
        Show("Phase durations", "How long phases took, all nodes and phases.", (
            (f"sum by (le) (rate(btard_phase_duration_seconds_bucket{{{RUN}}}[{RATE}]))", "{{le}}"),
        ), "heatmap", "s"),
        TIME,
        Show("Slow phases", "95th percentile over 30 s.", (
            (f"run_id_phase:btard_phase_duration_seconds:p95{{{RUN}}}", "{{phase}}"),
        ), unit="s"),
        Show("Step duration", "95th percentile of each node.", (
            (f"histogram_quantile(0.95, sum by (node, le) (rate(btard_step_duration_seconds_bucket{{{RUN}}}[{RATE}])))",
             "node {{node}}"),
        ), unit="s", label="node"),
    )),
    Row("What is rare, or is zero under most rules?", "monitoring.md#what-is-zero-in-most-runs", (
        Show("Disputes", "By outcome: the step stood, or was tried again.", (
            (f"max by (outcome) (btard_disputes_total{{{RUN}}})", "{{outcome}}"),
        ), unit="count"),
        Show("Steps undone", "Steps with gradients that were taken back because a banned peer's contributions to them "
             "were false (--undo).", (
            (f"max(btard_steps_undone_total{{{RUN}}})", "steps"),
        ), unit="count"),
        Show("False checksums", "Claims on their parts that aggregators found false.", (
            (f"sum by (node) (btard_checksum_mismatches_total{{{RUN}}})", "node {{node}}"),
        ), unit="count", label="node"),
        Show("CenteredClip", "Iterations of the last aggregation; other rules leave it at 0.", (
            (f"btard_centered_clip_iterations{{{RUN}}}", "node {{node}}"),
        ), unit="count", label="node"),
        Show("Coin tosses", "Rounds of the common randomness a second; void ones were tossed again.", (
            (f"max by (result) (rate(btard_mprng_rounds_total{{{RUN}}}[{RATE}]))", "{{result}}"),
        ), unit="ops"),
        Show("Late and repeated messages", "A second; harmless, and frequent in a dispute.", (
            (f"sum by (kind) (rate(btard_late_messages_total{{{RUN}}}[{RATE}]))", "late {{kind}}"),
            (f"sum by (kind) (rate(btard_duplicate_messages_total{{{RUN}}}[{RATE}]))", "repeated {{kind}}"),
        ), unit="ops"),
    ), folded=True),
)  # fmt: skip

NETWORK = (
    Row("Who sends how much to whom?", "benchmarks.md#what-a-step-costs", (
        Show("Traffic matrix", "Bytes sent so far: a row for each sender, a column for each receiver; the more, "
             "the bluer.", (
            (f"sum by (node, peer) (last_over_time(btard_sent_bytes_total{{{RUN}}}{SHOWN}))", ""),
        ), "matrix", "decbytes"),
        Show("Bytes against the formula", "What all nodes sent, by kind, and what BTARD's formula asks for as parts "
             "and aggregates: 2 d (n-1)/n floats a step and peer.", (
            (f"run_id_kind:btard_sent_bytes:sum{{{RUN}}}", "{{kind}}"),
            (f"btard_expected_bytes{{{RUN}}}", "formula: part + aggregate"),
        ), unit="decbytes"),
        Show("Rate by kind", "Sent by all nodes.", (
            (f"sum by (kind) (rate(btard_sent_bytes_total{{{RUN}}}[{RATE}]))", "{{kind}}"),
        ), "bars", "Bps"),
        Show("Received by node", "All kinds.", (
            (f"sum by (node) (rate(btard_received_bytes_total{{{RUN}}}[{RATE}]))", "node {{node}}"),
        ), unit="Bps", label="node"),
    )),
    Row("Is the network the bottleneck?", "monitoring.md#is-the-network-the-bottleneck", (
        WAITING, PROBES,
        Show("Round trips of TCP", "Smoothed by the kernel, the slowest peer of each node; modelled links lie above.", (
            (f"max by (node) (btard_peer_rtt_seconds{{{RUN}}})", "node {{node}}"),
        ), unit="s", width=8, label="node"),
        Show("Messages sent", "A second.", (
            (f"sum by (kind) (rate(btard_messages_sent_total{{{RUN}}}[{RATE}]))", "{{kind}}"),
        ), unit="ops", width=8),
        Show("Messages received", "A second.", (
            (f"sum by (kind) (rate(btard_messages_received_total{{{RUN}}}[{RATE}]))", "{{kind}}"),
        ), unit="ops", width=8),
    )),
    Row("What was refused, or broke (in most runs nothing)?", "monitoring.md#what-is-zero-in-most-runs", (
        REFUSED,
        Show("Reconnects", "Lines that broke and stood again.", (
            (f"sum by (node) (btard_reconnects_total{{{RUN}}})", "node {{node}}"),
        ), unit="count", width=6, label="node"),
        Show("Refused handshakes", "By reason.", (
            (f"sum by (reason) (btard_handshake_failures_total{{{RUN}}})", "{{reason}}"),
        ), unit="count", width=6),
    ), folded=True),
    Row("Do modelled links behave as asked (--delay, --loss, --bandwidth or --link give data)?", "faults.md#links", (
        Show("Requested and measured delay", "One way, mean over the peers of a node: what the link model asks for, "
             "and what messages were given.", (
            (f"avg by (node) (btard_emulated_delay_seconds{{{RUN}}})", "requested by {{node}}"),
            (f"avg by (node) (btard_measured_delay_seconds{{{RUN}}})", "measured at {{node}}"),
        ), unit="s", width=8, label="node"),
        Show("Requested and measured loss", "Share of transmissions, mean over the peers of a node; lost ones are "
             "repeated.", (
            (f"avg by (node) (btard_emulated_loss_ratio{{{RUN}}})", "requested by {{node}}"),
            (f"avg by (node) (btard_measured_loss_ratio{{{RUN}}})", "measured at {{node}}"),
        ), unit="percentunit", width=8, label="node"),
        Show("Requested and measured rate", "Of long messages on links that have a rate, mean over a node's peers.", (
            (f"avg by (node) (btard_emulated_rate_bytes_per_second{{{RUN}}})", "requested by {{node}}"),
            (f"avg by (node) (btard_measured_rate_bytes_per_second{{{RUN}}})", "measured at {{node}}"),
        ), unit="Bps", width=8, label="node"),
    ), folded=True),
)  # fmt: skip

NODE_PAGE = (
    Row("Is this node sick?", "monitoring.md#is-a-node-sick", (
        _stat("Reachable", "Whether Prometheus can read it.", READ, colors=((None, "red"), (1, "green")), names={
            "0": ("DOWN", "red"), "1": ("UP", "green"), "2": ("run over", "blue")}, empty="never read"),
        _stat("Standing", "What the others hold of it: the gravest of their views.", f"max(btard_peer_state{{{PEER}}})",
              names=STATES, empty="unknown"),
        _stat("Role", "Which only the launcher knows.", f"max(btard_peer_byzantine{{{PEER}}})",
              names={"0": ("honest", "text"), "1": ("attacker", "purple")}, empty="unknown"),
        _stat("Validator", "Whether it validates in the next step.", f"btard_validator{{{NODE}}}", names=YES_NO),
        _stat("Active peers", "In the roster it committed with.", f"btard_active_peers{{{NODE}}}", "count"),
        _stat("Step", "Its last committed step.", f"btard_step{{{NODE}}}", "count", names=NO_STEP),
        _stat("Accuracy", "On its slice of the test items.", f"btard_eval_accuracy_ratio{{{NODE}}}", "percentunit", 6,
              empty="not measured yet"),
        _stat("Loss", "Of its last mini-batch.", f"btard_train_loss{{{NODE}}}", width=6),
        _stat("Learning rate", "Of the last committed step.", f"btard_learning_rate{{{NODE}}}", width=6),
        _stat("Samples per second", "In gradients it contributed.", f"rate(btard_samples_total{{{NODE}}}[{RATE}])",
              "suffix:samples/s", 6),
    )),
    Row("What does it do?", "monitoring.md#is-a-node-sick", (
        Show("Peers as it sees them", "Its own view.", ((f"btard_peer_state{{{NODE}}}", "peer {{peer}}"),), "states",
             width=8, names=STATES, label="peer"),
        Show("Time in phases", "Seconds a second.", (
            (f"sum by (phase) (rate(btard_phase_duration_seconds_sum{{{NODE}}}[{RATE}]))", "{{phase}}"),
        ), "bars", "s", 8),
        Show("Step duration", "Median and 95th percentile.", (
            (f"histogram_quantile(0.5, {STEPS})", "median"),
            (f"histogram_quantile(0.95, {STEPS})", "95 %"),
        ), unit="s", width=8),
    )),
    Row("Whom does it talk to?", "monitoring.md#is-the-network-the-bottleneck", (
        Show("Sent", "To each peer.", (
            (f"sum by (peer) (rate(btard_sent_bytes_total{{{NODE}}}[{RATE}]))", "to {{peer}}"),
        ), unit="Bps", width=8, label="peer"),
        Show("Received", "From each peer.", (
            (f"sum by (peer) (rate(btard_received_bytes_total{{{NODE}}}[{RATE}]))", "from {{peer}}"),
        ), unit="Bps", width=8, label="peer"),
        Show("Round trips", "To each peer: of probes, modelled links included, and as TCP measures it below them.", (
            (f"btard_probe_rtt_seconds{{{NODE}}}", "probe to {{peer}}"),
            (f"btard_peer_rtt_seconds{{{NODE}}}", "TCP to {{peer}}"),
        ), unit="s", width=8, label="peer"),
    )),
    Row("What does it cost?", "monitoring.md#is-a-node-sick", (
        Show("Processor", "Cores in use by this process.", (
            (f"rate(process_cpu_seconds_total{{{NODE}}}[{RATE}])", "cores"),
        ), unit=CORES, width=8),
        Show("Memory", "Of this process.", (
            (f"process_resident_memory_bytes{{{NODE}}}", "resident"),
            (f"btard_gpu_memory_bytes{{{NODE}}}", "GPU {{type}}"),
        ), unit="decbytes", width=8),
        Show("Open files", "Sockets included.", (
            (f"process_open_fds{{{NODE}}}", "open"),
        ), unit="count", width=8),
    )),
    Row("What is it, and whose messages did it refuse?", "monitoring.md#what-is-zero-in-most-runs", (
        Show("What runs", "Versions of this worker.", (
            (f"last_over_time(btard_build_info{{{NODE}}}{SHOWN})", ""),
        ), "table", height=5),
        Show("The run", "What it was asked to be.", (
            (f"last_over_time(btard_run_info{{{NODE}}}{SHOWN})", ""),
        ), "table", height=5),
        Show("Refused messages", "So far, by whom and why.", (
            (f"sum by (peer, reason) (btard_dropped_messages_total{{{NODE}}})", "{{peer}}: {{reason}}"),
        ), unit="count", width=24, height=6, label="peer"),
    ), folded=True),
)  # fmt: skip

CONTENTS = {"overview": OVERVIEW, "protocol": PROTOCOL, "network": NETWORK, "node": NODE_PAGE}
