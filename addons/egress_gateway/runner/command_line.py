"""What the user asked for: mitmdump's own command line and configuration file, and a few flags of ours.

mitmproxy parses, converts and checks its options here as it does in mitmdump, with all its addons in place, so that
whatever was right there is right here, and what was wrong is told in the same words.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from mitmproxy import exceptions, options, optmanager
from mitmproxy.addons.errorcheck import ErrorCheck
from mitmproxy.tools import cmdline
from mitmproxy.tools.dump import DumpMaster
from mitmproxy.tools.main import process_options
from mitmproxy.utils import arg_check, debug

from egress_gateway.hooks.gateway import EgressGateway
from egress_gateway.hooks.options import take_unusable

from . import misspelt, scripts, shown

DRAIN_TIMEOUT = 30.0
"""Seconds."""
_LONGEST_DRAIN = 604_800.0
_LAST_PORT = 65_535
_QUIETER = {"tornado": "WARNING", "asyncio": "WARNING", "hpack": "WARNING", "quic": "WARNING"}


class CannotStart(Exception):
    """What is wrong has been told already, or each of `args` is one line of it for the operator."""


@dataclass(frozen=True, slots=True)
class Setup:
    """All that is known before the first worker."""

    master: DumpMaster
    gateway: EgressGateway
    workers: int | None
    """None: one a core."""
    drain_timeout: float
    """Seconds."""

    @property
    def options(self) -> Any:
        return self.master.options

    @property
    def errors(self) -> list[logging.LogRecord]:
        """What has been logged as an error so far."""
        check = cast(ErrorCheck, self.master.addons.get("errorcheck"))
        return check.logger.has_errored


class _NoLoop:
    """Stands in for the event loop of a master while there is none. Log entries would be sent through it to addons."""

    def call_soon_threadsafe(self, *_: Any) -> None:
        """There is nobody to call."""


def prepare(arguments: Sequence[str], make_gateway: Callable[[], EgressGateway]) -> Setup:
    """Raises CannotStart, and SystemExit where the user asked for something to be shown, or argparse has spoken."""
    logging.getLogger().setLevel(logging.DEBUG)
    for name, level in _QUIETER.items():
        logging.getLogger(name).setLevel(level)
    debug.register_info_dumpers()
    opts = options.Options()
    master = DumpMaster(opts, loop=_NoLoop())
    shown.part_errors(master)
    scripts.hold_back(master)
    parsed = parse(opts, arguments)
    gateway = make_gateway()
    try:
        opts.set(*parsed.setoptions, defer=True)
        optmanager.load_paths(opts, os.path.join(opts.confdir, "config.yaml"), os.path.join(opts.confdir, "config.yml"))
        process_options(None, opts, parsed)
        if parsed.options:
            _show(lambda: asyncio.run(_show_options(master, gateway)))
        if parsed.commands:
            _show(master.commands.dump)
        opts.update(**_filters(parsed))
        if opts.listen_port is not None and not 0 <= opts.listen_port <= _LAST_PORT:
            # The system would take what is left of it above 65536.
            raise CannotStart(f"{opts.listen_port} is not a port (use 1 to {_LAST_PORT})")
    except exceptions.OptionsError as error:
        raise CannotStart(str(error)) from None
    _add(master, gateway)
    gateway.begin()
    setup = Setup(master, gateway, parsed.workers, parsed.drain_timeout)
    if setup.errors:
        raise CannotStart
    return setup


def _show(tell: Callable[[], None]) -> NoReturn:
    """Ends in peace also where whoever reads has read enough, as `head` does."""
    try:
        tell()
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or it fails once more at the exit
    raise SystemExit(0)


async def _show_options(master: DumpMaster, gateway: EgressGateway) -> None:
    await scripts.load(master)
    _add(master, gateway)
    optmanager.dump_defaults(master.options, sys.stdout)


def _add(master: DumpMaster, gateway: EgressGateway) -> None:
    # As a script does it: options are declared when those that were set are known.
    gateway.problems += take_unusable(master.options)
    master.addons.add(gateway)


def parse(opts: options.Options, arguments: Sequence[str]) -> argparse.Namespace:
    """Raises SystemExit: 1 where something is wrong, which has been told."""
    parser = cmdline.mitmdump(opts)
    parser.prog = "gateway"
    ours = parser.add_argument_group("Gateway")
    ours.add_argument(
        "--workers", metavar="N", type=_workers, help="Processes that serve clients. Default: one a core."
    )
    ours.add_argument(
        "--drain-timeout",
        metavar="SECONDS",
        type=_seconds,
        default=DRAIN_TIMEOUT,
        help="How long connections may take to finish at the end. Default: 30.",
    )
    try:
        parsed: argparse.Namespace
        parsed, unknown = parser.parse_known_args(list(arguments))
        if unknown:
            known = parser._option_string_actions  # all flags; argparse has no public word for them
            parser.error(f"unrecognized arguments: {misspelt.told(unknown, known)}")
    except SystemExit as ended:
        if ended.code:
            print(_hints(), end="", file=sys.stderr)
            raise SystemExit(1) from None
        raise
    return parsed


def _hints() -> str:
    """What mitmproxy knows of flags that it had once, or that are written in another way; lines."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(TypeError):  # it does not expect an empty argument
        arg_check.check()
    return said.getvalue().lstrip()


def _workers(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes (write e.g. 2)")
    if not int(text):
        raise argparse.ArgumentTypeError("0 is too few (use 1 or more)")
    return int(text)


def _seconds(text: str) -> float:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds (write e.g. 30)")
    seconds = float(text)
    if seconds > _LONGEST_DRAIN:
        raise argparse.ArgumentTypeError(f"more than {_LONGEST_DRAIN:.0f} seconds, which is a week, is too long")
    return seconds


def _filters(parsed: argparse.Namespace) -> dict[str, str]:
    """As mitmdump does it."""
    if not parsed.filter_args:
        return {}
    text = " ".join(parsed.filter_args)
    return dict.fromkeys(("save_stream_filter", "readfile_filter", "dumper_filter"), text)
