"""Threats 21 and 26: the gateway's own ports, by any of its names, through the gateway."""

import pytest

from support.dns_server import DnsServer
from support.gateway import Gateway, Program, read_reply
from support.http import connect_refusal, request_via_proxy, socks5_connect
from support.lab import Lab, Places, Port, answered, rule, say
from support.netns import OWN_V4, OWN_V6
from support.sockets import free_port
from support.wire import Wire

LITERALS = [
    "127.0.0.1",
    "127.0.0.2",
    "127.1",
    "2130706433",
    "0.0.0.0",
    OWN_V4,
    "[::1]",
    "[::]",
    f"[{OWN_V6}]",
    "[::ffff:127.0.0.1]",
    f"[::ffff:{OWN_V4}]",
]
NAMES = {
    "localhost": "127.0.0.1",
    "loopback.self.example": "127.0.0.1",
    "any.self.example": "0.0.0.0",
    "v6.self.example": "::1",
    "own.self.example": OWN_V4,
    "own6.self.example": OWN_V6,
    "mapped.self.example": "::ffff:127.0.0.1",
}


def everywhere(*ports: str, private: bool) -> str:
    services = ["localhost", "*.self.example", "127.0.0.1", "127.0.0.2", "0.0.0.0", OWN_V4, "::1", "::", OWN_V6]
    return rule("self", services, *ports, private=private)


@pytest.fixture(scope="module")
def own(shared_gateway, program: Program, data_path: str, socks_port: int, module_dns: DnsServer) -> Gateway:
    """A mitmweb that listens on every address, or the runner, which answers DNS where mitmweb has its console."""
    for name, address in NAMES.items():
        module_dns.set(name, [address])
    modes = ["regular", f"socks5@{socks_port}"]
    if program == "mitmdump":
        return shared_gateway(data_path=data_path, program="mitmweb", listen_host="0.0.0.0", mode=modes)
    dns_port = free_port()
    running = shared_gateway(data_path=data_path, listen_host="0.0.0.0", mode=[*modes, f"dns@{dns_port}"])
    running.web_port = dns_port
    return running


@pytest.fixture
def lab(own: Gateway, dns: DnsServer, wire: Wire, places: Places, socks_port: int) -> Lab:
    return Lab(own, dns, wire, places, Port(socks_port))


@pytest.fixture(params=["proxy", "socks", "metrics", "web"])
def port(request: pytest.FixtureRequest, own: Gateway, socks_port: int) -> int:
    return {"proxy": own.port, "socks": socks_port, "metrics": own.metrics_port, "web": own.web_port}[request.param]


def ports(gateway: Gateway, socks: Port, protocol: str) -> list[str]:
    return [f"{n} {protocol}" for n in (gateway.port, socks.number, gateway.metrics_port, gateway.web_port)]


def own_syns(lab: Lab, port: int) -> int:
    return len([packet for packet in lab.wire.packets if packet.is_syn and packet.dport == port])


def test_threat_21_and_26_no_rule(lab: Lab, port: int) -> None:
    hosts = [*LITERALS, *NAMES]
    _with_rules(lab, rule("other", "elsewhere.example", "80 http"))
    with lab.refused("no_rule", times=2 * len(hosts)):
        for host in hosts:
            assert request_via_proxy(lab.gateway, "GET", f"http://{host}:{port}/metrics").status == 403
            assert connect_refusal(lab.gateway, f"{host}:{port}").status == 403


@pytest.fixture
def as_http(lab: Lab) -> Lab:
    wanted = everywhere(*ports(lab.gateway, lab.socks, "http"), private=True)
    return _with_rules(lab, wanted)


@pytest.fixture
def as_tcp(lab: Lab) -> Lab:
    return _with_rules(lab, everywhere(*ports(lab.gateway, lab.socks, "tcp"), private=True))


