"""`python -m demo`: plays the acts, and says so when the world is not as the story has it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from . import stage
from .acts import ACTS
from .base_stage import ROOT
from .console import Console
from .ending import Ended, listen
from .network import enter_private
from .play import play
from .processes import ProgramFailed, end_all
from .transparent import stage as transparent_stage
from .transparent.acts import ACTS as TRANSPARENT_ACTS
from .transparent.networks import missing_programs

_EPILOG = """\
exit status:
  0  everything went as the story has it
  1  something differed; the last line says what
  2  the command line was not understood
  130 or 143  ended by Ctrl-C or SIGTERM

NO_COLOR in the environment turns colours off. Nothing of this leaves the machine, and nothing is left behind.
"""


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.host_network and options.transparent:
        parser.error("--transparent needs networks of its own, and --host-network wants none")
    if options.screenshots and not options.transparent:
        parser.error("--screenshots shows a page that only --transparent has")
    if not options.rule_file.is_file():
        print(f"demo: there is no rule file {options.rule_file}", file=sys.stderr)
        return 2
    if options.transparent and (obstacle := _obstacle()):
        print(f"demo: {obstacle}", file=sys.stderr)
        return 1
    console = Console(sys.stdout, fast=options.fast)
    listen()
    try:
        # Threads come later: a process that has some cannot move.
        hindrance = "--host-network was given" if options.host_network else enter_private()
        rule_file = options.rule_file.resolve()
        if options.transparent:
            return _play_transparent(console, rule_file, options.screenshots, hindrance)
        return _play_on_loopback(console, rule_file, hindrance)
    except Ended as ended:
        print(f"demo: ended by {signal.Signals(ended.number).name}", file=sys.stderr)
        return 128 + ended.number
    except (ProgramFailed, OSError) as error:
        print(f"demo: the stage could not be set: {error}", file=sys.stderr)
        return 1
    finally:
        end_all()


def _play_on_loopback(console: Console, rule_file: Path, hindrance: str) -> int:
    console.title("An egress gateway, and what it is for", "A play in seven acts, on loopback only")
    with stage.set_up(console, rule_file) as made:
        made.introduce(hindrance)
        return play(made, ACTS)


def _play_transparent(console: Console, rule_file: Path, pictures: Path | None, hindrance: str) -> int:
    console.title("The transparent gateway", "A play in six acts, on networks of its own")
    if hindrance:
        raise OSError(f"there is no network of its own: {hindrance}")
    with transparent_stage.set_up(console, rule_file, pictures) as made:
        made.introduce()
        return play(made, TRANSPARENT_ACTS)


def _obstacle() -> str:
    """Why the transparent play cannot be given here; empty where it can."""
    if os.geteuid() != 0:
        return "--transparent makes networks of its own, which only root may: sudo scripts/demo --transparent"
    missing = missing_programs()
    return f"--transparent needs these programs, which are not there: {', '.join(missing)}" if missing else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/demo",
        description="Shows what the egress gateway does, with real processes on loopback, and checks every step.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--fast", action="store_true", help="no pauses for reading (nor are there any off a terminal)")
    parser.add_argument(
        "--rule-file",
        type=Path,
        default=ROOT / "rules" / "googleapis.yaml",
        metavar="FILE",
        help="the rule that is created in act 2 (default: rules/googleapis.yaml)",
    )
    parser.add_argument(
        "--host-network",
        action="store_true",
        help="play on this machine's own loopback addresses, where others can look on, not in a network of our own",
    )
    parser.add_argument(
        "--transparent",
        action="store_true",
        help="the story with clients that are not configured at all: a book shop in one network, the internet in "
        "another, and the gateway between them (needs root)",
    )
    parser.add_argument(
        "--screenshots",
        type=Path,
        metavar="DIR",
        help="with --transparent: have Chromium take pictures of the shop's page, without and with the rule",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
