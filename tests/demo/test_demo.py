"""The demo is run as a user runs it, and it notices when the world is not as its story has it."""

import re
import signal
import subprocess
from pathlib import Path

import pytest

from support.demo import DEMO, assert_told_in_order, run, running_in
from support.waiting import eventually

pytestmark = pytest.mark.slow

_IN_THIS_ORDER = (
    "Act 1 · Nothing is allowed",
    "Reason:       no_rule",
    "✓ not even DNS was asked",
    "Act 2 · A rule opens the door",
    "Created config egress-rule/default/googleapis at revision 1",
    "✓ plain HTTP from the application, verified TLS to the origin: details has its book",
    "✓ www. and fcm. both fit the one wildcard *.googleapis.com",
    "Act 3 · The rules in force",
    "googleapis  EgressRule.v1alpha2.config.istio.io  default",
    "Act 4 · HTTPS by the application itself",
    "✓ undecrypted: the certificate that a client sees is the origin's own",
    "✓ a name that no rule allows does not get as far as a handshake",
    "Act 5 · The malicious client",
    "TLS alert: TLSV1_UNRECOGNIZED_NAME",
    "✓ connections since our own knock: evil.example 0, inside service 0",
    "Act 6 · The rule goes",
    "Deleted config: egressrule googleapis",
    "✓ the open connection, which no rule allows any more, has ended",
    "✓ details is refused as in the beginning",
    "Act 7 · What the gateway tells of it",
    'egress_decisions_total{action="allow"',
    '"rule": "default/googleapis"',
    "That is the story, and every line of it was checked.",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo makes its folder, so that what is left of it can be seen."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("network", [(), ("--host-network",)], ids=["network of its own", "host network"])
def test_the_story_is_told_in_order_and_nothing_is_left_behind(folder: Path, network: tuple[str, ...]) -> None:
    done = run("--fast", *network)
    assert_told_in_order(done, _IN_THIS_ORDER)
    assert "\x1b" not in done.stdout, "colours are for terminals"
    assert list(folder.iterdir()) == []
    assert running_in(folder) == []


def test_a_rule_that_allows_something_else_is_noticed(folder: Path) -> None:
    rule = folder / "other.yaml"
    rule.write_text(
        "kind: EgressRule\nmetadata: {name: googleapis}\nspec:\n"
        '  destination: {service: "*.example.org"}\n  ports: [{port: 443, protocol: https}]\n'
    )
    done = run("--fast", "--rule-file", str(rule))
    assert done.returncode == 1
    assert "✗" in done.stdout
    assert "Act 3" not in done.stdout
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("demo: act 2 differs from the story; this does not hold: plain HTTP from the application")
    assert list(folder.iterdir()) == [rule]
    assert running_in(folder) == []


def test_a_rule_that_does_not_load_is_noticed(folder: Path) -> None:
    rule = folder / "broken.yaml"
    rule.write_text("kind: Nothing\n")
    done = run("--fast", "--rule-file", str(rule))
    assert done.returncode == 1
    assert "egressctl: " in done.stdout
    assert "act 2 differs from the story" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_everything_it_has_started(folder: Path, number: signal.Signals) -> None:
    with subprocess.Popen([DEMO], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "Act 2" in line:
                break
        assert any("details" in command for command in running_in(folder))
        demo.send_signal(number)
        _, said = demo.communicate(timeout=30)
    assert demo.returncode == 128 + number
    assert f"ended by {number.name}" in said
    assert list(folder.iterdir()) == []
    assert running_in(folder) == []


def test_a_demo_that_is_killed_takes_its_programs_along(folder: Path) -> None:
    with subprocess.Popen([DEMO], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if "Act 1" in line:
                break
        demo.kill()
    eventually(lambda: running_in(folder) == [], lambda: f"not ended: {running_in(folder)}", timeout=15)


def test_a_rule_file_that_is_not_there_is_a_mistake_on_the_command_line(tmp_path: Path) -> None:
    done = run("--rule-file", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "there is no rule file" in done.stderr


def test_help_tells_every_option_and_exit_status() -> None:
    done = run("--help")
    assert done.returncode == 0
    options = re.findall(r"--[a-z-]+", done.stdout)
    assert {"--fast", "--rule-file", "--host-network", "--help"} <= set(options)
    assert "exit status" in done.stdout