@pytest.fixture
def without_private(lab: Lab) -> Lab:
    return _with_rules(lab, everywhere(*ports(lab.gateway, lab.socks, "http"), private=False))


def _with_rules(lab: Lab, wanted: str) -> Lab:
    path = lab.gateway.rules_dir / "self.yaml"
    if not path.exists() or path.read_text() != wanted:
        lab.gateway.write_rule("self.yaml", wanted)
    return lab


def test_threat_21_and_26_requests(as_http: Lab, port: int) -> None:
    """mitmproxy alone makes hundreds of connections to itself out of one such request."""
    lab, hosts = as_http, [*LITERALS, *NAMES]
    with lab.refused("own_address", times=len(hosts), asks=NAMES):
        before = own_syns(lab, port)
        for host in hosts:
            reply = lab.gateway.raw(
                f"GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
            )
            answered(reply, 403, "own_address")
        ours = len(hosts) if port == lab.gateway.port else 0
        assert own_syns(lab, port) - before == ours


def test_threat_21_and_26_tunnels(as_http: Lab, port: int) -> None:
    lab = as_http
    with lab.refused("own_address", times=len(LITERALS) + 2 * len(NAMES), asks=NAMES):
        for host in LITERALS:
            assert connect_refusal(lab.gateway, f"{host}:{port}").header("x-egress-reason") == "own_address"
        for name in NAMES:
            for way in ("connect", "socks5"):
                with lab.tunnel(way, name, port) as sock:
                    say(sock, f"GET /metrics HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n".encode())
                    answered(read_reply(sock), 403, "own_address")


def test_threat_21_and_26_any_bytes(as_tcp: Lab, port: int) -> None:
    lab = as_tcp
    hosts = [*LITERALS, *NAMES]
    with lab.refused("own_address", times=len(hosts) + len(NAMES), asks=NAMES):
        for host in hosts:
            assert connect_refusal(lab.gateway, f"{host}:{port}").header("x-egress-reason") == "own_address"
        for name in NAMES:
            code, sock = socks5_connect(lab.socks, name, port)
            sock.close()
            assert code == 2


def test_threat_21_and_26_without_allow_private(without_private: Lab, port: int) -> None:
    lab = without_private
    hosts = [*LITERALS, *NAMES]
    with lab.refused("own_address", times=len(hosts), asks=NAMES):
        for host in hosts:
            reply = lab.gateway.raw(
                f"GET http://{host}:{port}/ HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode()
            )
            answered(reply, 403, "own_address")


def test_threat_21_a_server_beside_the_gateway_may_be_allowed(lab: Lab, origin) -> None:
    """Own addresses are refused for the gateway's ports only; the rest hangs on allowPrivate."""
    server = origin.http("127.0.0.1", 0)
    _with_rules(lab, everywhere(f"{server.port} http", private=True))
    for host in ("127.0.0.1", "localhost"):
        assert request_via_proxy(lab.gateway, "GET", f"http://{host}:{server.port}/").status == 200
    _with_rules(lab, everywhere(f"{server.port} http", private=False))
    with lab.refused("address_not_allowed", times=2, asks=["localhost"]):
        for host in ("127.0.0.1", "localhost"):
            assert request_via_proxy(lab.gateway, "GET", f"http://{host}:{server.port}/").status == 403


@pytest.mark.parametrize("target", ["mitm.it", "mitm.it:8080", "proxy.local"])
def test_threat_26_the_magic_hosts_of_mitmproxy_are_hosts_like_any(lab: Lab, target: str) -> None:
    with lab.refused("no_rule"):
        reply = lab.gateway.raw(
            f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n".encode()
        )
    answered(reply, 403, "no_rule")


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/flows", "/options"])
def test_threat_26_a_path_to_the_proxy_itself(lab: Lab, path: str) -> None:
    with lab.refused("malformed_request"):
        reply = lab.gateway.raw(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{lab.gateway.port}\r\n\r\n".encode())
    answered(reply, 400, "malformed_request")
