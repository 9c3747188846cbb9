"""What each dashboard shows."""

from __future__ import annotations

from dashboards.parts import STATES, YES_NO, Show, attacked

RUN = 'run_id="$run_id"'
COMPARED = 'run_id="$compare_run"'
NODE = 'run_id="$run_id", node="$node"'
RATE = "$__rate_interval"
STEPS = f"sum by (le) (rate(btard_step_duration_seconds_bucket{{{NODE}}}[{RATE}]))"


def _big(title: str, about: str, expression: str, unit: str = "short", width: int = 3) -> Show:
    return Show(title, about, ((expression, title),), "stat", unit, width, 4)


OVERVIEW = (
    _big("Test accuracy", "On all test items: the nodes' slices added up.", f"btard_run_accuracy_ratio{{{RUN}}}",
         "percentunit"),
    _big("Step", "The last that an honest node committed.", f"btard_run_step{{{RUN}}}"),
    _big("Steps per second", "Over the last 30 s.", f"run_id:btard_steps:rate30s{{{RUN}}}"),
    _big("Active peers", "Neither banned nor gone.", f"run_id:btard_peers_active:count{{{RUN}}}"),
    _big("Banned peers", "By certified verdicts.", f"run_id:btard_peers_banned:count{{{RUN}}}"),
    _big("Byzantine peers", "Which only the launcher knows.", f"run_id:btard_peers_byzantine:count{{{RUN}}}"),
    _big("Precision", "Attackers among the banned.", f"run_id:btard_detection_precision:ratio{{{RUN}}}", "percentunit"),
    _big("Recall", "Banned among the attackers.", f"run_id:btard_detection_recall:ratio{{{RUN}}}", "percentunit"),
    Show("Accuracy", "Of this run, and where the run to compare with ended, for example one without an attack.", (
        (f"btard_run_accuracy_ratio{{{RUN}}}", "this run"),
        (f"btard_final_accuracy_ratio{{{RUN}}}", "final parameters"),
        (f"max(last_over_time(btard_run_accuracy_ratio{{{COMPARED}}}[30d]))", "end of $compare_run"),
    ), unit="percentunit"),
    Show("Training loss", "Mean over the nodes of their last mini-batch's loss, and where the other run ended.", (
        (f"run_id:btard_train_loss:avg{{{RUN}}}", "this run"),
        (f"max(last_over_time(run_id:btard_train_loss:avg{{{COMPARED}}}[30d]))", "end of $compare_run"),
    )),
    Show("Peers", "What the nodes hold of each peer: the gravest of their views.", (
        (f"max by (peer) (btard_peer_state{{{RUN}}})", "peer {{peer}}"),
    ), "states", names=STATES, label="peer"),
    Show("Ground truth", "Who attacks, and when: only the launcher knows.", (
        (attacked("> bool 0"), "{{attack}}"),
        (f"max by (peer) (btard_peer_byzantine{{{RUN}}})", "peer {{peer}} is Byzantine"),
    ), "states", names=YES_NO, label="peer"),
    Show("Alerts", "Those that wait or fire, by Prometheus's rules.", (
        (f"max by (alertname, severity, alertstate) (ALERTS{{{RUN}}})", "{{alertname}} ({{alertstate}})"),
    ), "states", names={"1": ("on", "red")}),
    Show("Events", "Of the run as a whole, as the launcher counts them.", (
        (f"max by (event) (btard_scenario_event_total{{{RUN}}})", "{{event}}"),
    )),
)  # fmt: skip

