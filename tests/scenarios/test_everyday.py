"""What happens every day, in one table that runs against both data paths.

Each line: what the client does, what becomes of it, and what the access log says: verdict, reason and rule.
"""

import ssl
from collections.abc import Callable

import pytest

from support.dns_server import DnsServer
from support.gateway import read_reply
from support.http import connect_tunnel, request_over, request_via_proxy, socks5_connect, tls_client
from support.lab import Port, World, decisions, log_from_now, rule
from support.origin import Origins
from support.sockets import free_port, read_exactly
from support.waiting import eventually

BOOKS = "b\u00fccher.example"
BOOKS_A = "xn--bcher-kva.example"

ISTIO = """\
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {name: istio, namespace: shop}
spec:
  destination: {service: "*istio.example"}
  ports:
  - {port: 80, protocol: http}
  - {port: 443, protocol: https}
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {name: network, namespace: shop}
spec:
  destination: {service: 203.0.113.32/27}
  ports:
  - {port: 443, protocol: tcp}
"""
TLS_MODES = """\
---
apiVersion: egress.mitmproxy/v1
kind: EgressRule
metadata: {name: modes}
spec:
  destination: {service: modes.example}
  ports:
  - {port: 80, protocol: http, targetPort: 443, tls: {mode: originate}}
  - {port: 443, protocol: https, tls: {mode: passthrough}}
  - {port: 8443, protocol: https, targetPort: 443, tls: {mode: originate}}
"""
RULES = {
    "shop.yaml": rule("shop", "shop.example", "80 http", "443 https"),
    "wild.yaml": rule("wild", "*.wild.example", "80 http", "443 https")
    + rule("wild-secret", "*.secret.wild.example", "80 http", "443 https", action="deny")
    + rule("wild-open", "open.secret.wild.example", "80 http"),
    "port.yaml": rule("ports", "ports.example", "80 http 8080", "8081 http"),
    "idn.yaml": rule("idn", BOOKS, "80 http", "443 https"),
    "db.yaml": rule("database", "db.example", "5432 tcp")
    + rule("inside", "inside.example", "80 http", private=True)
    + rule("not-inside", "outside.example", "80 http", "5432 tcp"),
    "broken.yaml": rule("broken", ["nowhere.example", "closed.example", "self-signed.example"], "80 http", "443 https"),
    "istio.yaml": ISTIO,
    "modes.yaml": TLS_MODES,
    "v6.yaml": rule("v6", "2001:db8::10", "80 http", "443 https"),
}
NAMES = {
    "shop.example": ["203.0.113.10"],
    "wild.example": ["203.0.113.10"],
    "www.wild.example": ["203.0.113.10"],
    "a.b.wild.example": ["203.0.113.10"],
    "x.secret.wild.example": ["203.0.113.10"],
    "open.secret.wild.example": ["203.0.113.10"],
    "ports.example": ["203.0.113.11"],
    BOOKS_A: ["203.0.113.10"],
    "db.example": ["203.0.113.12"],
    "inside.example": ["10.0.0.5"],
    "outside.example": ["10.0.0.5"],
    "closed.example": ["203.0.113.99"],
    "self-signed.example": ["203.0.113.13"],
    "istio.example": ["203.0.113.10"],
    "notistio.example": ["203.0.113.10"],
    "modes.example": ["203.0.113.10"],
    "denied.example": ["203.0.113.66"],
}


@pytest.fixture(scope="module")
def world(shared_gateway, data_path: str, module_dns: DnsServer, module_origin: Origins, ca) -> World:
    for name, addresses in NAMES.items():
        module_dns.set(name, addresses)
    port = free_port()
    return World(shared_gateway(RULES, data_path=data_path, mode=["regular", f"socks5@{port}"]), Port(port), ca)


@pytest.fixture
def hurried_world(world: World, shared_gateway, data_path: str) -> World:
    """Does not wait for a client that says nothing."""
    return World(shared_gateway(RULES, {"egress_hello_timeout": 1}, data_path=data_path), world.socks, world.ca)


