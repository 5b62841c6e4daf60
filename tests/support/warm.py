"""Programs that start warm: what takes a start so long, the imports, has been done once for all of them.

A server, started the first time it is needed, has imported the modules that a program needs. For each start it forks,
and the child becomes the program: it has the arguments, the environment, the current folder, the streams and the
network namespace of the start, and runs the very function that the program's script runs. It is a process of its own
like any other, with a session of its own, and with the exit code that it would have; it dies with the tests.

What differs from a program that is executed: /proc tells of the server's command line and environment; what Python
decides while it starts (the hash seed, its own variables) was decided for all; modules have been imported. A test of
any of these starts the program cold.
"""

import atexit
import functools
import io
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.warm_server import LONGEST

_SERVER = Path(__file__).with_name("warm_server.py")
_ADDONS = Path(__file__).resolve().parents[2] / "addons"
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class _Program:
    run: str
    imported: tuple[str, ...]


_MITMPROXY = ("mitmproxy.tools.main", "mitmproxy.tools.dump")
_WITH_OURS = (*_MITMPROXY, "egress_gateway.compose", "anyio._backends._asyncio")
_RUNNER = ("egress_gateway.compiled:use", *_WITH_OURS, "egress_gateway.runner.*", "uvloop")
_COMMAND_LINES = ("egress_gateway.cli.*", "egress_gateway.config.*", "egress_gateway.policy.*")
_PACKET_FILTER = ("egress_gateway.network.*",)

_SCRIPTS = {name: _Program(f"mitmproxy.tools.main:{name}", _WITH_OURS) for name in ("mitmdump", "mitmweb")}
"""By what they are called, next to the interpreter."""
_MODULES = {
    "egress_gateway.cli": _COMMAND_LINES,
    "egress_gateway.runner": _RUNNER,
    "egress_gateway.network.up": _PACKET_FILTER,
    "egress_gateway.network.down": _PACKET_FILTER,
}
"""What is imported for them, and called as they would, by how `python -m` knows them."""

# These are looked at when a program starts, which is over; but for those that the server looks at.
_FOR_PYTHON = ("PYTHON", "LANG", "LC_", "EGRESS_INTERPRETED")
_LOOKED_AT = ("PYTHONUNBUFFERED", "PYTHONIOENCODING")


def can_start(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether `command` is a program that starts warm, and does not notice."""
    return _found(command) is not None and all(
        env.get(name) == os.environ.get(name) or (name, env.get(name)) == ("PYTHONPATH", str(_ADDONS))
        for name in {*env, *os.environ}
        if name.startswith(_FOR_PYTHON) and name not in _LOOKED_AT
    )


def run(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: bytes = b"", timeout: float = 60.0
) -> "subprocess.CompletedProcess[bytes]":
    """Runs a program to its end, warm where that can be. Its streams are files."""
    if not can_start(command, env):
        return subprocess.run(command, env=env, cwd=cwd, input=stdin, capture_output=True, timeout=timeout, check=False)
    with (
        io.FileIO(os.memfd_create("in"), "r+") as given,
        io.FileIO(os.memfd_create("out"), "r+") as out,
        io.FileIO(os.memfd_create("err"), "r+") as err,
    ):
        given.write(stdin)
        given.seek(0)
        child = _Child(command, env, cwd, (given.fileno(), out.fileno(), err.fileno()))
        code = child.wait(timeout)
        if code is None:
            os.kill(child.pid, signal.SIGKILL)
            child.wait()
            raise subprocess.TimeoutExpired(command, timeout)
        said = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0) for file in (out, err)]
    return subprocess.CompletedProcess(list(command), code, *said)


class _Child:
    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], cwd: Path, streams: tuple[int, int, int]
    ) -> None:
        found = _found(command)
        assert found is not None
        self._server = _server(found.imported)
        order = {
            "run": found.run,
            "command": [command[0], *command[command.index("-m") + 2 :]] if "-m" in command[:3] else list(command),
            "env": dict(env),
            "cwd": str(cwd),
            "first_on_path": [] if "-P" in command[:2] else [str(cwd) if "-m" in command[:3] else _folder(command)],
        }
        with open("/proc/thread-self/ns/net", "rb") as network:
            self.pid: int = self._server.ask(order, *streams, network.fileno())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, None while it runs; negative is the signal that ended it."""
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int | None:
        """The exit code, as soon as there is one; None when there is none in time."""
        if self.poll() is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                select.select([descriptor], [], [], timeout)
            finally:
                os.close(descriptor)
        return self.poll()


class Started(_Child):
    """A program that was started warm; what `Process` needs of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        reading, writing = os.pipe()
        try:
            with open(os.devnull, "rb") as nothing:
                super().__init__(command, env, cwd, (nothing.fileno(), writing, writing))
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self.stdout = io.FileIO(reading)


class _Server:
    def __init__(self, modules: Sequence[str]) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self._socket.settimeout(_PATIENCE)
        with theirs:
            self._popen = subprocess.Popen(
                [sys.executable, "-P", str(_SERVER), str(theirs.fileno()), *modules],
                env={**os.environ, "PYTHONPATH": str(_ADDONS)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self._answer()
        atexit.register(self._end)

    def ask(self, order: Mapping[str, Any], *descriptors: int) -> Any:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(order).encode()], descriptors)
            return self._answer()

    def _answer(self) -> Any:
        answer = self._socket.recv(LONGEST)
        if not answer:
            raise RuntimeError(f"the server of warm starts has ended with {self._popen.wait()}")
        return json.loads(answer)

    def _end(self) -> None:
        self._socket.close()
        self._popen.wait()


@functools.cache
def _server(modules: tuple[str, ...]) -> _Server:
    """One for the whole run: it ends when this process does."""
    return _Server(modules)


def _found(command: Sequence[str]) -> _Program | None:
    path = Path(command[0])
    words = [word for word in command[1:4] if word != "-P"]
    if command[0] == sys.executable and words[:1] == ["-m"] and words[1] in _MODULES:
        return _Program(words[1], _MODULES[words[1]])
    if path.parent != Path(sys.executable).parent or path.name not in _SCRIPTS:
        return None
    found = _SCRIPTS[path.name]
    # A test may have the program load other sources than these, and they must not find ours in their place.
    if all(Path(word).is_relative_to(_ADDONS) for word in command if Path(word).name == "egress.py"):
        return found
    return _Program(found.run, _MITMPROXY)


def _folder(command: Sequence[str]) -> str:
    return str(Path(command[0]).parent)
