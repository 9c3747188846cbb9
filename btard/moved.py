"""Import names of version 0.1: in a clone they lead to the module of today, with a warning; elsewhere they are named.
So are modules that have been joined since (docs/adr/0065-a-module-is-a-concept.md).

`node` and `launcher` are names that other programs have too: a wheel installs `btard` alone.
"""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

OLD = ("node", "launcher")
"""What the packages were called."""

# A folder stands for all in it that is not listed itself.
MODULES = dict(
    line.split()
    for line in [
        "",
        "node.attacks node.adversary.attacks",
        "launcher.cleaning launcher.run.cleaning",
        "launcher.cli launcher.cli.main",
        "launcher.closing launcher.cli.ending",
        "launcher.cluster launcher.run.cluster",
        "launcher.conditions launcher.network.conditions",
        "launcher.control launcher.run.control",
        "launcher.data launcher.run.data",
        "launcher.doctor launcher.cli.doctor",
        "launcher.ending launcher.run.exit_report",
        "launcher.expectations launcher.run.expectations",
        "launcher.experiment launcher.run.experiment",
        "launcher.exporter launcher.monitor.prometheus_session",
        "launcher.flags launcher.cli.flags",
        "launcher.grafana launcher.monitor.grafana",
        "launcher.initial launcher.run.initial_parameters",
        "launcher.interrupts launcher.run.interrupts",
        "launcher.journals launcher.monitor.watch",
        "launcher.links launcher.options.syntax",
        "launcher.listing launcher.cli.commands",
        "launcher.monitor launcher.monitor.live_view",
        "launcher.options launcher.options.table",
        "launcher.oversight launcher.cli.commands",
        "launcher.pace launcher.run.summary",
        "launcher.pages launcher.cli.commands",
        "launcher.plan launcher.run.plan",
        "launcher.play launcher.run.cluster",
        "launcher.plugins launcher.run.plugin_trial",
        "launcher.prometheus launcher.monitor.prometheus_session",
        "launcher.removals launcher.run.removals",
        "launcher.resume launcher.run.resume",
        "launcher.roles launcher.run.roles",
        "launcher.rundir launcher.run.run_directory",
        "launcher.scanner launcher.run.scenario",
        "launcher.scenario launcher.run.scenario",
        "launcher.scoring launcher.run.scoring",
        "launcher.settings launcher.options.sources",
        "launcher.shaping launcher.network.shaping",
        "launcher.state launcher.monitor.state",
        "launcher.station launcher.monitor.prometheus_session",
        "launcher.story launcher.verify.explanation",
        "launcher.studies launcher.cli.commands",
        "launcher.summary launcher.run.summary",
        "launcher.syntax launcher.options.syntax",
        "launcher.table launcher.monitor.summary_table",
        "launcher.traffic launcher.network.traffic",
        "launcher.truth launcher.monitor.ground_truth",
        "launcher.undo launcher.run.undo_window",
        "launcher.verification launcher.verify.verification",
        "launcher.watch launcher.monitor.watch",
        "launcher.weather launcher.monitor.summary_table",
        "node.adversary node.adversary.adversary",
        "node.aggregation.built node.aggregation.factory",
        "node.aggregation.requirement node.aggregation.resilience",
        "node.arrivals node.transport.arrivals",
        "node.attacks.behaviour node.adversary.behaviour",
        "node.attacks.registry node.adversary.registry",
        "node.attacks.view node.adversary.view",
        "node.audit node.verify.audit",
        "node.board node.metrics.registry",
        "node.channels node.transport.channels",
        "node.checkpoint node.storage.checkpoint",
        "node.comparison node.baselines.comparison",
        "node.computing node.drivers.computing",
        "node.conditions node.netem.conditions",
        "node.counters node.transport.counters",
        "node.descriptors node.transport.descriptors",
        "node.direction node.drivers.scheduler",
        "node.disk node.storage.disk",
        "node.driver node.drivers.realtime",
        "node.drivers.shared_cache node.drivers.simulator",
        "node.drivers.simulation_control node.drivers.simulator",
        "node.drivers.stats node.drivers.simulator",
        "node.emulation node.netem.emulated_transport",
        "node.envelope node.transport.envelope",
        "node.exposition node.metrics.http",
        "node.extensions node.plugins.extensions",
        "node.finals node.verify.final_parameters",
        "node.folder node.storage.checkpointer",
        "node.guard node.transport.slow_sender_guard",
        "node.health node.metrics.healthcheck",
        "node.journal node.storage.journal",
        "node.keeper node.storage.checkpointer",
        "node.keeping node.storage.durability",
        "node.kernels.memory node.kernels",
        "node.keys node.crypto.keys",
        "node.ledger node.storage.wal",
        "node.lines node.transport.connection_monitor",
        "node.links node.netem.links",
        "node.linkwatch node.netem.link_observer",
        "node.liveness node.storage.process_lock",
        "node.memory node.drivers.simulator",
        "node.mesh node.drivers.bootstrap",
        "node.meter node.metrics.worker_metrics",
        "node.metrics node.metrics.declarations",
        "node.monitoring node.metrics.monitoring",
        "node.network node.netem.network",
        "node.plugin_check node.plugins.check",
        "node.protocol.adjudication.accusations node.protocol.adjudication.judging",
        "node.protocol.adjudication.case node.protocol.adjudication.judging",
        "node.protocol.adjudication.omission node.protocol.adjudication.charges",
        "node.protocol.adjudication.verdict node.protocol.adjudication.judging",
        "node.protocol.api.events node.protocol.api",
        "node.protocol.api.notices node.protocol.api",
        "node.protocol.arbitration node.protocol.disputes.dispute",
        "node.protocol.attempt node.protocol.attempt.attempt",
        "node.protocol.attempt.compose node.protocol.attempt.phases",
        "node.protocol.attempt.holdings node.protocol.attempt.transfers",
        "node.protocol.attempt.lateness node.protocol.attempt.deadlines",
        "node.protocol.attempt.measured_bounds node.protocol.attempt.deadlines",
        "node.protocol.attempt.partition node.protocol.attempt.attempt",
        "node.protocol.attempt.timers node.protocol.attempt.deadlines",
        "node.protocol.attempt.transcript node.protocol.attempt.attempt",
        "node.protocol.attempt.validators node.protocol.attempt.verification",
        "node.protocol.before node.protocol.disputes.previous_attempt",
        "node.protocol.bounds node.protocol.wire.messages",
        "node.protocol.bulk node.protocol.wire.messages",
        "node.protocol.candidate node.protocol.state_sync.client",
        "node.protocol.cargo node.protocol.attempt.transfers",
        "node.protocol.certificate node.protocol.wire.certificate",
        "node.protocol.charges node.protocol.adjudication.charges",
        "node.protocol.checksums node.protocol.attempt.verification",
        "node.protocol.deadlines node.protocol.attempt.deadlines",
        "node.protocol.digest node.protocol.wire.encoding",
        "node.protocol.dispute node.protocol.disputes.dolev_strong",
        "node.protocol.disputes.router node.protocol.router",
        "node.protocol.disputing node.protocol.router",
        "node.protocol.edges node.protocol.adjudication.complaints",
        "node.protocol.encoding node.protocol.wire.encoding",
        "node.protocol.events node.protocol.api",
        "node.protocol.evidence node.protocol.evidence.format",
        "node.protocol.evidence.replay node.protocol.evidence.verifier",
        "node.protocol.gradients node.protocol.attempt.gradient_requests",
        "node.protocol.greeting node.protocol.attempt.handshake",
        "node.protocol.hearing node.protocol.attempt.round",
        "node.protocol.indictment node.protocol.adjudication.judging",
        "node.protocol.lateness node.protocol.attempt.deadlines",
        "node.protocol.lesson node.protocol.state_sync.messages",
        "node.protocol.mailroom node.protocol.router",
        "node.protocol.measures node.protocol.attempt.deadlines",
        "node.protocol.messages node.protocol.wire.messages",
        "node.protocol.notices node.protocol.api",
        "node.protocol.offences node.protocol.adjudication.offences",
        "node.protocol.outcome node.protocol.attempt.round",
        "node.protocol.parts node.protocol.attempt.attempt",
        "node.protocol.porch node.protocol.state_sync.server",
        "node.protocol.probation node.protocol.state_sync.probation",
        "node.protocol.proof node.protocol.evidence.verifier",
        "node.protocol.randomness node.protocol.attempt.mprng",
        "node.protocol.replay node.protocol.evidence.verifier",
        "node.protocol.resumption node.protocol.state.state",
        "node.protocol.round node.protocol.attempt.round",
        "node.protocol.saying node.protocol.attempt.phases",
        "node.protocol.seat node.protocol.peer_state",
        "node.protocol.sequence node.protocol.attempt.phases",
        "node.protocol.settling node.protocol.attempt.lifecycle",
        "node.protocol.shapes node.protocol.attempt.phases",
        "node.protocol.silence node.protocol.adjudication.charges",
        "node.protocol.state node.protocol.state.state",
        "node.protocol.state.rollback node.protocol.state.transition",
        "node.protocol.state.undo_window node.protocol.state.state",
        "node.protocol.testimony node.protocol.evidence.explanation",
        "node.protocol.transcript node.protocol.attempt.attempt",
        "node.protocol.trial node.protocol.adjudication.judging",
        "node.protocol.tribunal node.protocol.adjudication.judging",
        "node.protocol.undo node.protocol.state.transition",
        "node.protocol.union node.protocol.disputes.resolution",
        "node.protocol.update node.protocol.state.transition",
        "node.protocol.validators node.protocol.attempt.verification",
        "node.protocol.waits node.protocol.attempt.deadlines",
        "node.protocol.window node.protocol.state.state",
        "node.protocol.wire.admission node.protocol.router",
        "node.protocol.wire.bulk node.protocol.wire.messages",
        "node.protocol.wire.digest node.protocol.wire.encoding",
        "node.protocol.wire.size_limits node.protocol.wire.messages",
        "node.protocol.wire.validation node.protocol.attempt.phases",
        "node.quota node.transport.flow_control",
        "node.readings node.metrics.collectors",
        "node.recorder node.storage.recorder",
        "node.records node.storage.records",
        "node.recovery node.storage.recovery",
        "node.registry node.plugins.registry",
        "node.roundtrips node.transport.rtt_probes",
        "node.shelf node.storage.state_codec",
        "node.storage.retention node.storage.checkpointer",
        "node.signing node.crypto.signing",
        "node.simulated node.drivers.simulated_cluster",
        "node.simulator node.drivers.simulator",
        "node.sockets node.transport.sockets",
        "node.stage node.drivers.simulator",
        "node.tokens node.transport.bulk_tokens",
        "node.topologies node.baselines.topologies",
        "node.totals node.drivers.simulator",
        "node.transport node.transport.transport",
        "node.wire node.transport.framing",
        "",
    ]
    if line
)


