"""The command line as a whole: manual pages, errors, colours, completion, and a fast start."""

import os
import pty
import resource
import subprocess
import sys
from typing import Any

import pytest

COMMANDS = ("create", "replace", "get", "delete", "check", "explain", "schema", "version", "help")
RULE = """\
kind: EgressRule
metadata: {name: NAME}
spec:
  destination: {service: www.example.com}
  ports: [{port: 443, protocol: https}]
"""


def test_help_is_a_manual_page_that_names_every_command(ctl: Any) -> None:
    done = ctl("--help")
    assert (done.status, done.err) == (0, "")
    titles = [line for line in done.out.splitlines() if line.isupper() and not line.startswith(" ")]
    assert titles == ["NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "OPTIONS", "EXAMPLES", "EXIT STATUS"]
    assert all(f"\n    {command} " in done.out for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_manual_page_with_examples(ctl: Any, command: str) -> None:
    done = ctl(command, "-h")
    assert done.out.startswith(f"NAME\n    egressctl-{command} - ")
    assert f"\nSYNOPSIS\n    egressctl {command} " in done.out
    assert f"egressctl {command}" in done.out.partition("\nEXAMPLES\n")[2]
    assert max(map(len, done.out.splitlines())) <= 100


def test_help_tells_where_the_rules_are_and_who_sets_that(ctl: Any) -> None:
    for arguments in (("--help",), ("create", "--help"), ("get", "--help")):
        words = " ".join(ctl(*arguments).out.split())
        assert "EGRESS_RULES" in words
        assert "scripts/egressctl sets" in words
        assert "./rules" in words


@pytest.mark.parametrize(
    ("command", "synopsis"),
    [
        ("create", "-f FILE [OPTIONS]"),
        ("replace", "-f FILE [OPTIONS]"),
        ("get", "[OPTIONS] [KIND] [NAME]..."),
        ("delete", "[OPTIONS] [KIND] [NAME]..."),
        ("explain", "--host HOST --port PORT [OPTIONS]"),
        ("check", "[OPTIONS]"),
    ],
)
def test_the_synopsis_shows_what_is_needed_and_what_is_not(ctl: Any, command: str, synopsis: str) -> None:
    assert f"\nSYNOPSIS\n    egressctl {command} {synopsis}\n" in ctl(command, "--help").out


@pytest.mark.parametrize("command", ["get", "delete"])
def test_arguments_are_described_apart_from_options(ctl: Any, command: str) -> None:
    page = ctl(command, "--help").out
    arguments, _, options = page.partition("\nARGUMENTS\n")[2].partition("\nOPTIONS\n")
    words = " ".join(arguments.split())
    assert words.startswith("[KIND] What kind of object; ")
    assert "egressrule, egressrules, egress-rule" in words
    assert "[NAME]... The names of rules" in words
    assert "NAME]" not in options.partition("\nEXAMPLES\n")[0]


@pytest.mark.parametrize("command", ["create", "get", "help"])
def test_help_with_a_command_is_its_manual_page(ctl: Any, command: str) -> None:
    assert ctl("help", command) == ctl(command, "--help")
    assert ctl("help") == ctl("--help")


def test_without_a_command_the_manual_page_is_an_error(ctl: Any) -> None:
    done = ctl()
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("NAME\n")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("creat",), "No such command 'creat'. Did you mean 'create'? (see `egressctl --help`)"),
        (("help", "creat"), "No such command 'creat'. Did you mean 'create'? (see `egressctl --help`)"),
        (("apply", "-f", "x"), "No such command 'apply'. Did you mean 'create' or 'replace'? (see `egressctl --help`)"),
        (("help", "apply"), "No such command 'apply'. Did you mean 'create' or 'replace'? (see `egressctl --help`)"),
        (("rm", "x"), "No such command 'rm'. Did you mean 'delete'? (see `egressctl --help`)"),
        (("get", "--jason"), "No such option '--jason'. (see `egressctl get --help`)"),
        (("get", "-o", "xml"), "Invalid value for '-o' / '--output': 'xml' is not one of"),
    ],
)
def test_a_command_line_that_is_not_understood_is_one_line(ctl: Any, arguments: tuple[str, ...], error: str) -> None:
    done = ctl(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith(f"egressctl: {error}".replace("'. (see", "' (see"))
    assert done.err.count("\n") == 1


def test_colours_are_for_terminals_and_no_color_is_respected(ctl: Any) -> None:
    ctl.write("bad.yaml", RULE.replace("443", "70000"))
    command = ("create", "-f", "bad.yaml")
    assert "\x1b" not in ctl(*command).err
    assert "\x1b[31m\x1b[1megressctl:\x1b[0m bad.yaml:5" in _on_a_terminal(ctl, *command, TERM="xterm")
    assert "\x1b" not in _on_a_terminal(ctl, *command, TERM="xterm", NO_COLOR="1")
    assert "\x1b" not in _on_a_terminal(ctl, *command, TERM="dumb")


def _on_a_terminal(ctl: Any, *arguments: str, **environment: str) -> str:
    """What the program writes to a terminal that is both its standard output and error."""
    ours, its = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "egress_gateway.cli", *arguments],
        cwd=ctl.folder,
        env=ctl.environment(**environment),
        stdin=subprocess.DEVNULL,
        stdout=its,
        stderr=its,
    ) as run:
        run.wait(timeout=60)
    os.close(its)
    written = b""
    try:
        while part := os.read(ours, 4096):
            written += part
    except OSError:
        pass  # how Linux says that nobody has the terminal open any more
    os.close(ours)
    return written.decode()