@pytest.fixture(scope="module", autouse=True)
def origins(module_origin: Origins, ca) -> None:
    certificate = ca.issue(*[name for name in NAMES if name != "denied.example"], "203.0.113.40", "2001:db8::10")
    for address in ("203.0.113.10", "2001:db8::10", "10.0.0.5"):
        module_origin.http(address, 80, name="origin")
        module_origin.https(address, "origin", certificate=certificate)
    module_origin.http("203.0.113.11", 8080, name="origin on 8080")
    module_origin.http("203.0.113.11", 8081, name="origin on 8081")
    module_origin.tcp("203.0.113.12", 5432, greeting=b"ready\n")
    module_origin.tcp("203.0.113.40", 443)
    module_origin.https("203.0.113.13", "origin", certificate=ca.self_signed("self-signed.example"))
    module_origin.http("203.0.113.66", 80, name="denied")
    module_origin.https("203.0.113.66", "denied.example")


# --- what a client does: each returns what it saw ---

type Act = Callable[[World], str]


def get(url: str, method: str = "GET", body: bytes = b"", host: str | None = None) -> Act:
    """A request to the proxy."""

    def act(world: World) -> str:
        headers = {} if host is None else {"Host": host}
        response = request_via_proxy(world.gateway, method, url, headers, body)
        return f"{response.status} {response.header('x-egress-reason') or response.text.strip()}".strip()

    return act


def connect(target: str) -> Act:
    """CONNECT, and no more."""

    def act(world: World) -> str:
        status, sock = connect_tunnel(world.gateway, target)
        sock.close()
        return str(status)

    return act


def in_tunnel(target: str, path: str = "/", host: str | None = None) -> Act:
    """CONNECT, and plain HTTP in the tunnel."""

    def act(world: World) -> str:
        status, sock = connect_tunnel(world.gateway, target)
        with sock:
            assert status == 200
            response = request_over(sock, "GET", path, {"Host": host or target})
        return f"{response.status} {response.header('x-egress-reason') or response.text.strip()}"

    return act


def tls(target: str, sni: str | None = None, *, socks: bool = False) -> Act:
    """A tunnel, and TLS that the client opens itself."""

    def act(world: World) -> str:
        host, _, port = target.rpartition(":")
        if socks:
            code, sock = socks5_connect(world.socks, host, int(port))
            assert code == 0
        else:
            status, sock = connect_tunnel(world.gateway, target)
            assert status == 200
        try:
            with sock, tls_client(sock, sni or host, world.ca.pem_path) as secured:
                return str(request_over(secured, "GET", "/", {"Host": sni or host}).status)
        except ssl.SSLError as error:
            refused = error.reason.endswith(("ACCESS_DENIED", "UNRECOGNIZED_NAME", "INTERNAL_ERROR"))
            return "alert" if refused else f"no alert: {error}"

    return act


def talk(target: str, said: bytes = b"", *, hears: int | None = None, socks: bool = False) -> Act:
    """A tunnel, and bytes: so many come back, or what comes before the end."""

    def act(world: World) -> str:
        host, _, port = target.rpartition(":")
        if socks:
            code, sock = socks5_connect(world.socks, host.strip("[]"), int(port))
            if code:
                sock.close()
                return f"reply {code}"
        else:
            status, sock = connect_tunnel(world.gateway, target)
            if status != 200:
                sock.close()
                return str(status)
        with sock:
            sock.sendall(said)
            if hears is not None:
                return read_exactly(sock, hears).decode()
            reply = read_reply(sock)
        return "nothing" if not reply and reply.ending != "quiet" else reply.decode()

    return act


NO = ("deny", "no_rule", None)


def denied(reason: str, rule: str | None = None) -> tuple[str, str, str | None]:
    return "deny", reason, rule and f"default/{rule}"


def by(rule: str) -> tuple[str, str, str | None]:
    return "allow", "allowed", f"default/{rule}"


def failed(reason: str, rule: str) -> tuple[str, str, str | None]:
    return "allow", reason, f"default/{rule}"


SHOP = ("allow", "allowed", "shop/istio")

