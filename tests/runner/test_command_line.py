"""The runner's own flags, beside mitmdump's."""

from __future__ import annotations

import pytest
from mitmproxy.options import Options

from egress_gateway.runner.command_line import parse


def test_ours_and_mitmdumps_stand_side_by_side() -> None:
    parsed = parse(Options(), ["--workers", "3", "-p", "8081", "--drain-timeout=0", "--set", "a=b", "-m", "socks5"])
    assert (parsed.workers, parsed.drain_timeout) == (3, 0)
    assert (parsed.listen_port, parsed.setoptions, parsed.mode) == (8081, ["a=b"], ["socks5"])


def test_by_default_there_is_a_worker_a_core_and_half_a_minute() -> None:
    parsed = parse(Options(), [])
    assert (parsed.workers, parsed.drain_timeout) == (None, 30)


WRONG = {
    "no worker": (["--workers", "0"], "argument --workers: 0 is too few (use 1 or more)"),
    "fewer than none": (["--workers=-1"], "argument --workers: '-1' is not a number of processes (write e.g. 2)"),
    "workers in words": (["--workers", "two"], "argument --workers: 'two' is not a number of processes (write e.g. 2)"),
    "an empty number": (["--workers", ""], "argument --workers: '' is not a number of processes (write e.g. 2)"),
    "digits of another script": (["--workers", "٣"], "is not a number of processes"),
    "time without end": (
        ["--drain-timeout", "9" * 400],
        "--drain-timeout: more than 604800 seconds, which is a week, is too long",
    ),
    "time with a unit": (["--drain-timeout", "5s"], "--drain-timeout: '5s' is not a number of seconds (write e.g. 30)"),
    "an unknown flag": (["--wrkers", "2"], "unrecognized arguments: --wrkers"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_and_ends_with_status_1(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, says = WRONG[case]
    with pytest.raises(SystemExit) as ended:
        parse(Options(), arguments)
    assert ended.value.code == 1
    assert says in capsys.readouterr().err
