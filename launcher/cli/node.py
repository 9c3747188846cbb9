"""`btard-node`: one peer of a run that several owners make together, from its keys to its last step.

Nobody makes another one's key, and nobody is trusted to have put the run together: `assemble` is a pure function of a
run's file and of signed proposals, and a worker takes no step before every member has signed the result.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
import msgspec

from btard.launcher import exits, wrap
from btard.launcher.cli import entry
from btard.launcher.files import as_json
from btard.node.config import Endpoint, RunConfig
from btard.node.errors import ConfigError
from btard.node.genesis import identity
from btard.node.genesis.application import APPLICATION_FILE_BYTES, decode_application
from btard.node.genesis.files import read, write
from btard.node.genesis.genesis import GENESIS_BYTES, Genesis, assemble, decode_genesis, genesis_roster
from btard.node.genesis.identity import Identity
from btard.node.genesis.proposal import PROPOSAL_BYTES, decode_proposal, endpoint

if TYPE_CHECKING:
    from btard.launcher.options.sources import Settings
    from btard.launcher.run.experiment import Experiment

_PATH = click.Path(path_type=Path)
_BESIDE = ("seed", "delivery_bound", "gradient_bound", "measure_bounds", "arithmetic", "data_dir")
_OF_RUN = frozenset((*RunConfig.__struct_fields__, *_BESIDE)) - {"topology", "init"}
"""Options that make a run's configuration; the others are a launcher's, or each peer's own."""

_directory = click.argument("directory", metavar="DIR", type=_PATH)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """One peer of a run that several owners make together.

    In this order: init and propose (each owner), assemble (anybody), approve and run (each owner). Later, where the
    roster is not closed: init and apply (a newcomer), sponsor (a member), run (the newcomer).
    """


@cli.command(short_help="Make the keys of a peer.")
@_directory
def init(directory: Path) -> None:
    """Make the keys of a peer in DIR, and print their public half.

    The secret half never leaves DIR/secrets.json, which its owner alone can read.
    """
    member = identity.create(directory)
    _print({"signing_key": member.signing_key, "transport_key": member.transport_key})


@cli.command(short_help="Print a signed proposal of a peer.")
@_directory
@click.option("--address", metavar="URL[,URL]", required=True, help="where others reach it: one port, or two")
def propose(directory: Path, address: str) -> None:
    """Print a proposal: public keys and address of the peer in DIR, signed by itself. It is for everybody to see.

    One port, tcp://HOST:PORT, is for all. A second one, after a comma, is for tensors, which are then encrypted only if
    the run's options say so: that takes less of a processor.
    """
    _print(Identity.load(directory).propose(endpoint(address, "--address")))


@cli.command("assemble", short_help="Print the genesis of a run among the owners of proposals.")
@click.argument("run_file", metavar="RUN.TOML", type=_PATH)
@click.argument("proposals", metavar="PROPOSAL...", nargs=-1, required=True, type=_PATH)
@click.option("--name", metavar="NAME", help="of the run [a digest of its configuration and members]")
def assemble_genesis(run_file: Path, proposals: Sequence[Path], name: str | None) -> None:
    """Print the genesis of a run: the configuration in RUN.TOML, as `btard-launch --config` reads it, and the owners of
    the proposals. Anybody can do it, and comes to the same.
    """
    read_in = {str(path): decode_proposal(content(path, PROPOSAL_BYTES), str(path)) for path in proposals}
    print_genesis(assemble(run_of(run_file), read_in, name))


@cli.command(short_help="Sign a genesis, and print the approval.")
@_directory
@click.argument("genesis_file", metavar="GENESIS.JSON", type=_PATH)
@click.option("--yes", is_flag=True, help="do not ask")
@click.option(
    "--only-if",
    "run_file",
    metavar="RUN.TOML",
    type=_PATH,
    help="do not ask: sign if it has this file's options, and this peer as last proposed",
)
def approve(directory: Path, genesis_file: Path, yes: bool, run_file: Path | None) -> None:
    """Show what a genesis says, sign it with the key in DIR, and print the approval, which is for everybody to see.

    An identity approves one run only: two runs with one identity would toss the same secret coins.
    """
    owner, genesis = Identity.load(directory), _genesis(genesis_file)
    me = owner.place(genesis, str(genesis_file))
    for line in _shown(owner, genesis, me):
        wrap.echo(line, 8, err=True)
    if run_file is not None:
        _check_wanted(owner, genesis, me, run_file)
    elif not yes and not click.confirm("sign it?", err=True):
        wrap.echo("nothing was signed", err=True)
        raise SystemExit(exits.FAILED)
    _print(owner.approve(genesis, str(genesis_file)))


