"""`python -m demo`: plays the acts, and says so when the world is not as the story has it."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path
from typing import NoReturn

from .acts import ACTS
from .base_stage import ROOT, Differs
from .console import Console
from .network import enter_private
from .processes import ProgramFailed
from .stage import BOOKS, EVIL, INSIDE, Stage, set_up

_EPILOG = """\
exit status:
  0  everything went as the story has it
  1  something differed; the last line says what
  2  the command line was not understood
  130 or 143  ended by Ctrl-C or SIGTERM

NO_COLOR in the environment turns colours off. Nothing of this leaves loopback, and nothing is left behind.
"""


class Ended(BaseException):
    """A signal wants the demo to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if not options.rule_file.is_file():
        print(f"demo: there is no rule file {options.rule_file}", file=sys.stderr)
        return 2
    console = Console(sys.stdout, fast=options.fast)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        # Threads come later: a process that has some cannot move.
        hindrance = "--host-network was given" if options.host_network else enter_private()
        return _play(console, options.rule_file.resolve(), hindrance)
    except Ended as ended:
        print(f"demo: ended by {signal.Signals(ended.number).name}", file=sys.stderr)
        return 128 + ended.number
    except (ProgramFailed, OSError) as error:
        print(f"demo: the stage could not be set: {error}", file=sys.stderr)
        return 1


def _play(console: Console, rule_file: Path, hindrance: str) -> int:
    console.title("An egress gateway, and what it is for", "A play in seven acts, on loopback only")
    with set_up(console, rule_file) as stage:
        _introduce(stage, hindrance)
        for number, (title, act) in enumerate(ACTS, 1):
            console.act(number, title)
            try:
                act(stage)
            except Differs as difference:
                return _failed(stage, f"act {number} differs from the story; this does not hold: {difference}")
            except Exception as error:
                return _failed(stage, f"act {number} differs from the story: {type(error).__name__}: {error}")
        console.end("That is the story, and every line of it was checked.")
    return 0


def _introduce(stage: Stage, hindrance: str) -> None:
    port = stage.port
    stage.console.rows(
        [
            ("details", "127.0.0.1", f"the application, in {stage.details_language}; http_proxy is the gateway"),
            ("gateway", f"127.0.0.1:{stage.proxy[1]}", "scripts/gateway, with the rules of an empty directory"),
            ("googleapis", f"{BOOKS}:{port}", "stands in for www.googleapis.com; TLS by an authority made just now"),
            ("evil", f"{EVIL}:{port}, :{stage.evil_port}", "evil.example, which must never hear from us"),
            ("inside", f"{INSIDE}:{port}", "a service inside, which is nobody's business either"),
            ("DNS", stage.names.address, "knows these names and no others"),
        ]
    )
    if hindrance:
        stage.console.say(f"No network of our own ({hindrance}), so these are this machine's loopback addresses.")
    if port != 443:
        stage.console.say(f"Port 443 is not to be had here, so HTTPS is on port {port}, in the rule as well.")


def _failed(stage: Stage, what: str) -> int:
    print(f"\nThe gateway's last words:\n{stage.gateway.last_words()}\n", file=sys.stderr)
    print(f"demo: {what}", file=sys.stderr)
    return 1


def _end(number: int, _frame: object) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # the stage is being taken down: once is enough
    raise Ended(number)


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
    return parser


if __name__ == "__main__":
    sys.exit(main())
