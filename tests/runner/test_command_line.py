"""The runner's own flags, beside mitmdump's."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
from mitmproxy.options import Options

from egress_gateway.runner.command_line import parse
from support.waiting import eventually

GATEWAY = str(Path(__file__).resolve().parents[2] / "scripts" / "gateway")


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
    "an unknown flag": (["--xyz", "2"], "error: unrecognized arguments: --xyz\n"),
    "a misspelt flag": (["--wrokers", "2"], "unrecognized arguments: --wrokers (did you mean --workers?)"),
    "a misspelt flag and its value": (["--drain-timout=5"], "--drain-timout=5 (did you mean --drain-timeout?)"),
    "a flag of the script's": (["--ruls", "x"], "--ruls (did you mean --rules?)"),
    "a flag of mitmdump's": (["--listenhost", "x"], "--listenhost (did you mean --listen-host?)"),
    "a flag of the script's as it is": (["--rules", "x"], "unrecognized arguments: --rules\n"),
    "one dash too few": (["-rules", "x"], "(did you mean --rules?)"),
    "several": (
        ["--acces-log=x", "--metrics-listn=x"],
        "--acces-log=x (did you mean --access-log?), --metrics-listn=x (did you mean --metrics-listen?)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_and_ends_with_status_1(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, says = WRONG[case]
    with pytest.raises(SystemExit) as ended:
        parse(Options(), arguments)
    assert ended.value.code == 1
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--workers", ""], "argument --workers: '' is not a number of processes (write e.g. 2)"),
        (["-p", "99999"], "gateway: 99999 is not a port (use 1 to 65535)"),
        (["-p", "-1"], "gateway: -1 is not a port (use 1 to 65535)"),
    ],
)
def test_what_is_wrong_is_told_without_a_page_of_python(arguments: list[str], says: str) -> None:
    done = subprocess.run([GATEWAY, *arguments], capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_hint_names_every_flag_that_the_manual_names(capsys: pytest.CaptureFixture[str]) -> None:
    """The script's own as well, which are not the program's."""
    manual = subprocess.run([GATEWAY, "--help"], capture_output=True, text=True, check=True).stdout
    flags = re.findall(r"^ {4}(?:-\w, )?(--[\w-]+)", manual, re.MULTILINE)
    assert {"--rules", "--workers", "--mode"} <= {*flags}
    for flag in flags:
        misspelt = flag[: len(flag) // 2] + flag[len(flag) // 2 + 1 :]
        with pytest.raises(SystemExit):
            parse(Options(), [misspelt, "x"])
        assert f"{misspelt} (did you mean {flag}?)" in capsys.readouterr().err


@pytest.mark.parametrize("what", ["--options", "--commands"])
def test_who_reads_what_is_shown_may_stop_when_it_has_read_enough(what: str) -> None:
    with subprocess.Popen([GATEWAY, what], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == 0


def test_a_hangup_before_it_is_ready_does_not_end_it(tmp_path: Path) -> None:
    """As from a service manager that is told to reload what it has just started."""
    output = tmp_path / "output"
    # Bash reads this first. It stops the script where the gateway's own program is to take its place.
    begin = tmp_path / "begin"
    begin.write_text("""trap 'case "${0##*/} $BASH_COMMAND" in "gateway exec"*) kill -STOP $$ ;; esac' DEBUG\n""")
    env = os.environ | {"BASH_ENV": str(begin)}
    command = [GATEWAY, "-p", "0", "--metrics-listen", "127.0.0.1:0", "--workers", "1", "--rules", str(tmp_path)]
    with output.open("w") as file, subprocess.Popen(command, stdout=file, stderr=file, env=env) as process:

        def status(field: str) -> str:
            text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            return next(line for line in text.splitlines() if line.startswith(f"{field}:")).split()[1]

        def ready() -> bool:
            if process.poll() is None:
                process.send_signal(signal.SIGHUP)
            return process.returncode is not None or "ready." in output.read_text()

        try:
            eventually(lambda: status("State") == "T", "the script has come to its end", timeout=30)
            program = Path(f"/proc/{process.pid}/exe").readlink().name
            assert program == "bash"
            ignored = int(status("SigIgn"), 16)
            assert ignored & 1 << signal.SIGHUP - 1, "long before the gateway's own program could do so"
            process.send_signal(signal.SIGCONT)
            eventually(ready, "it is ready", timeout=30)
            assert process.returncode is None, output.read_text()
        finally:
            process.terminate()
            process.send_signal(signal.SIGCONT)
        assert process.wait(timeout=30) == 0
