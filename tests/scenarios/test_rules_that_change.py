"""Rules change while connections are open: what is still allowed does not notice, the rest ends, within a second."""

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from support.dns_server import DnsServer
from support.gateway import Gateway, read_reply
from support.http import (
    connect_tunnel,
    read_response,
    request_over,
    request_via_proxy,
    socks5_connect,
    tls_client,
)
from support.lab import Port, World, rule, say
from support.origin import Origins
from support.sockets import free_port
from support.waiting import PATIENCE

KEPT, CHANGED = "kept.example", "changed.example"
PORTS = ("80 http", "443 https", "5432 tcp")
FIRST = {"kept.yaml": rule("kept", KEPT, *PORTS), "changed.yaml": rule("changed", CHANGED, *PORTS)}


@pytest.fixture(scope="module")
def running(shared_gateway, data_path: str, module_dns: DnsServer, module_origin: Origins, ca) -> World:
    module_dns.set(KEPT, ["203.0.113.10"])
    module_dns.set(CHANGED, ["203.0.113.11"])
    port = free_port()
    return World(shared_gateway(FIRST, data_path=data_path, mode=["regular", f"socks5@{port}"]), Port(port), ca)


@pytest.fixture(scope="module", autouse=True)
def origins(module_origin: Origins) -> None:
    for name, address in ((KEPT, "203.0.113.10"), (CHANGED, "203.0.113.11")):
        module_origin.http(address, 80)
        module_origin.https(address, name)
        module_origin.tcp(address, 5432)


@pytest.fixture
def world(running: World, dns: DnsServer) -> World:
    """With the first rules."""
    for name, text in FIRST.items():
        path = running.gateway.rules_dir / name
        if not path.exists() or path.read_text() != text:
            running.gateway.write_rule(name, text)
    for path in running.gateway.rules_dir.glob("*.yaml"):
        if path.name not in FIRST:
            running.gateway.delete_rule(path.name)
    return running


@dataclass
class Open:
    """An open connection: `works` sends something through it, `over` waits for its end."""

    works: Callable[[], bool]
    over: Callable[[], bool]
    close: Callable[[], None]


def ended(sock: socket.socket) -> Callable[[], bool]:
    return lambda: read_reply(sock, PATIENCE).ending != "quiet"


def bytes_tunnel(world: World, host: str, *, socks: bool = False) -> Open:
    if socks:
        code, sock = socks5_connect(world.socks, host, 5432)
        assert code == 0
    else:
        status, sock = connect_tunnel(world.gateway, f"{host}:5432")
        assert status == 200

    def works() -> bool:
        sock.sendall(b"ping")
        return sock.recv(100) == b"ping"

    return Open(works, ended(sock), sock.close)


def tls_tunnel(world: World, host: str) -> Open:
    status, sock = connect_tunnel(world.gateway, f"{host}:443")
    assert status == 200
    secured = tls_client(sock, host, world.ca.pem_path)

    def over() -> bool:
        secured.settimeout(PATIENCE)
        try:
            return secured.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    return Open(lambda: request_over(secured, "GET", "/", {"Host": host}).status == 200, over, secured.close)


