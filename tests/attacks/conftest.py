"""Attacks run against one gateway a module, program and data path; `lab` is that gateway with all that is around it."""

import collections
from collections.abc import Callable, Iterator

import pytest

from support.dns_server import DnsServer
from support.gateway import Gateway, Program
from support.lab import RULES, Lab, Places, Port
from support.origin import Origins
from support.sockets import free_port
from support.wire import Wire


@pytest.fixture(scope="module", params=["mitmdump", "gateway"])
def program(request: pytest.FixtureRequest) -> Program:
    """mitmdump with the script, then the runner, with two workers that share a port."""
    which: Program = request.param
    return which


@pytest.fixture(scope="module")
def places(module_origin: Origins, module_dns: DnsServer) -> Places:
    return Places.build(module_origin, module_dns)


@pytest.fixture(scope="module")
def socks_port(data_path: str, program: Program) -> int:
    """Another one for each program and data path, since the module's gateways run side by side."""
    return free_port()


@pytest.fixture(scope="module")
def attacked(request: pytest.FixtureRequest, shared_gateway, data_path: str, socks_port: int) -> Gateway:
    """The module's gateway; `EXTRA_RULES` and `OPTIONS` of the module are added to the usual ones."""
    rules = RULES + getattr(request.module, "EXTRA_RULES", "")
    options = getattr(request.module, "OPTIONS", {})
    return shared_gateway(rules, options, data_path=data_path, mode=["regular", f"socks5@{socks_port}"])


@pytest.fixture(scope="module")
def more_socks_ports() -> dict[tuple[str, ...], int]:
    return collections.defaultdict(free_port)


@pytest.fixture
def in_a_hurry(
    shared_gateway,
    data_path: str,
    program: Program,
    more_socks_ports: dict[tuple[str, ...], int],
    dns: DnsServer,
    wire: Wire,
    places: Places,
) -> Callable[[str], Lab]:
    """Starts a gateway beside the module's for which this timeout is a second: for tests that see it pass.

    All others have the usual ones, or each step of theirs would have to be taken within the second.
    """

    def start(timeout: str) -> Lab:
        port = more_socks_ports[data_path, program, timeout]
        gateway = shared_gateway(RULES, {timeout: 1}, data_path=data_path, mode=["regular", f"socks5@{port}"])
        return Lab(gateway, dns, wire, places, Port(port))

    return start


@pytest.fixture(scope="module")
def recorder(module_dns: DnsServer) -> Iterator[Wire]:
    with Wire(dns_ports=[module_dns.port]) as recorder:
        yield recorder


@pytest.fixture
def wire(recorder: Wire) -> Wire:
    """One recorder for all tests of a module, which is quicker; each finds it empty."""
    recorder.clear()
    return recorder


@pytest.fixture
def lab(attacked: Gateway, dns: DnsServer, wire: Wire, places: Places, socks_port: int) -> Lab:
    return Lab(attacked, dns, wire, places, Port(socks_port))
