"""What `scripts/gateway` says where: errors on standard error, and nothing of them on standard output."""

from __future__ import annotations

import contextlib
import os
import pty
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.gateway import REPOSITORY
from support.waiting import eventually

GATEWAY = str(REPOSITORY / "scripts" / "gateway")

ERRORS: dict[str, tuple[list[str], str]] = {
    "rules that are not there": (["--rules", "/nonexistent/rules"], "/nonexistent/rules"),
    "an option that is misspelt": (["--set", "egress_rulez=x"], "unknown option egress_rulez"),
    "a flag that is misspelt": (["--wrkers", "2"], "unrecognized arguments: --wrkers"),
    "a flag as mitmproxy's options are written": (["--listen_port", "1"], "please use hyphens --listen-port"),
    "a number that is none": (["--workers", "two"], "'two' is not a number of processes"),
    "a port that somebody has": (["-p", "{taken}"], "failed to listen on 127.0.0.1:{taken}"),
    "the metrics' port": (["--metrics-listen", "127.0.0.1:{taken}"], "cannot serve metrics on 127.0.0.1:{taken}"),
    "a script that is not there": (["-s", "/nonexistent/script.py"], "No such script"),
    "a script that is broken": (["-s", "{broken}"], "SyntaxError"),
    "a folder that is none": (["--set", "confdir=/etc/hostname"], "cannot keep mitmproxy's certificates"),
}


@pytest.fixture
def taken() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as sock:
        yield sock.getsockname()[1]


def command(tmp_path: Path, *arguments: str) -> list[str]:
    (tmp_path / "rules").mkdir()
    rules = [] if "--rules" in arguments else ["--rules", str(tmp_path / "rules")]
    metrics = [] if "--metrics-listen" in arguments else ["--metrics-listen", "127.0.0.1:0"]
    port = [] if "-p" in arguments else ["-p", "0"]
    return [GATEWAY, *rules, *metrics, *port, *arguments]


@pytest.mark.parametrize("case", ERRORS)
def test_an_error_at_the_start_is_said_on_standard_error_alone(case: str, taken: int, tmp_path: Path) -> None:
    arguments, says = ERRORS[case]
    broken = tmp_path / "broken.py"
    broken.write_text("this is no Python\n")
    given = [argument.format(taken=taken, broken=broken) for argument in arguments]
    done = subprocess.run(command(tmp_path, *given), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1, done
    says = says.format(taken=taken)
    assert says in done.stderr
    assert says not in done.stdout


@pytest.mark.parametrize("stream", ["output", "errors"])
def test_in_a_terminal_it_is_the_same(stream: str, tmp_path: Path) -> None:
    ours, its = pty.openpty()
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    streams["stdout" if stream == "output" else "stderr"] = its
    arguments = command(tmp_path, "--rules", "/nonexistent/rules")
    with subprocess.Popen(arguments, stdin=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"}, **streams) as run:
        os.close(its)
        shown = _read(ours)
        piped = b"".join(run.communicate(timeout=60)[index] or b"" for index in (0, 1)).decode()
    assert run.returncode == 1
    errors, output = (piped, shown) if stream == "output" else (shown, piped)
    assert "/nonexistent/rules" in errors
    assert "/nonexistent/rules" not in output
    # Each stream has colours where it is a terminal itself.
    assert ("\x1b" in errors) == (stream == "errors")


def _read(terminal: int) -> str:
    written = b""
    with contextlib.suppress(OSError):  # how Linux says that nobody has the terminal open any more
        while part := os.read(terminal, 4096):
            written += part
    os.close(terminal)
    return written.decode()


def test_errors_that_come_later_are_apart_from_what_is_said_all_the_time(tmp_path: Path) -> None:
    output, errors = tmp_path / "output", tmp_path / "errors"
    with (
        output.open("w") as out,
        errors.open("w") as err,
        subprocess.Popen(command(tmp_path, "--workers", "1"), stdout=out, stderr=err) as run,
    ):
        try:
            eventually(lambda: "ready." in output.read_text(), "it is ready", timeout=30)
            assert errors.read_text() == ""
            (tmp_path / "rules" / "broken.yaml").write_text("key: value: what\n")
            eventually(lambda: "the rules do not load" in errors.read_text(), "the error")
            assert "broken.yaml:1:" in errors.read_text()
        finally:
            run.terminate()
        assert run.wait(timeout=30) == 0
    assert "do not load" not in output.read_text()
    assert "broken.yaml" not in output.read_text()