PROTOCOL = (
    Show("Phase durations", "How long phases took, all nodes and phases.", (
        (f"sum by (le) (rate(btard_phase_duration_seconds_bucket{{{RUN}}}[{RATE}]))", "{{le}}"),
    ), "heatmap", "s"),
    Show("Where a step's time goes", "Seconds in each phase per step, mean over the nodes.", (
        (f"sum by (phase) (rate(btard_phase_duration_seconds_sum{{{RUN}}}[{RATE}])) / on () group_left () "
         f"sum(rate(btard_step_duration_seconds_count{{{RUN}}}[{RATE}]))", "{{phase}}"),
    ), "bars", "s"),
    Show("Slow phases", "95th percentile over 30 s.", (
        (f"run_id_phase:btard_phase_duration_seconds:p95{{{RUN}}}", "{{phase}}"),
    ), unit="s"),
    Show("Step duration", "95th percentile of each node.", (
        (f"histogram_quantile(0.95, sum by (node, le) (rate(btard_step_duration_seconds_bucket{{{RUN}}}[{RATE}])))",
         "node {{node}}"),
    ), unit="s", label="node"),
    Show("Accusations", "Charges that were judged, by kind and verdict; every node counts the same ones.", (
        (f"max by (kind, verdict) (btard_accusations_total{{{RUN}}}) > 0", "{{kind}}: {{verdict}}"),
    )),
    Show("Bans", "Certified bans by reason.", ((f"max by (reason) (btard_bans_total{{{RUN}}}) > 0", "{{reason}}"),)),
    Show("Time to ban", "From the start of a peer's attack to its ban.", (
        (f"max by (peer) (btard_time_to_ban_seconds{{{RUN}}})", "peer {{peer}}"),
    ), "stat", "s", 6, label="peer"),
    Show("Step of the ban", "And its reason.", (
        (f"max by (peer, reason) (btard_peer_banned_step{{{RUN}}})", "peer {{peer}}: {{reason}}"),
    ), "stat", width=6, label="peer"),
    Show("Validators", "Who was drawn to recompute another's gradient.", (
        (f"btard_validator{{{RUN}}}", "node {{node}}"),
    ), "states", names=YES_NO, label="node"),
    Show("Verifications", "Recomputed gradients a second, by verdict.", (
        (f"sum by (result) (rate(btard_verifications_total{{{RUN}}}[{RATE}]))", "{{result}}"),
    ), unit="ops"),
    Show("False checksums", "Claims on their parts that aggregators found false.", (
        (f"sum by (node) (btard_checksum_mismatches_total{{{RUN}}})", "node {{node}}"),
    ), label="node"),
    Show("Coin tosses", "Rounds of the common randomness a second; void ones were tossed again.", (
        (f"max by (result) (rate(btard_mprng_rounds_total{{{RUN}}}[{RATE}]))", "{{result}}"),
    ), unit="ops"),
    Show("CenteredClip", "Iterations of the last aggregation; other rules leave it at 0.", (
        (f"btard_centered_clip_iterations{{{RUN}}}", "node {{node}}"),
    ), label="node"),
    Show("Disputes", "By outcome: the step stood, or was tried again.", (
        (f"max by (outcome) (btard_disputes_total{{{RUN}}})", "{{outcome}}"),
    )),
    Show("Steps undone", "Steps with gradients that were taken back because a banned peer's contributions to them were "
         "false (--undo).", (
        (f"max(btard_steps_undone_total{{{RUN}}})", "steps"),
    )),
    Show("Late and repeated messages", "A second; harmless, and frequent in a dispute.", (
        (f"sum by (kind) (rate(btard_late_messages_total{{{RUN}}}[{RATE}]))", "late {{kind}}"),
        (f"sum by (kind) (rate(btard_duplicate_messages_total{{{RUN}}}[{RATE}]))", "repeated {{kind}}"),
    ), unit="ops"),
)  # fmt: skip

NETWORK = (
    Show("Traffic matrix", "Bytes sent so far: a row for each sender, a column for each receiver.", (
        (f"sum by (node, peer) (btard_sent_bytes_total{{{RUN}}})", ""),
    ), "matrix", "decbytes"),
    Show("Bytes against the formula", "What all nodes sent, by kind, and what BTARD's formula asks for as parts and "
         "aggregates: 2 d (n-1)/n floats a step and peer.", (
        (f"run_id_kind:btard_sent_bytes:sum{{{RUN}}}", "{{kind}}"),
        (f"btard_expected_bytes{{{RUN}}}", "formula: part + aggregate"),
    ), unit="decbytes"),
    Show("Rate by kind", "Sent by all nodes.", (
        (f"sum by (kind) (rate(btard_sent_bytes_total{{{RUN}}}[{RATE}]))", "{{kind}}"),
    ), "bars", "Bps"),
    Show("Received by node", "All kinds.", (
        (f"sum by (node) (rate(btard_received_bytes_total{{{RUN}}}[{RATE}]))", "node {{node}}"),
    ), unit="Bps", label="node"),
    Show("Messages sent", "A second.", (
        (f"sum by (kind) (rate(btard_messages_sent_total{{{RUN}}}[{RATE}]))", "{{kind}}"),
    ), unit="ops"),
    Show("Messages received", "A second.", (
        (f"sum by (kind) (rate(btard_messages_received_total{{{RUN}}}[{RATE}]))", "{{kind}}"),
    ), unit="ops"),
    Show("Round trips of TCP", "Smoothed by the kernel, the slowest peer of each node; modelled links lie above.", (
        (f"max by (node) (btard_peer_rtt_seconds{{{RUN}}})", "node {{node}}"),
    ), unit="s", label="node"),
    Show("Round trips of probes", "The slowest peer of each node, modelled links included.", (
        (f"max by (node) (btard_probe_rtt_seconds{{{RUN}}})", "node {{node}}"),
    ), unit="s", label="node"),
    Show("Requested and measured delay", "One way, mean over the peers of a node: what the link model asks for, and "
         "what messages were given.", (
        (f"avg by (node) (btard_emulated_delay_seconds{{{RUN}}})", "requested by {{node}}"),
        (f"avg by (node) (btard_measured_delay_seconds{{{RUN}}})", "measured at {{node}}"),
    ), unit="s", label="node"),
    Show("Requested and measured loss", "Share of transmissions, mean over the peers of a node; lost ones are "
         "repeated.", (
        (f"avg by (node) (btard_emulated_loss_ratio{{{RUN}}})", "requested by {{node}}"),
        (f"avg by (node) (btard_measured_loss_ratio{{{RUN}}})", "measured at {{node}}"),
    ), unit="percentunit", label="node"),
    Show("Requested and measured rate", "Of long messages on links that have a rate, mean over the peers of a node.", (
        (f"avg by (node) (btard_emulated_rate_bytes_per_second{{{RUN}}})", "requested by {{node}}"),
        (f"avg by (node) (btard_measured_rate_bytes_per_second{{{RUN}}})", "measured at {{node}}"),
    ), unit="Bps", label="node"),
    Show("Bytes that wait", "In the kernel, not yet confirmed by the peer; the longest queue of each node.", (
        (f"max by (node) (btard_send_queue_bytes{{{RUN}}})", "node {{node}}"),
    ), unit="decbytes", label="node"),
    Show("Refused messages", "A second, by reason: full queues, credits, and what fits no rule.", (
        (f"sum by (reason) (rate(btard_dropped_messages_total{{{RUN}}}[{RATE}]))", "{{reason}}"),
    ), unit="ops"),
    Show("Reconnects", "Lines that broke and stood again.", (
        (f"sum by (node) (btard_reconnects_total{{{RUN}}})", "node {{node}}"),
    ), label="node"),
    Show("Refused handshakes", "By reason.", (
        (f"sum by (reason) (btard_handshake_failures_total{{{RUN}}})", "{{reason}}"),
    )),
)  # fmt: skip