@cli.command("apply", short_help="Ask to be let into a run that goes on.")
@_directory
@click.argument("genesis_file", metavar="GENESIS.JSON", type=_PATH)
@click.option("--address", metavar="URL[,URL]", required=True, help="where others reach it: one port, or two")
@click.option("--id", "peer", metavar="ID", type=int, help="the free id to ask for [one that follows from the key]")
@click.option("--again", is_flag=True, help="the probation has lapsed: apply once more with the same key")
def apply_to(directory: Path, genesis_file: Path, address: str, peer: int | None, again: bool) -> None:
    """Print an application of the identity in DIR to a run whose roster is sponsored or open. It is for everybody to
    see: hand it to a member's owner, for `btard-node sponsor`. `btard-node run DIR` then waits to be let in.
    """
    genesis = _genesis(genesis_file)
    owner = Identity.load(directory)
    _print(owner.apply(genesis, str(genesis_file), endpoint(address, "--address"), peer, again))


@cli.command(short_help="Have a newcomer introduced by this member.")
@_directory
@click.argument("application", metavar="APPLICATION", type=_PATH)
def sponsor(directory: Path, application: Path) -> None:
    """Hand an application to the worker of the member in DIR, which introduces it when it is drawn; print it, since
    other members may introduce it as well.

    Where the roster is sponsored, a founder vouches for the key by this, for one key in a run.
    """
    file = decode_application(content(application, APPLICATION_FILE_BYTES), str(application))
    _print(Identity.load(directory).sponsor(file, str(application)))


