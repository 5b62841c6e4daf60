"""The command line of scripts/bench."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.stage import Scale

PEERS = ("squid", "envoy", "haproxy", "mitmdump")
MORE_PEERS = ("haproxy-splice",)
"""Only when asked for."""

FULL = Scale(
    rounds=7,
    seconds=3,
    gib=0.5,
    latency_seconds=10,
    idle=2_000,
    soak_requests=1_000_000,
    soak_tunnels=100_000,
    rules=1_000,
    many_rules=100_000,
    reload_rules=10_000,
    reload_seconds=15,
    crowd_idle=9_000,
    crowd_busy=2_000,
    crowd_seconds=15,
)
QUICK = Scale(
    rounds=1,
    seconds=1,
    gib=0.0625,
    latency_seconds=2,
    idle=100,
    soak_requests=2_000,
    soak_tunnels=100,
    rules=100,
    many_rules=5_000,
    reload_rules=1_000,
    reload_seconds=4,
    crowd_idle=200,
    crowd_busy=100,
    crowd_seconds=1,
    quick=True,
)


@dataclass(frozen=True, slots=True)
class Options:
    parts: tuple[str, ...]
    peers: tuple[str, ...]
    scale: Scale
    log: bool
    judge: bool
    slack: float
    json: str
    chart: Path | None
    markdown: Path | None
    gateway: Path | None
    install_only: bool


_EPILOG = """\
environment:
  XDG_CACHE_HOME   Envoy is installed below it (default: ~/.cache)

exit status:
  0  every answer was right; with --judge, every "must" of the parts that were run holds as well
  1  an answer was wrong, a program failed, or the bench could not be set up; with --judge, also where a "must" does not
     hold or could not be measured, say because a peer is missing
  2  the command line was not understood
  130 or 143  ended by Ctrl-C or SIGTERM

examples:
  scripts/bench                                           everything, in about half an hour
  scripts/bench http tunnels --peers none                 what a change of ours does to two figures
  scripts/bench --quick                                   does it all work? a minute; the figures say little
  scripts/bench --judge --json bench.json --chart docs/performance.svg
"""


def parse(arguments: Sequence[str], parts: Mapping[str, str], purpose: str) -> Options:
    """`parts`: what each is about."""
    listing = "\n".join(f"  {name:12}{about}" for name, about in parts.items())
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        usage="scripts/bench [PART]... [OPTION]...\n       scripts/bench decide [OPTION]...",
        description=f"{purpose}\nparts (without one: all):\n{listing}",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="what to measure")
    parser.add_argument("--rounds", type=_at_least_one, metavar="N", help="rounds of each part (default: 7, quick: 1)")
    parser.add_argument(
        "--seconds", type=_at_least_one, metavar="S", help="of load for a subject in a round (default: 3, quick: 1)"
    )
    parser.add_argument(
        "--soak",
        type=_at_least_one,
        metavar="N",
        help="requests of the soak, and a tenth as many tunnels (default: 1000000, quick: 2000)",
    )
    parser.add_argument("--quick", action="store_true", help="little of everything, to see that it works")
    parser.add_argument(
        "--peers",
        type=_peers,
        default=PEERS,
        metavar="LIST",
        help=f"those to compare with, or none (default: {','.join(PEERS)}); haproxy-splice is HAProxy told to splice",
    )
    parser.add_argument(
        "--log", choices=("on", "off"), default="off", help="access log, in all or in none (default: off)"
    )
    parser.add_argument("--judge", action="store_true", help="fail where a target of docs/performance.md is missed")
    parser.add_argument(
        "--slack",
        type=_slack,
        default=1.0,
        metavar="FACTOR",
        help="widen the bounds of --judge, on a machine that is busy otherwise (default: 1)",
    )
    parser.add_argument(
        "--json", default="", metavar="FILE", help="write all figures there; - is standard output, without the table"
    )
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw the figures as SVG")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables there as Markdown")
    parser.add_argument(
        "--gateway", type=Path, metavar="SCRIPT", help="scripts/gateway of another checkout, to measure that one"
    )
    parser.add_argument("--install-only", action="store_true", help="fetch the peers and the load generator, and end")
    options = parser.parse_args(arguments)
    unknown = [part for part in options.parts if part not in parts]
    if unknown:
        parser.error(f"there is no part called {unknown[0]} (there are {', '.join(parts)})")
    if options.chart and options.chart.suffix != ".svg":
        parser.error(f"--chart: {options.chart} is not an .svg, and nothing else can be drawn")
    if options.gateway and not options.gateway.is_file():
        parser.error(f"--gateway: there is no file {options.gateway}")
    scale = QUICK if options.quick else FULL
    if options.soak:
        scale = replace(scale, soak_requests=options.soak, soak_tunnels=options.soak // 10)
    return Options(
        parts=tuple(dict.fromkeys(options.parts)) or tuple(parts),
        peers=options.peers,
        scale=replace(scale, rounds=options.rounds or scale.rounds, seconds=options.seconds or scale.seconds),
        log=options.log == "on",
        judge=options.judge,
        slack=options.slack,
        json=options.json,
        chart=options.chart.absolute() if options.chart else None,
        markdown=options.markdown.absolute() if options.markdown else None,
        gateway=options.gateway.absolute() if options.gateway else None,
        install_only=options.install_only,
    )


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is too few (use 1 or more)")
    return number


def _slack(text: str) -> float:
    number = float(text)
    if not 1 <= number <= 10:
        raise argparse.ArgumentTypeError(f"{text} would not widen the bounds (use 1 to 10)")
    return number


def _peers(text: str) -> tuple[str, ...]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if names == ["none"]:
        return ()
    for name in names:
        if name not in PEERS + MORE_PEERS:
            known = ", ".join(PEERS + MORE_PEERS)
            raise argparse.ArgumentTypeError(f"there is no peer called {name} (there are {known}, or none)")
    return tuple(dict.fromkeys(names))
