"""The whole run happens in a private network, with these parts in it.

| fixture | what it is | lives for |
|---|---|---|
| `ca` | the authority that gateways trust | the run |
| `dns` | a DNS server; what a test changes in it is undone after the test | a module (the server) |
| `origin` | starts recording servers: `origin.http(...)`, `.https`, `.h2`, `.tcp`, `.scripted` | a test |
| `module_origin` | the same | a module |
| `wire` | every packet on the network | a test |
| `networks` | two networks and a router between them, see `support.networks`; needs root | a module |
| `gateway` | starts a gateway: `gateway(rules=..., data_path=...)` | a test |
| `shared_gateway` | the same, one for all tests of the module that ask with equal arguments | a module |
| `data_path` | "relay", then "inspect" | a module |
| `program` | "mitmdump"; where its tests are for the runner too, then "gateway" | a module |

Tests below `tests/end_to_end`, `tests/attacks`, `tests/scenarios` and `tests/transparent` need the private
network, and so do tests marked `private_network`; where the system does not give one they are skipped, and the
reason says why.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings

from support import netns
from support.ca import SessionCa
from support.dns_server import DnsServer
from support.gateway import Gateway, Program
from support.networks import TwoNetworks, reason_against
from support.origin import Origins
from support.wire import Wire

_NETWORK = pytest.StashKey[netns.Network]()
_NEEDS_NETWORK = ("end_to_end", "attacks", "scenarios", "transparent")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "private_network: needs a network namespace of its own")
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        del os.environ[name]  # or clients would go round the gateway under test
    # How long an example takes says more about the machine than about what is tested.
    settings.register_profile("any speed", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any speed")
    config.stash[_NETWORK] = netns.enter()


def pytest_report_header(config: pytest.Config) -> str:
    entered = config.stash[_NETWORK]
    return f"private network: {netns.namespace() if entered.available else f'none, {entered.reason}'}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    entered = config.stash[_NETWORK]
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and item.path.relative_to(here).parts[0] in _NEEDS_NETWORK:
            item.add_marker("private_network")
        if not entered.available and item.get_closest_marker("private_network"):
            item.add_marker(pytest.mark.skip(reason=f"no private network: {entered.reason}"))


@pytest.fixture(scope="session")
def network(request: pytest.FixtureRequest) -> netns.Network:
    return request.config.stash[_NETWORK]


@pytest.fixture(scope="session")
def ca(tmp_path_factory: pytest.TempPathFactory) -> SessionCa:
    return SessionCa(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def module_dns() -> Iterator[DnsServer]:
    """The server behind `dns`, for fixtures of a module: what is set here stays for the whole module."""
    with DnsServer() as server:
        yield server


@pytest.fixture
def dns(module_dns: DnsServer) -> Iterator[DnsServer]:
    with module_dns.changes_undone():
        yield module_dns


@pytest.fixture
def wire(module_dns: DnsServer) -> Iterator[Wire]:
    with Wire(dns_ports=[module_dns.port]) as recorder:
        yield recorder


@pytest.fixture(scope="module")
def networks() -> Iterator[TwoNetworks]:
    if reason := reason_against():
        pytest.skip(reason)
    with TwoNetworks() as lab:
        yield lab


@pytest.fixture
def origin(ca: SessionCa) -> Iterator[Origins]:
    with contextlib.ExitStack() as stack:
        yield Origins(ca, stack)


@pytest.fixture(scope="module")
def module_origin(ca: SessionCa) -> Iterator[Origins]:
    with contextlib.ExitStack() as stack:
        yield Origins(ca, stack)


type StartGateway = Callable[..., Gateway]


@pytest.fixture(scope="session")
def cold() -> bool:
    """Whether gateways are executed, or start warm (see `support.warm`). Tests of whole programs have another one."""
    return False


@pytest.fixture(scope="module")
def program() -> Program:
    """What a gateway is that is not told; in `tests/attacks` and `tests/scenarios` one after the other."""
    return "mitmdump"


@pytest.fixture
def gateway(ca: SessionCa, dns: DnsServer, program: Program, cold: bool) -> Iterator[StartGateway]:
    """Start a gateway that trusts `ca` and asks `dns`; takes what `Gateway` takes."""
    defaults: dict[str, Any] = {"program": program, "cold": cold}
    with contextlib.ExitStack() as stack:

        def start(rules: Any = "", options: Any = None, **more: Any) -> Gateway:
            return stack.enter_context(_gateway(ca, dns, rules, options, **defaults | more))

        yield start


@pytest.fixture(scope="module")
def shared_gateway(ca: SessionCa, module_dns: DnsServer, program: Program, cold: bool) -> Iterator[StartGateway]:
    """As `gateway`, but equal arguments give the same running one: do not stop it or change its rules."""
    running: dict[str, Gateway] = {}
    defaults: dict[str, Any] = {"program": program, "cold": cold}
    with contextlib.ExitStack() as stack:

        def start(rules: Any = "", options: Any = None, **more: Any) -> Gateway:
            key = repr((rules, sorted((options or {}).items()), sorted(more.items())))
            found = running.get(key)
            if found is None or found.process.exit_code is not None:
                found = running[key] = stack.enter_context(_gateway(ca, module_dns, rules, options, **defaults | more))
            return found

        yield start


def _gateway(ca: SessionCa, dns: DnsServer, rules: Any, options: Any, **more: Any) -> Gateway:
    defaults: dict[str, Any] = {"dns_servers": [dns.endpoint], "trusted_ca": ca.pem_path}
    return Gateway(rules, options, **(defaults | more))


@pytest.fixture(scope="module", params=["relay", "inspect"])
def data_path(request: pytest.FixtureRequest) -> Literal["relay", "inspect"]:
    which: Literal["relay", "inspect"] = request.param
    return which
