"""A client, a gateway that refuses everything, and an internet of which every address and port answers.

| fixture | what it is | lives for |
|---|---|---|
| `networks` | the two networks, in which all ICMP errors are sent | a module |
| `everything` | the internet's evil host, which answers to whatever gets through | a module |
| `gateway` | a stand-in for the gateway with the real packet filter; what a test changes in it is undone | a test |
| `inner` | a client that has another router between itself and the gateway | a module |
| `far` | addresses behind the evil host that never answer, as (IPv4, IPv6) | a module |
| `check` | runs the check on the client, in this process: `check("--no-ipv6")` gives a `Report` | a test |

Tests that use `networks` are marked `root`. Nothing here has a way to any real address.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from egress_gateway.containment.run import Report
from support.containment_checks import run_checks
from support.everything import Everything
from support.gateway_stand_in import GatewayStandIn
from support.networks import Host, TwoNetworks
from support.waiting import eventually

FORWARDS = ("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "networks" in getattr(item, "fixturenames", ()) and "containment" in item.path.parts:
            item.add_marker("root")


@pytest.fixture(scope="module")
def networks(networks: TwoNetworks) -> TwoNetworks:
    for host in (networks.gateway, networks.evil):
        # Or only some of many refusals at once would be told.
        host.run("sysctl", "-qw", "net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
    return networks


@pytest.fixture(scope="module")
def everything(networks: TwoNetworks) -> Iterator[Everything]:
    with Everything(networks.evil) as answering:
        yield answering


@pytest.fixture(scope="module")
def module_gateway(networks: TwoNetworks) -> Iterator[GatewayStandIn]:
    with GatewayStandIn(networks.gateway) as stand_in:
        yield stand_in


@pytest.fixture
def gateway(module_gateway: GatewayStandIn) -> Iterator[GatewayStandIn]:
    with module_gateway.dns.changes_undone():
        module_gateway.dns.tamper = module_gateway.answer_dns
        yield module_gateway
    module_gateway.restore()


@pytest.fixture(scope="module")
def inner(networks: TwoNetworks) -> Iterator[Host]:
    made: list[int] = []

    def make() -> None:  # on a thread, so that this one stays where it is
        os.unshare(os.CLONE_NEWNET)
        made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    (namespace,) = made
    host = Host("inner", "10.77.0.2", "fd77::2", namespace)
    router = networks.second_client
    router.run("sysctl", "-qw", *FORWARDS)
    cable = f"link add name inner type veth peer name eth0 netns /proc/self/fd/{namespace}"
    _ip(router, cable, *_up("inner", "10.77.0.1/24", "fd77::1/64"), pass_fds=(namespace,))
    _ip(host, *_up("eth0", "10.77.0.2/24", "fd77::2/64"))
    for address in ("10.77.0.1", "fd77::1"):
        _ip(host, f"route add default via {address}")
    for block, address in (("10.77.0.0/24", router.ipv4), ("fd77::/64", router.ipv6)):
        _ip(networks.gateway, f"route add {block} via {address}")
    _ip(networks.evil, "route add 10.77.0.0/24 via 203.0.113.1", "route add fd77::/64 via 2001:db8::1")
    for address in ("10.77.0.1", "fd77::1"):  # the kernel brings links up on a thread of its own
        eventually(partial(_is_refused_by, address, host), f"the inner client to reach {address}")
    yield host
    os.close(namespace)


@pytest.fixture(scope="module")
def far(networks: TwoNetworks) -> tuple[str, str]:
    """The evil host would forward to them, on a wire that nobody else is on."""
    addresses = ("198.51.100.9", "2001:db8:ffff::9")
    networks.evil.run("sysctl", "-qw", *FORWARDS)
    _ip(
        networks.evil, "link add name nowhere type veth peer name end", "link set dev nowhere up", "link set dev end up"
    )
    for address in addresses:
        _ip(networks.evil, f"route add {address} dev nowhere")
        _ip(networks.evil, f"neigh add {address} lladdr 02:00:00:00:00:01 dev nowhere")
    return addresses


def _is_refused_by(address: str, host: Host) -> bool:
    """Whether somebody is there, since nothing listens at that port."""
    try:
        host.connect(address, 9, timeout=1).close()
    except OSError as error:
        return isinstance(error, ConnectionRefusedError)
    return False


def _up(interface: str, *addresses: str) -> list[str]:
    named = [f"addr add {address} dev {interface}{' nodad' if ':' in address else ''}" for address in addresses]
    return ["link set dev lo up", *named, f"link set dev {interface} up"]


def _ip(host: Host, *lines: str, **more: Any) -> None:
    host.run("ip", "-batch", "-", input="\n".join(lines) + "\n", **more)


@pytest.fixture
def check(networks: TwoNetworks) -> Callable[..., Report]:
    """The targets are the evil host's addresses; `more` is what `run_checks` takes."""

    def run_it(
        *arguments: str, targets: tuple[str, ...] = (networks.evil.ipv4, networks.evil.ipv6), **more: Any
    ) -> Report:
        named = [part for target in targets for part in ("--target", target)]
        with networks.client.entered():
            return run_checks(*named, *arguments, **more)

    return run_it
