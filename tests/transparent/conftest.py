"""The gateway on a router between two real networks; see `support.networks` for who is where.

| fixture | what it is | lives for |
|---|---|---|
| `internet_dns` | the DNS server on `names`, port 53; changes in it are undone | a test (the server: a module) |
| `transparent_gateway` | a gateway on the router, the same one for equal arguments | a module |
| `redirect` | `redirect(gateway)` sends what comes from inside to that gateway | a test |
| `evil_wire` | every packet at the evil host | a test |
| `desk` | runs programs on the client, whose name server is the router | a module |

A test runs outside of all these networks and enters the one it needs, for servers too:

    with networks.web.entered():
        origin.http(networks.web.ipv4)
    with networks.client.connect(networks.web.ipv4, 80) as sock:
        ...

All tests here are marked `root`.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.ca import SessionCa
from support.dns_server import DnsServer
from support.gateway import Program
from support.machine import Machine
from support.networks import TwoNetworks
from support.transparent_gateway import TransparentGateway, redirected
from support.wire import Wire


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:  # those of the whole run
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("root")


@pytest.fixture(scope="module", params=["mitmdump", "gateway"])
def program(request: pytest.FixtureRequest) -> Program:
    """mitmdump with the script, then the runner, with two workers that share a port."""
    which: Program = request.param
    return which


@pytest.fixture(scope="module")
def module_internet_dns(networks: TwoNetworks) -> Iterator[DnsServer]:
    """The server behind `internet_dns`: what is set here stays for the whole module."""
    with networks.names.entered():
        server = DnsServer("::", 53)  # IPv4 too
    with server:
        yield server


@pytest.fixture
def internet_dns(module_internet_dns: DnsServer) -> Iterator[DnsServer]:
    with module_internet_dns.changes_undone():
        yield module_internet_dns


@pytest.fixture(scope="module")
def transparent_gateway(
    ca: SessionCa, networks: TwoNetworks, module_internet_dns: DnsServer, program: Program
) -> Iterator[Callable[..., TransparentGateway]]:
    """Start one that trusts `ca` and asks `names`; takes what `TransparentGateway` takes.

    Equal arguments give the same running one: do not stop it or change its rules.
    """
    running: dict[str, TransparentGateway] = {}
    defaults: dict[str, Any] = {
        "dns_servers": [f"{networks.names.ipv4}:53"],
        "trusted_ca": ca.pem_path,
        "program": program,
    }
    with contextlib.ExitStack() as stack:

        def start(rules: Any = "", options: Any = None, **more: Any) -> TransparentGateway:
            key = repr((rules, sorted((options or {}).items()), sorted(more.items())))
            found = running.get(key)
            if found is None or found.process.exit_code is not None:
                made = TransparentGateway(networks.gateway, rules, options, **(defaults | more))
                found = running[key] = stack.enter_context(made)
            return found

        yield start


@pytest.fixture
def redirect() -> Iterator[Callable[..., None]]:
    """`redirect(gateway)`, `redirect(gateway, 80, 443, 25)`: see `redirected`."""
    with contextlib.ExitStack() as stack:

        def start(gateway: TransparentGateway, *tcp_ports: int) -> None:
            stack.enter_context(redirected(gateway, tcp_ports or (80, 443)))

        yield start


@pytest.fixture
def evil_wire(networks: TwoNetworks) -> Iterator[Wire]:
    with networks.evil.wire() as recorder:
        yield recorder


@pytest.fixture(scope="module")
def desk(networks: TwoNetworks, ca: SessionCa, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    home = tmp_path_factory.mktemp("desk")
    return Machine(networks.client, home, name_server=networks.gateway.ipv4, trusts=ca.pem_path)