def name_of(old: str) -> str:
    """Today's name of a module of version 0.1, whether or not there was one: `btard.`, and where it moved to."""
    if old == "launcher":
        return "btard"  # `from launcher import Experiment, run`
    package, _, module = old.rpartition(".")
    moved = MODULES.get(old) or (f"{MODULES[package]}.{module}" if package in MODULES else old)
    return f"btard.{moved}"


def advice(error: BaseException, line: str = "") -> str:
    """What to write in the place of an old name that could not be imported; empty for any other error.

    Args:
        line: the line of the program that imports it; an error alone names the package at most.
    """
    missing = (error.name or "") if isinstance(error, ModuleNotFoundError) else ""
    if within := re.match(r"cannot import name '(\w+)' from '(btard\.[\w.]+)'", str(error)):
        missing = f"{within[2]}.{within[1]}"
    if (joined := missing.removeprefix("btard.")) != missing:
        return f"; {missing} is btard.{MODULES[joined]} now" if joined in MODULES else ""
    package = missing.partition(".")[0]
    if package not in OLD:
        return ""
    found = re.search(rf"\b{package}(\.\w+)*", line)
    old = found[0] if found else missing
    return f"; since version 0.2 {old} is {name_of(old)}"


class _Alias(Loader):
    """Loads an old name as the module of today."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = import_module(name_of(spec.name))
        self._own = module.__spec__  # importing writes the old name over it
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._own


class _OldNames(MetaPathFinder):
    """Finds the modules below an old name."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] not in OLD or "." not in name:
            return None
        warnings.warn(f"{name} is {name_of(name)}", FutureWarning, stacklevel=2)
        return ModuleSpec(name, _Alias())


def alias(old: str) -> None:
    """Make a package's old name lead to what is there today; called by the package itself when it is imported so."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.insert(0, _OldNames())
    warnings.warn(f"{old} is {name_of(old)}; `import btard`", FutureWarning, stacklevel=3)
    sys.modules[old] = import_module(name_of(old))
