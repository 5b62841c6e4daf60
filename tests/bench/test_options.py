"""The command line: what it takes, and the one line that it says otherwise."""

from pathlib import Path

import pytest
from bench.options import FULL, PEERS, QUICK, parse

PARTS = {"http": "requests", "tunnels": "tunnels"}


def test_without_a_part_all_are_measured_against_all_peers() -> None:
    options = parse([], PARTS, "")
    assert options.parts == ("http", "tunnels")
    assert options.peers == PEERS
    assert options.scale == FULL
    assert not options.log


def test_a_part_named_twice_is_measured_once() -> None:
    assert parse(["tunnels", "tunnels"], PARTS, "").parts == ("tunnels",)


def test_options_may_stand_between_parts() -> None:
    options = parse(["http", "--quick", "--log", "on", "--peers", "envoy,squid"], PARTS, "")
    assert options.parts == ("http",)
    assert options.peers == ("envoy", "squid")
    assert options.scale == QUICK
    assert options.log


def test_no_peers() -> None:
    assert parse(["--peers", "none"], PARTS, "").peers == ()


def test_rounds_and_seconds_go_before_those_of_the_scale() -> None:
    scale = parse(["--quick", "--rounds", "4"], PARTS, "").scale
    assert (scale.rounds, scale.seconds) == (4, QUICK.seconds)


WRONG = {
    "a part that there is not": (["htp"], "there is no part called htp (there are http, tunnels)"),
    "a peer that there is not": (["--peers", "squids"], "there is no peer called squids (there are squid, envoy"),
    "no rounds": (["--rounds", "0"], "0 is too few (use 1 or more)"),
    "slack that narrows": (["--slack", "0.5"], "0.5 would not widen the bounds (use 1 to 10)"),
    "another kind of picture": (["--chart", "a.png"], "a.png is not an .svg"),
    "a gateway that is not there": (["--gateway", "/nowhere"], "there is no file /nowhere"),
}


@pytest.mark.parametrize(("arguments", "said"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(arguments, PARTS, "")
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_help_lists_the_parts_and_says_what_the_exit_status_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parse(["--help"], PARTS, "")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "http        requests" in said
    assert "exit status:" in said


def test_files_are_found_from_where_the_command_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse(["--chart", "here.svg"], PARTS, "").chart == tmp_path / "here.svg"
