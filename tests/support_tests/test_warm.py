"""A program that was started warm cannot be told from one that was executed, but by how soon it is there."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from support import netns, warm
from support.gateway import REPOSITORY
from support.networks import TwoNetworks
from support.process import Process, group
from support.waiting import eventually

MITMDUMP = str(Path(sys.executable).with_name("mitmdump"))
CLEAN = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}

CTL = [sys.executable, "-m", "egress_gateway.cli"]
DOWN = [sys.executable, "-P", "-m", "egress_gateway.network.down"]
PYTHON_ENV = CLEAN | {"PYTHONPATH": str(REPOSITORY / "addons"), "PYTHONIOENCODING": "utf-8"}

# Loaded by the program; tells what it finds, and ends.
TELLING = """
import json, os, signal, sys
found = {
    "arguments": sys.argv, "path": sys.path[0], "folder": os.getcwd(), "environment": dict(os.environ),
    "names": [os.getenv("WARM"), os.environb.get(b"WARM").decode()],
    "group": os.getpgrp() == os.getpid() == os.getsid(0), "network": os.readlink("/proc/self/ns/net"),
    "descriptors": sorted(set(os.listdir("/proc/self/fd")) & set(map(str, range(3)))),
    "input": sys.stdin.read(), "threads": len(os.listdir("/proc/self/task")), "hurry": sys.stdout.write_through,
    "streams": [sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__, sys.stdout.fileno(), sys.stderr.fileno()],
    "coding": [sys.stdin.encoding, sys.stdout.encoding, sys.stdout.errors, sys.stderr.errors],
    "signals": [str(signal.getsignal(number)).split(" at ")[0] for number in (1, 13, 15)],
    "ours": __import__("egress_gateway").__file__,
}
print(json.dumps(found), flush=True)
os._exit(7)
"""


def started(*words: str | Path, env: dict[str, str] = CLEAN, cwd: Path = REPOSITORY, cold: bool = False) -> Process:
    return Process([MITMDUMP, *map(str, words)], env, cwd, start_warm=not cold)


@pytest.fixture
def telling(tmp_path: Path) -> Path:
    script = tmp_path / "telling.py"
    script.write_text(TELLING)
    return script


def told(process: Process) -> dict[str, object]:
    assert process.wait(60)
    assert process.stop() == 7, process.output
    found: dict[str, object] = json.loads(process.output.splitlines()[-1])
    return found


def test_it_finds_what_it_would_find_cold(telling: Path) -> None:
    words = ("-q", "--set", f"confdir={telling.parent}", "-s", telling)
    env = CLEAN | {"WARM": "yes", "PYTHONUNBUFFERED": "1"}
    warm_one, cold_one = (told(started(*words, env=env, cwd=telling.parent, cold=cold)) for cold in (False, True))
    assert warm_one == cold_one
    assert warm_one["network"] == netns.namespace()
    assert warm_one["ours"] == str(REPOSITORY / "addons" / "egress_gateway" / "__init__.py")


def test_it_is_in_the_network_in_which_it_was_started(telling: Path, networks: TwoNetworks) -> None:
    with networks.gateway.entered():
        network = os.readlink("/proc/thread-self/ns/net")
        process = started("-q", "--set", f"confdir={telling.parent}", "-s", telling, env=CLEAN | {"WARM": ""})
        # A server of its own, which is not to stay there.
        ended = warm.run([*DOWN, "--nonsense"], env=PYTHON_ENV, cwd=REPOSITORY)
    assert network != netns.namespace()
    assert told(process)["network"] == network
    assert (ended.returncode, networks.gateway.processes()) == (2, [])


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--version",), 0, "Mitmproxy:"),
        (("--no-such-option",), 1, "error: unrecognized arguments: --no-such-option"),
        (("--mode", "nonsense"), 1, f"{MITMDUMP}: Invalid proxy mode specification: nonsense"),
    ],
)
def test_it_ends_by_itself_with_its_exit_code(words: tuple[str, ...], code: int, says: str) -> None:
    process = started(*words)
    assert process.wait(60)
    assert process.stop() == code
    assert says in process.output


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_it(telling: Path, number: signal.Signals) -> None:
    telling.write_text("import time; print('up', flush=True); time.sleep(60)")
    process = started("-q", "--set", f"confdir={telling.parent}", "-s", telling)
    eventually(lambda: "up" in process.output, "its start")
    assert process.exit_code is None
    os.kill(process.pid, number)
    eventually(lambda: process.exit_code is not None, "its end")
    assert process.exit_code == process.stop() == -number


def test_other_sources_are_not_ours(tmp_path: Path) -> None:
    """A copy of the script brings its own package."""
    package = tmp_path / "egress_gateway"
    package.mkdir()
    (package / "__init__.py").write_text("print('a package of its own', flush=True)")
    script = tmp_path / "egress.py"
    script.write_text("import os, egress_gateway\nos._exit(0)")
    process = started("-q", "--set", f"confdir={tmp_path}", "-s", script)
    assert process.wait(60)
    assert (process.stop(), process.output) == (0, "a package of its own\n")


def test_it_dies_with_the_tests(telling: Path) -> None:
    telling.write_text("import time; print('up', flush=True); time.sleep(60)")
    code = f"""
        import os, sys
        sys.path.insert(0, {str(REPOSITORY / "tests")!r})
        from pathlib import Path
        from support.process import Process
        from support.waiting import eventually
        command = [{MITMDUMP!r}, "-q", "--set", {f"confdir={telling.parent}"!r}, "-s", {str(telling)!r}]
        child = Process(command, os.environ, Path("/"), start_warm=True)
        eventually(lambda: "up" in child.output, "its start", 60)
        print(child.pid, flush=True)
        os.kill(os.getpid(), 9)
    """
    parent = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False, env=CLEAN
    )
    assert parent.returncode == -signal.SIGKILL, parent.stderr
    pid = int(parent.stdout)
    eventually(lambda: not group(pid), "the end of the child")


@pytest.mark.parametrize(
    ("command", "env", "can"),
    [
        ([MITMDUMP, "-q"], {}, True),
        ([MITMDUMP], {"PYTHONUNBUFFERED": "", "SSL_CERT_FILE": "x"}, True),
        ([MITMDUMP], {"PYTHONHASHSEED": "1"}, False),
        ([MITMDUMP], {"LC_ALL": "C"}, False),
        (["/usr/bin/mitmdump"], {}, False),
        ([sys.executable, MITMDUMP], {}, False),
        ([str(REPOSITORY / "scripts" / "gateway")], {}, False),
    ],
)
def test_what_would_notice_starts_cold(command: list[str], env: dict[str, str], can: bool) -> None:
    assert warm.can_start(command, {**CLEAN, **env}) is can


# --- a module, run to its end ---


def run_both_ways(*words: str, cwd: Path, stdin: bytes = b"", **env: str) -> "subprocess.CompletedProcess[bytes]":
    """The ending of a warm run, which is that of a cold one."""
    there = PYTHON_ENV | env
    assert warm.can_start([*CTL, *words], there)
    ended = warm.run([*CTL, *words], env=there, cwd=cwd, stdin=stdin)
    cold = subprocess.run([*CTL, *words], env=there, cwd=cwd, input=stdin, capture_output=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (cold.returncode, cold.stdout, cold.stderr)
    return ended


def test_a_module_runs_as_it_would_cold(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    denied = run_both_ways("explain", "--host", "a.example", "--port", "443", cwd=tmp_path)
    assert (denied.returncode, denied.stderr) == (1, b"")
    unknown = run_both_ways("explian", cwd=tmp_path)
    assert (unknown.returncode, unknown.stdout) == (2, b"")
    listed = run_both_ways("get", cwd=tmp_path, EGRESS_RULES="elsewhere")
    assert b"elsewhere" in listed.stderr


def test_a_module_reads_what_it_is_given_and_writes_as_it_is_told(tmp_path: Path) -> None:
    (tmp_path / "rules").mkdir()
    text = "kind: EgressRule\nmetadata: {name: b\u00fccher}\n".encode()
    assert b"a DNS-1123 label" in run_both_ways("check", "-f", "-", cwd=tmp_path, stdin=text).stdout
    other = run_both_ways("check", "-f", "-", cwd=tmp_path, stdin=text, PYTHONIOENCODING="latin-1:replace")
    assert "bücher".encode("latin-1") in other.stdout


def test_what_does_not_end_is_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(subprocess.TimeoutExpired):
        warm.run([*CTL, "check", "-f", "pipe"], env=PYTHON_ENV, cwd=tmp_path, timeout=0.5)
