"""A client that knows of no gateway: the address it dialled must be one of the host it names, or nothing leaves."""

from collections.abc import Callable

import pytest

from support.ca import SessionCa
from support.dns_server import DnsServer
from support.http import client_hello, read_alert, request_over, tls_client
from support.lab import ACCESS_DENIED
from support.networks import TwoNetworks
from support.origin import HttpOrigin, Origins
from support.transparent_gateway import TransparentGateway
from support.wire import Wire

HOST = "www.example.com"
RULES = f"""
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {{name: www}}
spec:
  destination: {{services: [{HOST}]}}
  ports: [{{port: 80, protocol: http}}, {{port: 443, protocol: https}}]
"""


@pytest.fixture
def gateway(
    transparent_gateway: Callable[..., TransparentGateway],
    redirect: Callable[..., None],
    networks: TwoNetworks,
    internet_dns: DnsServer,
    data_path: str,
) -> TransparentGateway:
    internet_dns.set(HOST, [networks.web.ipv4, networks.web.ipv6])
    started = transparent_gateway(RULES, data_path=data_path)
    redirect(started)
    return started


@pytest.fixture(params=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def web(networks: TwoNetworks, family: str) -> str:
    return getattr(networks.web, family)


@pytest.fixture
def evil(networks: TwoNetworks, family: str, origin: Origins) -> tuple[str, list[HttpOrigin]]:
    """Its address, and its servers, which would answer whoever comes, as the true host too."""
    address = getattr(networks.evil, family)
    with networks.evil.entered():
        return address, [origin.http(address), origin.https(address, HOST)]


def authority(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def assert_nothing_came(evil: tuple[str, list[HttpOrigin]], wire: Wire) -> None:
    address, servers = evil
    wire.assert_nothing_left(address)
    assert not [server.connections for server in servers if server.connections]


def test_http_to_a_true_address_passes(
    gateway: TransparentGateway, networks: TwoNetworks, origin: Origins, web: str, family: str
) -> None:
    with networks.web.entered():
        server = origin.http(web)
    with networks.client.connect(web, 80) as sock:
        for number in range(2):
            assert request_over(sock, "GET", f"/true/{family}/{number}", {"Host": HOST}).status == 200
    assert [request.header("host") for request in server.requests] == [HOST, HOST]
    assert {connection.peer[0] for connection in server.connections} <= {"203.0.113.1", "2001:db8::1"}
    entry = gateway.wait_for_log(path=f"/true/{family}/1")
    assert (entry["verdict"], entry["original_destination"]) == ("allow", authority(web, 80))


def test_http_to_an_evil_address_is_refused(
    gateway: TransparentGateway,
    networks: TwoNetworks,
    evil: tuple[str, list[HttpOrigin]],
    evil_wire: Wire,
    family: str,
) -> None:
    with networks.client.connect(evil[0], 80) as sock:
        reply = request_over(sock, "GET", f"/evil/{family}", {"Host": HOST})
    assert (reply.status, reply.header("x-egress-reason")) == (403, "address_mismatch")
    entry = gateway.wait_for_log(path=f"/evil/{family}")
    assert (entry["reason"], entry["original_destination"]) == ("address_mismatch", authority(evil[0], 80))
    assert_nothing_came(evil, evil_wire)


def test_tls_to_a_true_address_passes(
    gateway: TransparentGateway, networks: TwoNetworks, origin: Origins, ca: SessionCa, web: str
) -> None:
    with networks.web.entered():
        server = origin.https(web, HOST)
    with networks.client.connect(web, 443) as sock, tls_client(sock, HOST, ca.pem_path) as tls:
        assert request_over(tls, "GET", "/", {"Host": HOST}).status == 200
    assert [connection.sni for connection in server.connections] == [HOST]
    gateway.wait_for_log(requested_server_name=HOST, verdict="allow", original_destination=authority(web, 443))


def test_tls_to_an_evil_address_is_refused(
    gateway: TransparentGateway, networks: TwoNetworks, evil: tuple[str, list[HttpOrigin]], evil_wire: Wire
) -> None:
    with networks.client.connect(evil[0], 443) as sock:
        sock.sendall(client_hello(HOST))
        assert read_alert(sock) == ACCESS_DENIED
    gateway.wait_for_log(reason="address_mismatch", original_destination=authority(evil[0], 443))
    assert_nothing_came(evil, evil_wire)


@pytest.mark.parametrize("port", [22, 8080])
def test_a_port_that_is_not_redirected_leads_nowhere(
    gateway: TransparentGateway,
    networks: TwoNetworks,
    evil: tuple[str, list[HttpOrigin]],
    evil_wire: Wire,
    port: int,
) -> None:
    with pytest.raises(ConnectionRefusedError):
        networks.client.connect(evil[0], port)
    assert_nothing_came(evil, evil_wire)
