"""Programs that start warm: what takes a start so long, the imports, has been done once for all of them.

A server, started the first time it is needed, has imported the modules that a program needs. For each start it forks,
and the child becomes the program: it has the arguments, the environment, the current folder, the output and the network
namespace of the start, and runs the very function that the program's script runs. It is a process of its own like any
other, with a session of its own, and with the exit code that it would have; it dies with the tests.

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
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from support.warm_server import LONGEST

_SERVER = Path(__file__).with_name("warm_server.py")
_ADDONS = Path(__file__).resolve().parents[2] / "addons"
_PATIENCE = 60.0

_MITMPROXY = "mitmproxy.tools.main"
_PROGRAMS = {name: (_MITMPROXY, name) for name in ("mitmdump", "mitmweb")}
"""What the scripts of these names run: a module, and a function in it."""
_IMPORTED = (_MITMPROXY, "mitmproxy.tools.dump")
_IMPORTED_OF_OURS = ("egress_gateway.compose", "anyio._backends._asyncio")

# Python looks at these when it starts, which is over.
_FOR_PYTHON = ("PYTHON", "LANG", "LC_")
_AFTERWARDS = ("PYTHONUNBUFFERED",)


def can_start(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Whether `command` is a program that starts warm, and does not notice."""
    path = Path(command[0])
    settings = {name for name in {*env, *os.environ} if name.startswith(_FOR_PYTHON) and name not in _AFTERWARDS}
    return (
        path.parent == Path(sys.executable).parent
        and path.name in _PROGRAMS
        and all(env.get(name) == os.environ.get(name) for name in settings)
    )


class Started:
    """A program that was started warm; what `Process` needs of `subprocess.Popen`."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        # A test may have the program load other sources than these, and they must not find ours in their place.
        ours = all(Path(word).is_relative_to(_ADDONS) for word in command if Path(word).name == "egress.py")
        self._server = _server((*_IMPORTED, *(_IMPORTED_OF_OURS if ours else ())))
        order = {
            "run": _PROGRAMS[Path(command[0]).name],
            "command": list(command),
            "env": dict(env),
            "cwd": str(cwd),
        }
        reading, writing = os.pipe()
        try:
            with open("/proc/thread-self/ns/net", "rb") as network:
                self.pid: int = self._server.ask(order, writing, network.fileno())
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        self.stdout = io.FileIO(reading)
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, None while it runs; negative is the signal that ended it."""
        if self.returncode is None:
            self.returncode = self._server.ask({"poll": self.pid})
        return self.returncode

    def wait(self) -> int:
        """The exit code, as soon as there is one."""
        while (code := self.poll()) is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                select.select([descriptor], [], [])
            finally:
                os.close(descriptor)
        return code


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