NODE_PAGE = (
    _big("Scraped", "1 while Prometheus reaches it.", f'up{{job="btard", {NODE}}}'),
    _big("Step", "Its last committed step.", f"btard_step{{{NODE}}}"),
    _big("Accuracy", "On its slice of the test items.", f"btard_eval_accuracy_ratio{{{NODE}}}", "percentunit"),
    _big("Loss", "Of its last mini-batch.", f"btard_train_loss{{{NODE}}}"),
    _big("Learning rate", "Of the last committed step.", f"btard_learning_rate{{{NODE}}}"),
    _big("Samples per second", "In gradients it contributed.", f"rate(btard_samples_total{{{NODE}}}[{RATE}])"),
    _big("Active peers", "In the roster it committed with.", f"btard_active_peers{{{NODE}}}"),
    _big("Validator", "1: it validates in the next step.", f"btard_validator{{{NODE}}}"),
    Show("Peers as it sees them", "Its own view.", ((f"btard_peer_state{{{NODE}}}", "peer {{peer}}"),), "states",
         names=STATES, label="peer"),
    Show("Time in phases", "Seconds a second.", (
        (f"sum by (phase) (rate(btard_phase_duration_seconds_sum{{{NODE}}}[{RATE}]))", "{{phase}}"),
    ), "bars", "s"),
    Show("Step duration", "Median and 95th percentile.", (
        (f"histogram_quantile(0.5, {STEPS})", "median"),
        (f"histogram_quantile(0.95, {STEPS})", "95 %"),
    ), unit="s"),
    Show("Sent", "To each peer.", (
        (f"sum by (peer) (rate(btard_sent_bytes_total{{{NODE}}}[{RATE}]))", "to {{peer}}"),
    ), unit="Bps", label="peer"),
    Show("Received", "From each peer.", (
        (f"sum by (peer) (rate(btard_received_bytes_total{{{NODE}}}[{RATE}]))", "from {{peer}}"),
    ), unit="Bps", label="peer"),
    Show("Round trips", "To each peer: of probes, modelled links included, and as TCP measures it below them.", (
        (f"btard_probe_rtt_seconds{{{NODE}}}", "probe to {{peer}}"),
        (f"btard_peer_rtt_seconds{{{NODE}}}", "TCP to {{peer}}"),
    ), unit="s", label="peer"),
    Show("Refused messages", "So far, by whom and why.", (
        (f"sum by (peer, reason) (btard_dropped_messages_total{{{NODE}}})", "{{peer}}: {{reason}}"),
    ), label="peer"),
    Show("Processor", "Cores in use by this process.", (
        (f"rate(process_cpu_seconds_total{{{NODE}}}[{RATE}])", "cores"),
    )),
    Show("Memory", "Of this process.", (
        (f"process_resident_memory_bytes{{{NODE}}}", "resident"),
        (f"btard_gpu_memory_bytes{{{NODE}}}", "GPU {{type}}"),
    ), unit="decbytes"),
    Show("Open files", "Sockets included.", ((f"process_open_fds{{{NODE}}}", "open"),)),
    Show("What runs", "Versions of this worker.", ((f"btard_build_info{{{NODE}}}", ""),), "table", height=5),
    Show("The run", "What it was asked to be.", ((f"btard_run_info{{{NODE}}}", ""),), "table", height=5),
)  # fmt: skip

CONTENTS = {"overview": OVERVIEW, "protocol": PROTOCOL, "network": NETWORK, "node": NODE_PAGE}
