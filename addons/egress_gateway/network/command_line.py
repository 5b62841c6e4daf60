"""What `gateway-up` and `gateway-down` were asked, as frozen values. What can be seen wrong here, is said here."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from . import state
from .gateway_process import ROOT, Readiness
from .layout import Kept, Layout, parse_kept, parse_port
from .terminal import UsageError

# What the kernel takes and nft can write.
_INTERFACE = re.compile(r"[A-Za-z0-9_.@+-]{1,15}\Z", re.ASCII)
_LOOPBACK = "lo"
METRICS = "127.0.0.1:9464"
READY_SECONDS = 30.0
_RESERVED = {"tcp": {53}, "udp": {53}}


@dataclass(frozen=True, slots=True)
class UpRequest:
    layout: Layout
    """Without what only the machine knows: no `exempt_uid`, no `served`."""
    rules: str
    """An absolute path."""
    state: Path
    user: str = ""
    sidecar: bool = False
    start: bool = False
    follow: bool = True
    dry_run: bool = False
    json: bool = False
    metrics: str = METRICS
    ready_timeout: float = READY_SECONDS
    more: tuple[str, ...] = ()
    """Arguments for scripts/gateway."""


@dataclass(frozen=True, slots=True)
class DownRequest:
    state: Path
    json: bool = False


class _Parser(argparse.ArgumentParser):
    """Errors are one line, and the help is the manual in the script's header."""

    def __init__(self, **more: Any) -> None:
        super().__init__(add_help=False, allow_abbrev=False, **more)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def parse_up(arguments: Sequence[str]) -> UpRequest:
    """Raises `UsageError`."""
    own, more = _split(arguments)
    parser = _Parser()
    parser.add_argument("--inside", action="append", default=[], type=_checked(_interface))
    parser.add_argument("--outside", type=_checked(_interface))
    parser.add_argument("--rules", default=os.environ.get("EGRESS_RULES") or str(ROOT / "rules"))
    parser.add_argument("--proxy-port", default=8080, type=_checked(parse_port))
    parser.add_argument("--dns-port", default=5353, type=_checked(parse_port))
    parser.add_argument("--keep", action="append", default=[], type=_checked(parse_kept))
    parser.add_argument("--user", default="")
    parser.add_argument("--sidecar", action="store_true")
    parser.add_argument("--start", action="store_true")
    parser.add_argument("--metrics-listen", default=METRICS, type=_checked(_metrics))
    parser.add_argument("--ready-timeout", default=READY_SECONDS, type=_checked(_seconds))
    parser.add_argument("--no-follow", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    _common(parser)
    given = parser.parse_args(own)
    layout = Layout(
        inside=tuple(dict.fromkeys(given.inside)),
        outside=given.outside or "",
        proxy_port=given.proxy_port,
        dns_port=given.dns_port,
        kept=tuple(dict.fromkeys(given.keep)),
    )
    request = UpRequest(
        layout=layout,
        rules=os.path.abspath(given.rules),
        state=Path(os.path.abspath(given.state_dir)),
        user=given.user,
        sidecar=given.sidecar,
        start=given.start,
        follow=not given.no_follow,
        dry_run=given.dry_run,
        json=given.output == "json",
        metrics=given.metrics_listen,
        ready_timeout=given.ready_timeout,
        more=more,
    )
    _check(request)
    return request


def parse_down(arguments: Sequence[str]) -> DownRequest:
    """Raises `UsageError`."""
    parser = _Parser()
    _common(parser)
    given = parser.parse_args(arguments)
    return DownRequest(Path(os.path.abspath(given.state_dir)), given.output == "json")


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--state-dir", default=state.DEFAULT)
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], tuple[str, ...]]:
    """What is ours, and what stands after `--`."""
    if "--" not in arguments:
        return arguments, ()
    at = arguments.index("--")
    return arguments[:at], tuple(arguments[at + 1 :])


def _check(request: UpRequest) -> None:
    layout = request.layout
    if not layout.inside and not request.sidecar:
        raise UsageError("say where the clients are: --inside IF, or --sidecar when they run on this very host")
    if _LOOPBACK in (*layout.inside, layout.outside):
        raise UsageError("lo is this host itself, and the gateway would loop (use --sidecar for programs of this host)")
    if layout.outside in layout.inside:
        raise UsageError(f"{layout.outside} cannot be both inside and outside: the gateway would loop (name two)")
    if layout.proxy_port == layout.dns_port:
        raise UsageError(
            f"the proxy and the name server cannot share port {layout.dns_port} (choose another --dns-port)"
        )
    for kept in layout.kept:
        _check_kept(kept, layout)
    if request.sidecar and not request.user:
        raise UsageError("--sidecar needs --user NAME: the gateway's own user goes out directly, or it would loop")
    if request.start and not request.user:
        raise UsageError("--start needs --user NAME, the ordinary user that the gateway runs as")
    if request.user and not (request.start or request.sidecar):
        raise UsageError("--user says whom --start or --sidecar is about (give one of them, or leave it out)")
    if request.more and not request.start:
        raise UsageError("arguments after -- are for the gateway that --start starts (give --start)")
    for option in ("--rules", "--metrics-listen"):
        if any(argument.split("=")[0] == option for argument in request.more):
            raise UsageError(f"{option} is gateway-up's own option (give it before --)")


def _check_kept(kept: Kept, layout: Layout) -> None:
    own = {layout.proxy_port, layout.dns_port} | _RESERVED.get(kept.protocol, set())
    if kept.port in own:
        raise UsageError(f"--keep {kept} would open the gateway's own port to those it is to hold (leave it out)")


def _checked[Value](parse: Callable[[str], Value]) -> Callable[[str], Value]:
    """For argparse, which drops the text of a ValueError."""

    def parsed(text: str) -> Value:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parsed


def _interface(text: str) -> str:
    if not _INTERFACE.match(text):
        raise ValueError(f"{text!r} is no interface's name (ip -brief link lists them)")
    return text


def _metrics(text: str) -> str:
    Readiness.parse(text)
    return text


def _seconds(text: str) -> float:
    if text.isascii() and text.isdigit() and 1 <= len(text) <= 4 and int(text):
        return float(text)
    raise ValueError(f"{text!r} is not a number of seconds (use 1-9999)")