SCENARIOS: dict[str, tuple[Act, str, tuple[str, str, str | None]]] = {
    # http
    "an allowed host over http": (get("http://shop.example/a?b=c"), "200 /a of origin", by("shop")),
    "the same with its port": (get("http://shop.example:80/a"), "200 /a of origin", by("shop")),
    "a POST with a body": (get("http://shop.example/status/201", "POST", b"x" * 10_000), "201", by("shop")),
    "a HEAD": (get("http://shop.example/", "HEAD"), "200", by("shop")),
    "a method nobody has heard of": (get("http://shop.example/x", "PURGE"), "200 /x of origin", by("shop")),
    "an error of the origin": (get("http://shop.example/status/503"), "503", by("shop")),
    "a host without a rule": (get("http://denied.example/"), "403 no_rule", NO),
    "a host without a rule that does not exist": (get("http://no-such-name.example/"), "403 no_rule", NO),
    "a port without a rule": (get("http://shop.example:8080/"), "403 port_not_allowed", denied("port_not_allowed")),
    "plain http in a tunnel": (in_tunnel("shop.example:80", "/t"), "200 /t of origin", by("shop")),
    "a tunnel to a denied host": (connect("denied.example:443"), "403", NO),
    # origination
    "http to port 443 leaves as TLS": (get("http://shop.example:443/o"), "200 /o of origin", by("shop")),
    "an https URI leaves as TLS": (get("https://shop.example/o"), "200 /o of origin", by("shop")),
    "plain http in a tunnel to port 443 leaves as TLS": (
        in_tunnel("shop.example:443", "/o"),
        "200 /o of origin",
        by("shop"),
    ),
    "an https URI to a port for plain http": (
        get("https://shop.example:80/", host="shop.example:80"),
        "403 protocol_not_allowed",
        denied("protocol_not_allowed", "shop"),
    ),
    "http to port 80 of a rule that originates": (get("http://modes.example/m"), "200 /m of origin", by("modes")),
    "http to a port that originates elsewhere": (get("http://modes.example:8443/m"), "200 /m of origin", by("modes")),
    "TLS to a port that only originates": (
        tls("modes.example:8443"),
        "alert",
        denied("protocol_not_allowed", "modes"),
    ),
    "http to a port that only passes TLS": (
        get("http://modes.example:443/"),
        "403 protocol_not_allowed",
        denied("protocol_not_allowed", "modes"),
    ),
    # passthrough
    "TLS to an allowed host": (tls("shop.example:443"), "200", by("shop")),
    "TLS to an allowed host through SOCKS5": (tls("shop.example:443", socks=True), "200", by("shop")),
    "TLS with another server name": (
        tls("shop.example:443", "denied.example"),
        "alert",
        denied("sni_mismatch", "shop"),
    ),
    "TLS to a port for plain http": (tls("shop.example:80"), "alert", denied("protocol_not_allowed", "shop")),
    "TLS to a port that only passes TLS": (tls("modes.example:443"), "200", by("modes")),
    "something else to a port for TLS": (
        talk("shop.example:443", b"SSH-2.0-x\r\n"),
        "nothing",
        denied("protocol_unknown", "shop"),
    ),
    # tcp
    "a database that greets first": (talk("db.example:5432", hears=6), "ready\n", by("database")),
    "a database through SOCKS5": (talk("db.example:5432", hears=6, socks=True), "ready\n", by("database")),
    "any bytes to a database": (talk("db.example:5432", b"any", hears=9), "ready\nany", by("database")),
    "another port of the database": (talk("db.example:5433"), "403", denied("port_not_allowed")),
    "another port of the database through SOCKS5": (
        talk("db.example:5433", socks=True),
        "reply 2",
        denied("port_not_allowed"),
    ),
    "an address in an allowed network": (
        talk("203.0.113.40:443", b"any", hears=3),
        "any",
        ("allow", "allowed", "shop/network"),
    ),
    "an address outside the allowed network": (talk("203.0.113.66:443", b"any"), "403", NO),
    "an IPv6 address with a rule": (get("http://[2001:db8::10]/"), "200 / of origin", by("v6")),
    "an IPv6 address with a rule, in another spelling": (
        get("http://[2001:0DB8:0:0::10]/"),
        "200 / of origin",
        by("v6"),
    ),
    # wildcards
    "a name below a wildcard": (get("http://www.wild.example/"), "200 / of origin", by("wild")),
    "a name far below a wildcard": (get("http://a.b.wild.example/"), "200 / of origin", by("wild")),
    "the apex of a wildcard": (get("http://wild.example/"), "403 no_rule", NO),
    "a name that only ends like a wildcard": (get("http://notwild.example/"), "403 no_rule", NO),
    "TLS to a name below a wildcard": (tls("www.wild.example:443"), "200", by("wild")),
    "a wildcard without a dot, as Istio has it": (get("http://notistio.example/"), "200 / of origin", SHOP),
    "its star stands for something": (get("http://istio.example/"), "403 no_rule", NO),
    # deny
    "a name below a denied wildcard": (
        get("http://x.secret.wild.example/"),
        "403 denied_by_rule",
        denied("denied_by_rule", "wild-secret"),
    ),
    "TLS to a name below a denied wildcard": (
        connect("x.secret.wild.example:443"),
        "403",
        denied("denied_by_rule", "wild-secret"),
    ),
    "an exact name below a denied wildcard": (
        get("http://open.secret.wild.example/"),
        "200 / of origin",
        by("wild-open"),
    ),
    # spellings
    "capitals": (get("http://SHOP.Example/"), "200 / of origin", by("shop")),
    "a dot at the end": (get("http://shop.example./"), "200 / of origin", by("shop")),
    "capitals and a dot in TLS": (tls("Shop.Example.:443", "SHOP.example"), "200", by("shop")),
    "an international name in its ASCII form": (get(f"http://{BOOKS_A}/"), "200 / of origin", by("idn")),
    "an international name over TLS": (tls(f"{BOOKS_A}:443"), "200", by("idn")),
    "an international name through SOCKS5": (tls(f"{BOOKS}:443", BOOKS_A, socks=True), "200", by("idn")),
    "a name with an empty label": (
        get("http://shop..example/"),
        "400 malformed_host",
        denied("malformed_host"),
    ),
    # target ports
    "a port that is another one outside": (get("http://ports.example/"), "200 / of origin on 8080", by("ports")),
    "a port that is the same outside": (get("http://ports.example:8081/"), "200 / of origin on 8081", by("ports")),
    "the port outside is not allowed by itself": (
        get("http://ports.example:8080/"),
        "403 port_not_allowed",
        denied("port_not_allowed"),
    ),
    # addresses
    "a private address with allowPrivate": (get("http://inside.example/"), "200 / of origin", by("inside")),
    "a private address without allowPrivate": (
        get("http://outside.example/"),
        "403 address_not_allowed",
        denied("address_not_allowed", "not-inside"),
    ),
    "a private address without allowPrivate, over tcp": (
        talk("outside.example:5432"),
        "403",
        denied("address_not_allowed", "not-inside"),
    ),
    "an address without a rule": (get("http://203.0.113.10/"), "403 no_rule", NO),
    # claims
    "a Host header that names another": (
        get("http://shop.example/", host="denied.example"),
        "421 host_mismatch",
        denied("host_mismatch", "shop"),
    ),
    "another Host in a tunnel": (
        in_tunnel("shop.example:80", host="denied.example"),
        "421 host_mismatch",
        denied("host_mismatch", "shop"),
    ),
    # failures
    "an allowed name that does not exist": (
        get("http://nowhere.example/"),
        "502 name_not_resolved",
        failed("name_not_resolved", "broken"),
    ),
    "an allowed host that does not listen": (
        get("http://closed.example/"),
        "502 connect_failed",
        failed("connect_failed", "broken"),
    ),
    "an allowed host whose certificate is nobody's": (
        get("http://self-signed.example:443/"),
        "502 upstream_tls_failed",
        failed("upstream_tls_failed", "broken"),
    ),
    "TLS to an allowed host that does not listen": (
        tls("closed.example:443"),
        "alert",
        failed("connect_failed", "broken"),
    ),
}


@pytest.mark.parametrize("sentence", SCENARIOS)
def test_scenario(world: World, dns: DnsServer, sentence: str) -> None:
    plays(world, dns, *SCENARIOS[sentence])


def test_next_to_nothing_to_a_port_for_tls(hurried_world: World, dns: DnsServer) -> None:
    plays(hurried_world, dns, talk("shop.example:443", b"G"), "nothing", ("deny", "client_timeout", None))


def plays(world: World, dns: DnsServer, act: Act, outcome: str, logged: tuple[str, str, str | None]) -> None:
    verdict, reason, rule_key = logged
    before = decisions(world.gateway)
    told = log_from_now(world.gateway)
    assert act(world) == outcome
    [entry] = eventually(told, "a line in the access log")
    assert (entry["verdict"], entry["reason"], entry["rule"]) == (verdict, reason, rule_key)
    now = decisions(world.gateway)
    denials = {key[1]: now[key] - before.get(key, 0) for key in now if key[0] == "deny" and now[key] != before.get(key)}
    assert denials == ({reason: 1} if verdict == "deny" else {})
    if entry["rule"] is not None:
        assert ".yaml:" in entry["rule_source"]
    if verdict == "deny" and reason != "address_not_allowed":
        assert dns.queries == []
