"""Everything the transparent acts need, on networks of its own, and taken down again whatever happens."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from demo.authority import Authority
from demo.base_stage import ROOT, BaseStage, as_in_project, environment, gateway_command, wait_until_ready
from demo.clients import Reply, ask
from demo.console import Console
from demo.datagrams import Echo
from demo.names import NameServer
from demo.origins import GoogleApis, Loot, Origin
from demo.processes import Program
from demo.telling import Metrics

from .browser import find_browser
from .capture import Capture
from .networks import BOOKS, CLIENT, EVIL, EVIL_V6, GATEWAY, IPV6, NAMES, OUTSIDE, PUBLIC, UNTRUSTED, Networks
from .packet_filter import DNS_PORT, PROXY_PORT, PacketFilter
from .shop import Shop
from .ways_round import ALLOWED, DNS_OVER_TLS, OTHER_PORT, QUIC

WITHOUT_RULE, WITH_RULE = "bookinfo-without-rule.png", "bookinfo-with-rule.png"
UNTRUSTED_NAME = "untrusted.googleapis.com"
_EVIL_LISTENS = [
    *((EVIL, port) for port in (80, 443, OTHER_PORT, DNS_OVER_TLS)),
    *([(EVIL_V6, 443)] if IPV6 else []),
]
_NAMES = {ALLOWED: BOOKS, UNTRUSTED_NAME: UNTRUSTED, "evil.example": EVIL}


@dataclass(slots=True, kw_only=True)
class Stage(BaseStage):
    networks: Networks
    packet_filter: PacketFilter
    shop: Shop
    books: Origin
    untrusted: Origin
    names: NameServer
    evil_names: NameServer
    """evil's own, which would send everybody to evil."""
    evil_saw: Capture
    pictures: Path | None
    """Where pictures of the page are to go, where any are wanted."""
    browser: str | None

    def introduce(self) -> None:
        self.console.rows(
            [
                ("client", CLIENT, "Bookinfo: productpage, details, reviews, ratings; the way out is 10.1.0.1"),
                (
                    "gateway",
                    f"{GATEWAY}, {OUTSIDE}",
                    "scripts/gateway, with the rules of an empty directory",
                ),
                ("googleapis", f"{BOOKS}:443", "stands in for www.googleapis.com; its authority was made just now"),
                ("evil", f"{EVIL}", "evil.example, which must never hear from us"),
                ("DNS", f"{NAMES}:53", "knows these names and no others"),
            ]
        )
        if self.pictures is not None and self.browser is None:
            self.console.say("Chromium is not installed, so there will be no pictures.")

    def ask_as_client(self, address: str, port: int, path: str, host: str) -> Reply:
        """Plain HTTP from the client's network to `address`, with a Host header that says `host`."""
        with self.networks.client.entered():
            reply = ask((address, port), "GET", path, {"Host": host, "Accept": "text/plain"})
        if reply.reason and reply.status < 500:  # beyond, it was allowed and then failed
            self.refusals[reply.reason] += 1
        return reply

    def take_picture(self, name: str) -> None:
        if self.pictures is not None and self.browser is not None:
            self.shop.take_picture(self.browser, self.pictures / name)
            size = (self.pictures / name).stat().st_size
            self.console.holds(f"a picture of it, by {Path(self.browser).name}: {self.pictures / name} ({size} bytes)")


@contextmanager
def set_up(console: Console, rule_file: Path, pictures: Path | None) -> Iterator[Stage]:
    """The stage, ready to play on. Call it in the network that is to be the internet.

    Raises ProgramFailed or OSError when it cannot be built.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="egress-demo-")))
        rules = folder / "rules"
        rules.mkdir()
        networks = stack.enter_context(Networks())
        authority, nobodys = Authority(folder), Authority(folder, "nobodys-ca")
        books = stack.enter_context(Origin(BOOKS, 443, GoogleApis, authority.server_context("*.googleapis.com")))
        untrusted = stack.enter_context(Origin(UNTRUSTED, 443, GoogleApis, nobodys.server_context(UNTRUSTED_NAME)))
        names = stack.enter_context(NameServer(_NAMES, NAMES, 53))
        with networks.evil.entered():
            loot = authority.server_context("evil.example", "*.googleapis.com")
            for address, port in _EVIL_LISTENS:
                stack.enter_context(Origin(address, port, Loot, loot if port == 443 else None))
            stack.enter_context(Echo(EVIL, QUIC))
            evil_names = stack.enter_context(NameServer(dict.fromkeys(_NAMES, EVIL), EVIL, 53))
            evil_saw = stack.enter_context(Capture("eth0", [EVIL, EVIL_V6]))
        packet_filter = stack.enter_context(PacketFilter(networks.gateway, folder))
        metrics = Metrics(("127.0.0.1", 9464), networks.gateway.entered)
        with networks.gateway.entered():
            gateway = stack.enter_context(_gateway(folder, rules, metrics, authority))
        shop = stack.enter_context(Shop(networks.client, folder))
        wait_until_ready(gateway, metrics)
        yield Stage(
            console=console,
            rules=rules,
            rule_file=as_in_project(rule_file),
            gateway=gateway,
            metrics=metrics,
            access_log=folder / "access.jsonl",
            networks=networks,
            packet_filter=packet_filter,
            shop=shop,
            books=books,
            untrusted=untrusted,
            names=names,
            evil_names=evil_names,
            evil_saw=evil_saw,
            pictures=pictures,
            browser=find_browser(),
        )


def _gateway(folder: Path, rules: Path, metrics: Metrics, authority: Authority) -> Program:
    settings = {
        "egress_dns_servers": f"{NAMES}:53",
        "egress_public_ranges": PUBLIC,
        "ssl_verify_upstream_trusted_ca": authority.path,
    }
    modes = ["--mode", f"transparent@{PROXY_PORT}", "--mode", f"dns@{DNS_PORT}", "--listen-host", ""]
    command = gateway_command(folder, rules, metrics, folder / "access.jsonl", settings, *modes)
    return Program("the gateway", command, environment(PYTHONUNBUFFERED="1"), ROOT)
