"""One world for gateways of several workers: a plain host, a host of bytes, and one that no rule allows."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.ca import SessionCa
from support.dns_server import DnsServer
from support.gateway import Gateway
from support.lab import rule
from support.origin import Origins
from support.process import group
from support.waiting import eventually

PLAIN, BYTES = "plain.example", "bytes.example"
RULES = {"plain.yaml": rule("plain", PLAIN, "80 http"), "bytes.yaml": rule("bytes", BYTES, "5432 tcp")}


@dataclass
class Runner:
    """A gateway by scripts/gateway, and its processes."""

    gateway: Gateway

    def children(self) -> list[int]:
        """The processes that the supervisor has started."""
        return [pid for pid in group(self.gateway.pid) if pid != self.gateway.pid and not _is_gone(pid)]

    def workers(self) -> list[int]:
        """Those that listen where clients come."""
        return [pid for pid in self.children() if self.gateway.port in listening(pid)]

    def serving(self, clients: Iterable[socket.socket]) -> list[int]:
        """For each of them the worker that has its connection."""
        ports = [client.getsockname()[1] for client in clients]
        found: dict[int, int] = {}

        def all_are_accepted() -> bool:
            """A client is connected before anybody has accepted it."""
            found.update((port, pid) for pid in self.workers() for port in peers(pid))
            return found.keys() >= set(ports)

        eventually(all_are_accepted, lambda: f"workers for the clients at {set(ports) - found.keys()}")
        return [found[port] for port in ports]

    def kill(self, pid: int, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(pid, number)


def _is_gone(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return re.search(r"^State:\s+[ZX]", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE) is not None
    return True


def _sockets(pid: int, state: str) -> Iterator[tuple[int, int]]:
    """Local and remote ports of the TCP sockets in this state that the process has open."""
    inodes = set()
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(f"/proc/{pid}/fd/{descriptor}"))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == state and f"socket:[{fields[9]}]" in inodes:
            yield int(fields[1].rpartition(":")[2], 16), int(fields[2].rpartition(":")[2], 16)


def listening(pid: int) -> set[int]:
    return {local for local, _ in _sockets(pid, "0A")}


def peers(pid: int) -> set[int]:
    return {remote for _, remote in _sockets(pid, "01")}


@pytest.fixture(scope="module")
def world(module_dns: DnsServer, module_origin: Origins) -> None:
    module_dns.set(PLAIN, ["203.0.113.20"])
    module_dns.set(BYTES, ["203.0.113.30"])
    module_origin.http("203.0.113.20")
    module_origin.tcp("203.0.113.30", 5432)


@pytest.fixture
def runner(world: None, gateway: Callable[..., Gateway]) -> Callable[..., Runner]:
    """Starts one: `runner("--workers", "2")`."""

    def start(*arguments: str, rules: Any = RULES, **more: Any) -> Runner:
        started = gateway(rules, program="gateway", extra_args=arguments, **more)
        if more.get("wait_ready", True):
            wait_for_all(started)
        return Runner(started)

    return start


def wait_for_all(gateway: Gateway) -> None:
    """It is ready when one worker is; the others may take a moment longer."""
    eventually(lambda: "egress gateway: ready." in gateway.output, lambda: f"all workers: {gateway.output}", timeout=20)


@pytest.fixture(scope="module")
def two_workers(world: None, module_dns: DnsServer, ca: SessionCa) -> Iterator[Runner]:
    """For tests that leave it as they find it."""
    with Gateway(
        RULES,
        program="gateway",
        extra_args=["--workers", "2"],
        dns_servers=[module_dns.endpoint],
        trusted_ca=ca.pem_path,
    ) as gateway:
        wait_for_all(gateway)
        yield Runner(gateway)