def websocket(world: World, host: str) -> Open:
    sock = world.gateway.connect()
    lines = ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
    lines += ["Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw=="]
    say(sock, "\r\n".join([f"GET http://{host}/ws HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode())
    assert read_response(sock).status == 101
    ping = b"\x89\x80\x00\x00\x00\x00"

    def works() -> bool:
        sock.sendall(ping)
        return sock.recv(100) == b"\x8a\x00"

    return Open(works, ended(sock), sock.close)


def download(world: World, host: str) -> Open:
    """A response that is still coming."""
    sock = world.gateway.connect()
    say(sock, f"GET http://{host}/bytes/400000000 HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert sock.recv(1)

    def over() -> bool:
        deadline, total = time.monotonic() + PATIENCE, 0
        sock.settimeout(PATIENCE)
        try:
            while time.monotonic() < deadline and (piece := sock.recv(1 << 20)):
                total += len(piece)
        except TimeoutError:
            return False
        except OSError:
            return True
        return total < 400_000_000

    return Open(lambda: bool(sock.recv(100_000)), over, sock.close)


KINDS: dict[str, Callable[[World, str], Open]] = {
    "a tunnel of bytes": bytes_tunnel,
    "a tunnel of bytes through SOCKS5": lambda world, host: bytes_tunnel(world, host, socks=True),
    "a tunnel of TLS": tls_tunnel,
    "a WebSocket": websocket,
    "a download": download,
}

CHANGES: dict[str, Callable[[Gateway], Any]] = {
    "its rule is deleted": lambda gateway: gateway.delete_rule("changed.yaml"),
    "its rule is for another host now": lambda gateway: gateway.write_rule(
        "changed.yaml", rule("changed", "elsewhere.example", *PORTS)
    ),
    "its rule is for other ports now": lambda gateway: gateway.write_rule(
        "changed.yaml", rule("changed", CHANGED, "81 http")
    ),
    "another rule denies it": lambda gateway: gateway.write_rule(
        "deny.yaml", rule("deny", CHANGED, *PORTS, action="deny")
    ),
    "its ports lead elsewhere now": lambda gateway: gateway.write_rule(
        "changed.yaml", rule("changed", CHANGED, "80 http 8080", "443 https 8443", "5432 tcp 5433")
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_what_is_no_longer_allowed_ends_and_the_rest_goes_on(world: World, change: Callable[[Gateway], Any]) -> None:
    kept = {what: begin(world, KEPT) for what, begin in KINDS.items()}
    changed = {what: begin(world, CHANGED) for what, begin in KINDS.items()}
    try:
        assert {what: each.works() for what, each in (kept | changed).items()} == dict.fromkeys(KINDS, True)
        change(world.gateway)
        assert {what: each.over() for what, each in changed.items()} == dict.fromkeys(KINDS, True)
        assert {what: each.works() for what, each in kept.items()} == dict.fromkeys(KINDS, True)
    finally:
        for each in (*kept.values(), *changed.values()):
            each.close()
    entry = world.gateway.wait_for_log(authority=f"{CHANGED}:5432", verdict="deny", detail="the rules changed")
    assert entry["reason"] in ("no_rule", "port_not_allowed", "denied_by_rule", "protocol_not_allowed")


SAME: dict[str, Callable[[Gateway], Any]] = {
    "another rule comes": lambda gateway: gateway.write_rule("more.yaml", rule("more", "more.example", *PORTS)),
    "its rule has another name now": lambda gateway: gateway.write_rule(
        "changed.yaml", rule("renamed", CHANGED, *PORTS)
    ),
    "its rule is in another file now": lambda gateway: (
        gateway.write_rule("moved.yaml", rule("moved", CHANGED, *PORTS)),
        gateway.delete_rule("changed.yaml"),
    ),
    "a wildcard allows it now": lambda gateway: gateway.write_rule(
        "changed.yaml", rule("changed", "*.example", *PORTS)
    ),
    "its rule has more ports now": lambda gateway: gateway.write_rule(
        "changed.yaml", rule("changed", CHANGED, *PORTS, "81 http")
    ),
    "a broken file comes": lambda gateway: gateway.write_rule("bad.yaml", "kind: EgressRule\nspec: 1\n"),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME.keys())
def test_what_is_still_allowed_does_not_notice(world: World, change: Callable[[Gateway], Any]) -> None:
    open_ones = {what: begin(world, CHANGED) for what, begin in KINDS.items()}
    try:
        assert {what: each.works() for what, each in open_ones.items()} == dict.fromkeys(KINDS, True)
        change(world.gateway)
        for _ in range(3):
            assert {what: each.works() for what, each in open_ones.items()} == dict.fromkeys(KINDS, True)
    finally:
        for each in open_ones.values():
            each.close()


def test_an_idle_keep_alive_connection_is_judged_anew(world: World) -> None:
    with world.gateway.connect() as sock:
        assert request_over(sock, "GET", f"http://{CHANGED}/").status == 200
        world.gateway.delete_rule("changed.yaml")
        assert request_over(sock, "GET", f"http://{CHANGED}/").status == 403
        assert request_over(sock, "GET", f"http://{KEPT}/").status == 200
        world.gateway.write_rule("changed.yaml", FIRST["changed.yaml"])
        assert request_over(sock, "GET", f"http://{CHANGED}/").status == 200


def test_a_new_rule_is_in_force_soon(world: World, dns: DnsServer) -> None:
    """Within a second, on a machine that has the time."""
    dns.set("new.example", ["203.0.113.10"])
    assert request_via_proxy(world.gateway, "GET", "http://new.example/").status == 403
    started = time.monotonic()
    world.gateway.write_rule("new.yaml", rule("new", "new.example", "80 http"))
    assert request_via_proxy(world.gateway, "GET", "http://new.example/").status == 200
    assert time.monotonic() - started < 8
    world.gateway.delete_rule("new.yaml")
    assert request_via_proxy(world.gateway, "GET", "http://new.example/").status == 403


@dataclass
class Tally:
    statuses: dict[int, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def test_rules_that_change_all_the_time_disturb_nobody(world: World) -> None:
    """Twenty changes while two clients ask, one for what stays allowed, one for what never is."""
    stop, tallies = threading.Event(), {KEPT: Tally(), "denied.example": Tally()}

    def ask(host: str) -> None:
        with world.gateway.connect() as sock:
            while True:
                try:
                    status = request_over(sock, "GET", f"http://{host}/").status
                except OSError as error:
                    tallies[host].failures.append(str(error))
                    return
                tallies[host].statuses[status] = tallies[host].statuses.get(status, 0) + 1
                if stop.is_set():
                    return

    threads = [threading.Thread(target=ask, args=(host,), daemon=True) for host in tallies]
    for thread in threads:
        thread.start()
    for number in range(20):
        world.gateway.write_rule("more.yaml", rule("more", f"more{number}.example", *PORTS), wait=False)
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert [tally.failures for tally in tallies.values()] == [[], []]
    assert set(tallies[KEPT].statuses) == {200}
    assert set(tallies["denied.example"].statuses) == {403}
