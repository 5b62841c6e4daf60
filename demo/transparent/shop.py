"""Bookinfo in the client's network: four services, each on a loopback address that its name leads to.

Nobody here is told of a gateway. Their name server is the internet's own; it is the network that sends questions and
connections elsewhere.
"""

from __future__ import annotations

import shutil
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from demo.base_stage import HERE, ROOT, environment
from demo.bookinfo.productpage import PATH
from demo.bookinfo.service import PORT
from demo.clients import Reply, ask
from demo.processes import Program

from .browser import take_picture
from .networks import NAMES, Machine

_ADDRESSES = {"productpage": "127.0.1.1", "details": "127.0.1.2", "reviews": "127.0.1.3", "ratings": "127.0.1.4"}
URL = f"http://productpage:{PORT}{PATH}"

_FILES = {
    "hosts": "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in _ADDRESSES.items()),
    "resolv.conf": f"nameserver {NAMES}\noptions timeout:10 attempts:1\n",
    "nsswitch.conf": "hosts: files dns\n",
}
# In a mount namespace of its own, which is gone with the program. Some systems ask a daemon for names, over a socket
# that leads out of the network; there it has none.
_WITH_FILES = """
for name in hosts resolv.conf nsswitch.conf; do
    [ ! -e /etc/$name ] || mount --bind "$0/$name" /etc/$name
done
for daemon in /run/nscd /run/systemd/resolve; do
    [ ! -d $daemon ] || mount -t tmpfs none $daemon
done
exec "$@"
"""


class Shop:
    """Enter it inside the client's network, from the main thread; the programs end with it."""

    def __init__(self, client: Machine, folder: Path) -> None:
        self._client = client
        self._folder = folder
        self._etc = folder / "etc"
        self._etc.mkdir()
        for name, text in _FILES.items():
            (self._etc / name).write_text(text, encoding="ascii")
        self._programs = ExitStack()
        self._details: Program | None = None

    @property
    def where(self) -> list[str]:
        """The prefix of a command that sees the client's names."""
        return ["unshare", "--mount", "--", "sh", "-ec", _WITH_FILES, str(self._etc)]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for name in ("ratings", "reviews", "productpage"):
                command = [sys.executable, "-m", f"demo.bookinfo.{name}"]
                stack.enter_context(self._start(name, command)).wait_for("listens on port")
            self._programs = stack.pop_all()
        self.deploy_details("v1")
        return self

    def __exit__(self, *_: object) -> None:
        if self._details is not None:
            self._details.stop()
        self._programs.close()

    def deploy_details(self, version: str) -> str:
        """Puts this version in place of the one that runs; returns what language it says it is written in."""
        ruby = shutil.which("ruby")
        if version == "v1":
            command = [sys.executable, "-m", "demo.bookinfo.details"]
        else:
            command = [ruby, str(HERE / "details.rb")] if ruby else [sys.executable, str(HERE / "details.py")]
        if self._details is not None:
            self._details.stop()
        self._details = self._start("details", command, WITH_ISTIO="true")
        return self._details.wait_for(r"details(?: \((.+)\))? listens on port")[1] or ""

    def page(self) -> str:
        """The page of the book, as HTML."""
        return self._ask("productpage", PATH).body

    def details(self) -> Reply:
        """What the details service tells of the book."""
        return self._ask("details", "/details/0")

    def take_picture(self, browser: str, path: Path) -> None:
        with self._client.entered():
            take_picture(browser, URL, path, where=self.where, env=environment(), folder=self._folder)

    def _ask(self, service: str, path: str) -> Reply:
        with self._client.entered():
            return ask((_ADDRESSES[service], PORT), "GET", path, {"Host": f"{service}:{PORT}"})

    def _start(self, name: str, command: list[str], **also: str) -> Program:
        env = environment(LISTEN=f"{_ADDRESSES[name]}:{PORT}", **also)
        with self._client.entered():
            return Program(name, [*self.where, *command], env, ROOT)
