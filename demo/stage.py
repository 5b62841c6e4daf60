"""Everything the acts need, set up in a folder and on ports of its own, and taken down again whatever happens."""

from __future__ import annotations

import re
import shutil
import ssl
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from .authority import Authority
from .base_stage import HERE, ROOT, BaseStage, as_in_project, environment, gateway_command, wait_until_ready
from .clients import Address, Reply, ask
from .console import Console
from .names import NameServer
from .network import port_free_on
from .origins import GoogleApis, Loot, Origin
from .processes import Program
from .telling import Metrics

BOOKS, EVIL, INSIDE = "127.0.0.2", "127.0.0.3", "127.0.0.4"
NAMES = {
    "www.googleapis.com": BOOKS,
    "fcm.googleapis.com": BOOKS,
    "evil.example": EVIL,
    "rebind.googleapis.com": INSIDE,  # an allowed name that somebody points at an inside address
}
_PUBLIC = f"{BOOKS}/32,{EVIL}/32"
"""Loopback stands in for the internet; `INSIDE` is left out, and so is as private as any loopback address."""


@dataclass(slots=True, kw_only=True)
class Stage(BaseStage):
    """What the acts play with."""

    port: int
    """The port of HTTPS: 443, unless it is taken."""
    evil_port: int
    books: Origin
    evil: tuple[Origin, Origin]
    inside: Origin
    names: NameServer
    trust: ssl.SSLContext
    """Of clients that trust the demo's authority."""
    certificate: bytes
    """The books origin's own, DER."""
    proxy: Address
    details_plain: Address
    details_tls: Address
    details_language: str

    def introduce(self, hindrance: str) -> None:
        """`hindrance`: why there is no network of our own; empty where there is one."""
        port = self.port
        self.console.rows(
            [
                ("details", "127.0.0.1", f"the application, in {self.details_language}; http_proxy is the gateway"),
                ("gateway", f"127.0.0.1:{self.proxy[1]}", "scripts/gateway, with the rules of an empty directory"),
                (
                    "googleapis",
                    f"{BOOKS}:{port}",
                    "stands in for www.googleapis.com; its authority was made just now",
                ),
                ("evil", f"{EVIL}:{port}, :{self.evil_port}", "evil.example, which must never hear from us"),
                ("inside", f"{INSIDE}:{port}", "a service inside, which is nobody's business either"),
                ("DNS", self.names.address, "knows these names and no others"),
            ]
        )
        if hindrance:
            self.console.say(f"No network of our own ({hindrance}), so these are this machine's loopback addresses.")
        if port != 443:
            self.console.say(f"Port 443 is not to be had here, so HTTPS is on port {port}, in the rule as well.")

    def ask_details(self, details: Address) -> Reply:
        """Asks the details service for a book."""
        reply = ask(details, "GET", "/details/0", {"Host": "details"})
        reason = reply.json().get("reason")
        if reason:
            self.refusals[reason] += 1
        return reply

    def ask_gateway(self, method: str, url: str, host: str, body: str = "") -> Reply:
        """Asks the gateway for `url` with a Host header that says `host`."""
        reply = ask(self.proxy, method, url, {"Host": host}, body)
        if reply.reason:
            self.refusals[reply.reason] += 1
        return reply

    def evil_connections(self) -> int:
        return sum(origin.connections for origin in self.evil)


@contextmanager
def set_up(console: Console, rule_file: Path) -> Iterator[Stage]:
    """The stage, ready to play on. Raises ProgramFailed or OSError when it cannot be built."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="egress-demo-")))
        rules = folder / "rules"
        rules.mkdir()
        port = port_free_on([BOOKS, EVIL, INSIDE], 443)
        evil_port = port_free_on([EVIL], 8080)
        authority = Authority(folder)
        books = stack.enter_context(Origin(BOOKS, port, GoogleApis, authority.server_context("*.googleapis.com")))
        loot = authority.server_context("evil.example", "*.googleapis.com")
        evil = stack.enter_context(Origin(EVIL, port, Loot, loot)), stack.enter_context(Origin(EVIL, evil_port, Loot))
        inside = stack.enter_context(Origin(INSIDE, port, Loot, loot))
        names = stack.enter_context(NameServer(NAMES))
        proxy = ("127.0.0.1", port_free_on(["127.0.0.1"], 8080))
        metrics = Metrics(("127.0.0.1", port_free_on(["127.0.0.1"], 9464)))
        gateway = stack.enter_context(_gateway(folder, rules, names, proxy, metrics, authority))
        details = [stack.enter_context(_details(folder, proxy, port, with_istio, authority)) for with_istio in (1, 0)]
        wait_until_ready(gateway, metrics)
        announced = [program.wait_for(r"details \((.+)\) listens on port (\d+)") for program in details]
        yield Stage(
            console=console,
            rules=rules,
            rule_file=_rule_file(rule_file, port, folder),
            port=port,
            evil_port=evil_port,
            books=books,
            evil=evil,
            inside=inside,
            names=names,
            trust=ssl.create_default_context(cafile=str(authority.path)),
            certificate=authority.issued["*.googleapis.com"],
            gateway=gateway,
            proxy=proxy,
            metrics=metrics,
            access_log=folder / "access.jsonl",
            details_plain=("127.0.0.1", int(announced[0][2])),
            details_tls=("127.0.0.1", int(announced[1][2])),
            details_language=announced[0][1],
        )


def _gateway(
    folder: Path, rules: Path, names: NameServer, proxy: Address, metrics: Metrics, authority: Authority
) -> Program:
    settings = {
        "egress_dns_servers": names.address,
        "egress_public_ranges": _PUBLIC,
        "ssl_verify_upstream_trusted_ca": authority.path,
    }
    log, port = folder / "access.jsonl", str(proxy[1])
    command = gateway_command(folder, rules, metrics, log, settings, "--listen-port", port)
    return Program("the gateway", command, environment(PYTHONUNBUFFERED="1"), ROOT)


def _details(folder: Path, proxy: Address, port: int, with_istio: int, authority: Authority) -> Program:
    ruby = shutil.which("ruby")
    command = [ruby, str(HERE / "details.rb")] if ruby else [sys.executable, str(HERE / "details.py")]
    url = f"http://{proxy[0]}:{proxy[1]}"
    env = environment(
        http_proxy=url,
        https_proxy=url,
        BOOKS_PORT=str(port),
        WITH_ISTIO="true" if with_istio else "false",
        SSL_CERT_FILE=str(authority.path),
    )
    return Program("the details service", command, env, folder)


def _rule_file(path: Path, port: int, folder: Path) -> str:
    """`path` as a command in the project's folder names it; a copy with another port where 443 is taken."""
    if port == 443:
        return as_in_project(path)
    copy = folder / path.name
    copy.write_text(re.sub(r"\b(port:\s*)443\b", rf"\g<1>{port}", path.read_text(encoding="utf-8")), encoding="utf-8")
    return str(copy)
