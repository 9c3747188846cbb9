"""Hosts for tests: network namespaces on a switch with a name server, and processes in them that have torch already.

The machine's own network is left alone: the switch is a namespace too, and a process sees the laboratory's name server
through a mount of its own.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

from btard.launcher.backends.local import context, redirect_output, server_environment, without_main

PROGRAMS = ("ip", "dnsmasq", "iptables")
DOMAIN = "lab"
SERVER = "10.77.0.1"
NETNS = Path("/run/netns")
END_S = 60.0
_OURS = re.compile(r"btard-(\d+)-\w+")
_NEWNS, _NEWNET, _BIND, _PRIVATE, _DEATH = 0x20000, 0x40000000, 0x1000, 0x44000, 1


def lacking() -> str | None:
    """Why hosts cannot be made here; None: they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"there is no {', '.join(missing)} here; apt-get install iproute2 dnsmasq-base iptables"
    probe = f"btard-{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    subprocess.run(["ip", "netns", "delete", probe], capture_output=True)
    return None if made.returncode == 0 else f"the kernel makes no network namespace: {made.stderr.strip()}"


class Lab:
    """Hosts on one switch; `name` says on which of them a name is.

    Args:
        hosts: their names.
        where: for the name server's files.
    """

    def __init__(self, hosts: Sequence[str], where: Path) -> None:
        self.ipv4 = {host: f"10.77.0.{number}" for number, host in enumerate(hosts, 11)}
        self.ipv6 = {host: f"fd77::{number}" for number, host in enumerate(hosts, 11)}
        self._names: dict[str, str] = {}
        self._file, self._resolver = where / "names", where / "resolv.conf"
        self._resolver.write_text(f"nameserver {SERVER}\noptions timeout:1 attempts:3\n")
        self._file.touch()
        self._processes: list[BaseProcess] = []
        self._server: subprocess.Popen[bytes] | None = None
        self._stack = ExitStack()

    def name(self, addresses: Mapping[str, str]) -> None:
        """From now on these names have these addresses."""
        self._names |= addresses
        self._file.write_text("".join(f"{address} {name}\n" for name, address in self._names.items()))
        self._unserve()
        self._serve()

    def link(self, host: str, state: str) -> None:
        """Pull a host's cable (`down`), or put it back (`up`)."""
        _ip("-n", namespace("switch"), "link", "set", f"to-{host}", state)

    def behind(self, router: str, inside: str, port: int) -> None:
        """One more host, behind a host that is its router: it has an inner address alone, and one port of the router's
        leads to it."""
        made, outside, inner = _make(self._stack, inside), namespace(router), "192.168.77"
        _ip("link", "add", "eth0", "netns", made, "type", "veth", "peer", "name", "inner", "netns", outside)
        for here, device, number in ((outside, "inner", 1), (made, "eth0", 2)):
            _ip("-n", here, "address", "add", f"{inner}.{number}/24", "dev", device)
            _ip("-n", here, "link", "set", device, "up")
        _ip("-n", made, "route", "add", "default", "via", f"{inner}.1")
        _ip("netns", "exec", outside, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        nat = ("netns", "exec", outside, "iptables", "-t", "nat", "-A")
        _ip(*nat, "POSTROUTING", "-o", "eth0", "-s", f"{inner}.2", "-j", "MASQUERADE")
        for chain in ("PREROUTING", "OUTPUT"):
            there = ("-d", self.ipv4[router], "-p", "tcp", "--dport", str(port))
            _ip(*nat, chain, *there, "-j", "DNAT", "--to-destination", f"{inner}.2")

    def start(self, host: str, log: Path, arguments: Sequence[str]) -> BaseProcess:
        """`btard-node ARGUMENTS` on a host, its output appended to a log."""
        process: BaseProcess = context().Process(
            target=_on_host, args=(str(NETNS / namespace(host)), str(self._resolver), log, arguments), daemon=True
        )
        with server_environment(), without_main():
            process.start()
        self._processes.append(process)
        return process

    @contextmanager
    def running(self) -> Iterator[Lab]:
        """All of it is there; nothing is afterwards, whatever happens, nor of a run before that was killed."""
        _remove_left_over()
        with self._stack as stack:
            # A stage of CI that is out of time gets SIGTERM, which would end this process without its fixtures' ends.
            before = signal.signal(signal.SIGTERM, signal.default_int_handler)
            stack.callback(signal.signal, signal.SIGTERM, before)
            self._switch(stack)
            for host in self.ipv4:
                self._host(stack, host)
            stack.callback(self._unserve)
            self._serve()
            stack.callback(self._end)
            yield self

    def _serve(self) -> None:
        """Answer for the names of now: by a new server each time, since one that begins would die of a SIGHUP."""
        command = [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            f"--addn-hosts={self._file}",
            f"--local=/{DOMAIN}/",
            f"--listen-address={SERVER}",
            "--bind-interfaces",
            "--user=root",
            "--pid-file=",
        ]
        inside = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", namespace("switch")]
        self._server = subprocess.Popen([*inside, *command])

    def _unserve(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()

    def _end(self) -> None:
        for process in self._processes:
            process.kill()
            process.join(END_S)

    def _switch(self, stack: ExitStack) -> None:
        switch = _make(stack, "switch")
        _ip("-n", switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", switch, "address", "add", f"{SERVER}/24", "dev", "switch")
        _ip("-n", switch, "link", "set", "switch", "up")

    def _host(self, stack: ExitStack, host: str) -> None:
        made, switch = _make(stack, host), namespace("switch")
        _ip("link", "add", "eth0", "netns", made, "type", "veth", "peer", "name", f"to-{host}", "netns", switch)
        _ip("-n", switch, "link", "set", f"to-{host}", "master", "switch", "up")
        _ip("-n", made, "address", "add", f"{self.ipv4[host]}/24", "dev", "eth0")
        # Nobody else is on this switch: an address need not be asked for first.
        _ip("-n", made, "address", "add", f"{self.ipv6[host]}/64", "dev", "eth0", "nodad")
        _ip("-n", made, "link", "set", "eth0", "up")


def namespace(host: str) -> str:
    """The name of a host's network namespace."""
    return f"btard-{os.getpid()}-{host}"


def _make(stack: ExitStack, host: str) -> str:
    made = namespace(host)
    _ip("netns", "add", made)
    stack.callback(_ip, "netns", "delete", made)
    _ip("-n", made, "link", "set", "lo", "up")
    return made


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def _remove_left_over() -> None:
    for path in NETNS.glob("btard-*"):
        match = _OURS.fullmatch(path.name)
        if match is not None and not Path(f"/proc/{match[1]}").exists():
            _ip("netns", "delete", path.name)


def _on_host(namespace: str, resolver: str, log: Path, arguments: Sequence[str]) -> None:
    """What runs in a forked process: it enters the host, and is `btard-node` there."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = os.open(namespace, os.O_RDONLY)
    mounts = ((None, b"/", None, _PRIVATE, None), (resolver.encode(), b"/etc/resolv.conf", None, _BIND, None))
    calls = [libc.setns(descriptor, _NEWNET), libc.unshare(_NEWNS), *(libc.mount(*each) for each in mounts)]
    calls.append(libc.prctl(_DEATH, signal.SIGKILL))
    if any(calls):
        raise OSError(ctypes.get_errno(), f"cannot enter {namespace}: {calls}")
    os.close(descriptor)
    redirect_output(log)
    for name in [name for name in os.environ if name.startswith("BTARD_")]:
        del os.environ[name]
    from btard.launcher.cli import node

    with suppress(BrokenPipeError):
        sys.stdout.flush()
    node.main(list(arguments))