def test_a_reader_that_goes_away_early_is_no_disaster(ctl: Any) -> None:
    documents = "---\n".join(RULE.replace("NAME", f"rule-{number}") for number in range(2000))
    ctl.write("rules/many.yaml", documents)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "egress_gateway.cli", "get", "-o", "yaml"],
        cwd=ctl.folder,
        env=ctl.environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    os.close(writing)
    assert done.stderr == b""


def test_completion_knows_commands_and_names(ctl: Any) -> None:
    for name in ("alpha", "beta"):
        ctl.write(f"rules/{name}.yaml", RULE.replace("NAME", name))
    assert "_EGRESSCTL_COMPLETE=bash_complete" in ctl(_EGRESSCTL_COMPLETE="bash_source").out
    complete = {"_EGRESSCTL_COMPLETE": "bash_complete"}
    assert "plain,explain\n" in ctl(**complete, COMP_WORDS="egressctl ex", COMP_CWORD="1").out
    assert ctl(**complete, COMP_WORDS="egressctl get egressr", COMP_CWORD="2").out == "plain,egressrule\n"
    names = ctl(**complete, COMP_WORDS="egressctl delete egressrule a", COMP_CWORD="3").out
    assert names == "plain,alpha\n"


_PRINTS_MODULES = """
import sys
from egress_gateway.cli.main import main
status = main()
print(*sorted(sys.modules), sep="\\n", file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("arguments", "kept_out"),
    [
        (
            ("--help",),
            ("mitmproxy", "yaml", "pydantic", "publicsuffix2", "watchfiles", "egress_gateway.policy"),
        ),
        (("get",), ("mitmproxy", "pydantic", "publicsuffix2", "watchfiles", "asyncio")),
        (
            ("explain", "--host", "github.com", "--port", "443"),
            ("mitmproxy", "pydantic", "publicsuffix2", "watchfiles", "asyncio"),
        ),
    ],
)
def test_nothing_heavy_is_imported(ctl: Any, arguments: tuple[str, ...], kept_out: tuple[str, ...]) -> None:
    ctl.write("rules/a.yaml", RULE.replace("NAME", "a"))
    done = subprocess.run(
        [sys.executable, "-c", _PRINTS_MODULES, *arguments],
        cwd=ctl.folder,
        env=ctl.environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    imported = {line.strip() for line in done.stderr.splitlines()}
    assert "egress_gateway.cli.main" in imported
    assert imported.isdisjoint(kept_out)


@pytest.mark.parametrize(("arguments", "times"), [(("--help",), 12), (("get",), 25)])
def test_it_starts_fast(ctl: Any, arguments: tuple[str, ...], times: int) -> None:
    """Held against a bare start of Python, so that a slow machine is no failure; the best of several runs counts."""
    ctl.write("rules/a.yaml", RULE.replace("NAME", "a"))
    bare = min(_cpu_seconds(ctl, "-c", "pass") for _ in range(5))
    ours = min(_cpu_seconds(ctl, "-m", "egress_gateway.cli", *arguments) for _ in range(5))
    assert ours < bare * times
    assert ours < 1.0


def _cpu_seconds(ctl: Any, *arguments: str) -> float:
    """CPU time that a run of Python takes: system and user, of the process alone."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, *arguments],
        cwd=ctl.folder,
        env=ctl.environment(),
        stdout=subprocess.DEVNULL,
        check=True,
        timeout=60,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
