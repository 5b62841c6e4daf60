"""Everything the acts need, set up in a folder and on ports of its own, and taken down again whatever happens."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from .clients import Address, Reply, ask
from .console import Console
from .names import NameServer
from .network import port_free_on
from .origins import GoogleApis, Loot, Origin
from .processes import Program, ProgramFailed
from .telling import Metrics

ROOT = Path(__file__).resolve().parent.parent
_HERE = Path(__file__).resolve().parent

BOOKS, EVIL, INSIDE = "127.0.0.2", "127.0.0.3", "127.0.0.4"
NAMES = {
    "www.googleapis.com": BOOKS,
    "fcm.googleapis.com": BOOKS,
    "evil.example": EVIL,
    "rebind.googleapis.com": INSIDE,  # an allowed name that somebody points at an inside address
}
_PUBLIC = f"{BOOKS}/32,{EVIL}/32"
"""Loopback stands in for the internet; `INSIDE` is left out, and so is as private as any loopback address."""


class Differs(Exception):
    """The world is not as the story has it."""


@dataclass(slots=True)
class Stage:
    """What the acts play with."""

    console: Console
    rules: Path
    """The gateway's rules directory, empty at first."""
    rule_file: str
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
    gateway: Program
    proxy: Address
    metrics: Metrics
    access_log: Path
    details_plain: Address
    details_tls: Address
    details_language: str
    refusals: Counter[str] = field(default_factory=Counter)
    """What clients were told, by reason."""

    def check(self, holds: bool, claim: str, found: object) -> None:
        """Says that `claim` holds. Raises Differs, having said what was `found`, where it does not."""
        if not holds:
            self.console.differs(claim, f"found: {found}")
            raise Differs(claim)
        self.console.holds(claim)

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

    def egressctl(self, *arguments: str) -> str:
        """Runs egressctl on the rules directory and returns what it says. Raises Differs when it fails."""
        command = ["scripts/egressctl", "--rules", str(self.rules), *arguments]
        self.console.command(" ".join(command))
        done = subprocess.run(command, cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False)
        self.console.output(done.stdout + done.stderr)
        if done.returncode != 0:
            raise Differs(f"egressctl {arguments[0]} succeeds (exit status {done.returncode})")
        return done.stdout

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
        authority = _Authority(folder)
        books = stack.enter_context(Origin(BOOKS, port, GoogleApis, authority.server_context("*.googleapis.com")))
        loot = authority.server_context("evil.example", "*.googleapis.com")
        evil = stack.enter_context(Origin(EVIL, port, Loot, loot)), stack.enter_context(Origin(EVIL, evil_port, Loot))
        inside = stack.enter_context(Origin(INSIDE, port, Loot, loot))
        names = stack.enter_context(NameServer(NAMES))
        proxy = ("127.0.0.1", port_free_on(["127.0.0.1"], 8080))
        metrics = Metrics(("127.0.0.1", port_free_on(["127.0.0.1"], 9464)))
        gateway = stack.enter_context(_gateway(folder, rules, names, proxy, metrics, authority))
        details = [stack.enter_context(_details(folder, proxy, port, with_istio, authority)) for with_istio in (1, 0)]
        _wait_until_ready(gateway, metrics)
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


class _Authority:
    """The certificate authority of the demo: nobody else trusts it, and it is gone with the folder."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA(organization_name="Egress gateway demo")
        self.path = folder / "demo-ca.pem"
        self._authority.cert_pem.write_to_path(str(self.path))
        self.issued: dict[str, bytes] = {}
        """Certificates by their first name, DER."""

    def server_context(self, *names: str) -> ssl.SSLContext:
        certificate = self._authority.issue_cert(*names)
        self.issued[names[0]] = ssl.PEM_cert_to_DER_cert(certificate.cert_chain_pems[0].bytes().decode("ascii"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
        return context


def _gateway(
    folder: Path, rules: Path, names: NameServer, proxy: Address, metrics: Metrics, authority: _Authority
) -> Program:
    settings = {
        "confdir": folder / "mitmproxy",
        "egress_dns_servers": names.address,
        "egress_public_ranges": _PUBLIC,
        "ssl_verify_upstream_trusted_ca": authority.path,
    }
    command = ["scripts/gateway", "--rules", str(rules), "--listen-port", str(proxy[1])]
    command += ["--metrics-listen", f"{metrics.address[0]}:{metrics.address[1]}"]
    command += ["--access-log", str(folder / "access.jsonl")]
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    return Program("the gateway", command, _environment(PYTHONUNBUFFERED="1"), ROOT)


def _details(folder: Path, proxy: Address, port: int, with_istio: int, authority: _Authority) -> Program:
    ruby = shutil.which("ruby")
    command = [ruby, str(_HERE / "details.rb")] if ruby else [sys.executable, str(_HERE / "details.py")]
    url = f"http://{proxy[0]}:{proxy[1]}"
    env = _environment(
        http_proxy=url,
        https_proxy=url,
        BOOKS_PORT=str(port),
        WITH_ISTIO="true" if with_istio else "false",
        SSL_CERT_FILE=str(authority.path),
    )
    return Program("the details service", command, env, folder)


def _wait_until_ready(gateway: Program, metrics: Metrics, timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not metrics.ready():
        if gateway.ended or time.monotonic() > deadline:
            raise ProgramFailed(f"the gateway did not start:\n{gateway.last_words()}")
        time.sleep(0.05)


def _rule_file(path: Path, port: int, folder: Path) -> str:
    """`path` as a command in the project's folder names it; a copy with another port where 443 is taken."""
    if port == 443:
        return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
    copy = folder / path.name
    copy.write_text(re.sub(r"\b(port:\s*)443\b", rf"\g<1>{port}", path.read_text(encoding="utf-8")), encoding="utf-8")
    return str(copy)


def _environment(**also: str) -> dict[str, str]:
    """This process's environment without the proxies and rules that somebody has set for other purposes."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith("_proxy") and name not in ("EGRESS_RULES", "SSL_CERT_FILE", "SSL_CERT_DIR")
    }
    return kept | also