@cli.command("run", short_help="Take part in the run that was approved.")
@_directory
@click.argument("approvals", metavar="[APPROVAL]...", nargs=-1, type=_PATH)
@click.option("--genesis", "genesis_file", metavar="FILE", type=_PATH, help="the genesis [the one approved, in DIR]")
@click.option(
    "--listen", metavar="URL[,URL]", help="what to bind [all of this host's addresses, at the ports proposed]"
)
@click.option("--wait", metavar="TIME", default="180s", show_default=True, help="longest wait for the other peers")
@click.option("--grace", metavar="TIME", default="60s", show_default=True, help="how much of it for the last f of them")
@click.option("--data-dir", metavar="DIR", help="where data sets lie [~/.cache/btard/data]")
@click.option(
    "--import", "imports", metavar="FILE.py", multiple=True, type=_PATH, help="file that the run was made with"
)
@click.option("--http", metavar="HOST:PORT", help="serve /metrics and this peer's public files, /files, there")
@click.option(
    "--evaluate",
    type=click.Choice(["slice", "whole"]),
    default="slice",
    show_default=True,
    help="of the test set, at each evaluation: this peer's share, or all of it",
)
@click.option(
    "--gpu-share",
    "cuda_memory_fraction",
    metavar="SHARE",
    type=click.FloatRange(0, 1, min_open=True),
    envvar="BTARD_GPU_SHARE",
    help="of a GPU's memory that this peer may take, where it shares one [all that it sees]",
)
@click.option("--stay", is_flag=True, help="after the end, answer and serve until SIGTERM")
@click.option("--attack", metavar="ATTACK", help="to try the others out: this peer attacks, e.g. noise:start=20")
def run_peer(
    directory: Path,
    approvals: tuple[Path, ...],
    genesis_file: Path | None,
    listen: str | None,
    wait: str,
    grace: str,
    data_dir: str | None,
    imports: Sequence[Path],
    attack: str | None,
    **chosen: Any,
) -> int:
    """Take part in a run, from the start or where this peer left off; exit code 0 once it has finished, and at once
    where it had.

    No step is taken before all members' approvals are here: those in files named, those of an earlier start, and those
    that the others bring.
    """
    from btard.launcher.options import syntax
    from btard.launcher.run import data, roles
    from btard.node import __main__ as worker

    owner = Identity.load(directory)
    name = genesis_file or directory / identity.GENESIS
    genesis = _genesis(name)
    applied = owner.newcomer(genesis, str(name))
    peer = owner.place(genesis, str(name)) if applied is None else applied
    lacking = owner.gather(genesis, approvals) if applied is None else frozenset[int]()
    write(directory / identity.GENESIS, genesis)  # of the same digest; addresses may be newer
    if lacking:
        named = ", ".join(f"peer {each}" for each in sorted(lacking))
        wrap.echo(f"approvals to come from {len(lacking)} of {genesis.run.peers}: {named}", err=True)
    config = owner.config(
        genesis,
        peer,
        endpoint(listen, "--listen") if listen is not None else _everywhere(owner.address(genesis, peer)),
        data.directory(data_dir or os.environ.get("BTARD_DATA_DIR")),
    )
    http = chosen.pop("http")
    chosen |= {"metrics": http, "files": http is not None, "imports": tuple(str(path.absolute()) for path in imports)}
    chosen |= {"wait_s": syntax.seconds(wait), "grace_s": syntax.seconds(grace)}
    if attack is not None:
        from btard.node.plugins import extensions

        extensions.load(imports)
        chosen["role"] = roles.alone(peer, attack, genesis.run.steps)
    return worker.run(msgspec.structs.replace(config, **chosen))


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of `btard-node`."""
    from btard.node.__main__ import leave

    entry.call(cli, "btard-node", arguments, interrupted="nothing was signed", leave=leave)


def print_genesis(genesis: Genesis) -> None:
    """Print a genesis to stdout, and to people what it is."""
    _print(genesis)
    wrap.echo(f"run {genesis.run_id} of {genesis.run.peers} peers, genesis {genesis.digest}", err=True)


def _print(value: object) -> None:
    click.echo(as_json(value), nl=False)


def content(path: Path, limit: int) -> bytes:
    """A file's content, also through a link, as engines mount files.

    Raises:
        ConfigError: it is not there, cannot be read, or is larger than `limit` bytes.
    """
    content = read(path.resolve(), limit)
    if content is None:
        raise ConfigError(f"{path} does not exist; name a file")
    return content


def _genesis(path: Path) -> Genesis:
    return decode_genesis(content(path, GENESIS_BYTES), str(path))


def _everywhere(address: Endpoint) -> Endpoint:
    """All addresses of this host, of both families where it has both, at the ports of an address.

    Raises:
        ConfigError: it has one port twice, at two hosts.
    """
    host = "*"
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::", 0))
        host = "[::]"
    urls = [f"tcp://{host}:{url.rpartition(':')[2]}" for url in address.urls]
    if len(set(urls)) < len(urls):
        raise ConfigError(f"{' and '.join(address.urls)} have one port; say by --listen what to bind for each")
    return Endpoint(*urls)


def _asked(path: Path) -> Settings:
    """What a file of options asks for, and what it leaves open.

    Raises:
        ConfigError: it cannot be read, or names an option that is no affair of a whole run.
    """
    from btard.launcher.options import sources

    resolved = sources.resolve({}, {}, str(path))
    for name in sorted(name for name, source in resolved.sources.items() if source != "default"):
        if name not in _OF_RUN:
            raise ConfigError(f"{path}: {name} is no option of a run of several owners; leave it out")
    return resolved


def run_of(path: Path) -> RunConfig:
    """The configuration that a file of options describes, tried out as a launcher does.

    Raises:
        ConfigError: it cannot be run, or names an option that is no affair of a whole run.
    """
    from btard.launcher.run import plan

    experiment = _asked(path).experiment
    # What this machine has says nothing of the others': it is tried out on the processor.
    device, arithmetic = _device(experiment), experiment.arithmetic
    if arithmetic == "auto":
        arithmetic = plan.portably(experiment.run_config("cpu")).arithmetic if device == "cpu" else "native"
    tried = plan.make(msgspec.structs.replace(experiment, device="cpu", arithmetic=arithmetic)).run
    return msgspec.structs.replace(tried, device=device)


def _device(experiment: Experiment) -> Literal["cpu", "cuda"]:
    return "cpu" if experiment.device == "auto" else experiment.device


def _check_wanted(owner: Identity, genesis: Genesis, me: int, path: Path) -> None:
    """Refuse a genesis with other options than a file's, or another address than the newest proposal's.

    What a file leaves to `assemble` follows from the task, which is not loaded here: any window of undo, and any
    arithmetic that the task has, are taken for that.

    Raises:
        ConfigError: what differs.
    """
    asked = _asked(path)
    run, wanted = genesis.run, asked.experiment.run_config(_device(asked.experiment))
    if asked.experiment.undo is None:
        wanted = msgspec.structs.replace(wanted, undo=run.undo)
    if asked.sources["arithmetic"] == "default" and (arithmetic := run.task.parameters.get("arithmetic")):
        task = msgspec.structs.replace(wanted.task, parameters={**wanted.task.parameters, "arithmetic": arithmetic})
        wanted = msgspec.structs.replace(wanted, task=task)
    for name in run.__struct_fields__:
        if (found := getattr(run, name)) != (meant := getattr(wanted, name)):
            values = [msgspec.json.encode(value).decode() for value in (found, meant)]
            raise ConfigError(f"nothing was signed: {name} is {values[0]} in the genesis, {values[1]} in {path}")
    if genesis.proposals[me] != owner.proposal:
        raise ConfigError(
            "nothing was signed: the genesis has this peer as it proposed itself earlier; assemble its newest proposal"
        )


def _shown(owner: Identity, genesis: Genesis, me: int) -> Iterator[str]:
    """What is signed, in lines for people."""
    run, plain = genesis.run, RunConfig()
    yield f"genesis {genesis.digest}"
    yield f"run     {genesis.run_id}: {run.peers} peers, up to {genesis_roster(genesis.members).faults} of them faulty"
    different = [name for name in run.__struct_fields__ if getattr(run, name) != getattr(plain, name)]
    values = ", ".join(f"{name} {msgspec.json.encode(getattr(run, name)).decode()}" for name in different)
    yield f"options {values or 'none'}; all others as by default (btard-launch run --help)"
    for peer, proposal in enumerate(genesis.proposals):
        mark = "  (this one)" if peer == me else ""
        yield f"peer {peer:<3}{proposal.signing_key[:16]}  {' '.join(proposal.address.urls)}{mark}"
    mine, newest = genesis.proposals[me], owner.proposal
    if newest == mine:
        yield "yours   as proposed"
    elif newest is None:
        yield "yours   signed by this identity; its proposal is not kept here"
    else:
        yield f"yours   an earlier proposal: the last one was {' '.join(newest.address.urls)}"


if __name__ == "__main__":
    main()
