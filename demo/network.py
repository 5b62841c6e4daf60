"""A network of our own: a fresh namespace whose only interface is loopback, where every port is free.

It needs no privilege where the system lets people have user namespaces. Where it does not, the demo uses the
machine's own loopback addresses and whatever ports are free there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct
import subprocess
import sys

_SIOCSIFFLAGS = 0x8914
_UP_LOOPBACK_RUNNING = 0x1 | 0x8 | 0x40


def enter_private() -> str:
    """Moves this process, and all it starts from now on, into a network of its own.

    Call it while the process has one thread. Returns why it was not possible; the empty string is success.
    """
    # Some systems let a process in and then forbid it to do anything there, so a child tries first.
    trial = subprocess.run([sys.executable, "-I", __file__], capture_output=True, text=True, check=False)
    if trial.returncode != 0:
        return (trial.stderr.strip().splitlines() or ["it did not work"])[-1]
    _enter()
    return ""


def _enter() -> None:
    if os.geteuid() == 0:
        os.unshare(os.CLONE_NEWNET)
    else:
        user, group = os.geteuid(), os.getegid()
        os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
        # Root inside, so that port 443 is ours; still the same user outside.
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    with socket.socket() as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _UP_LOOPBACK_RUNNING))


def port_free_on(addresses: list[str], wanted: int) -> int:
    """`wanted` if all of these addresses have it free and this user may use it, else another one they have free."""
    for port in [wanted, *(_any_port(addresses[0]) for _ in range(20))]:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for address in addresses:
                stack.enter_context(socket.create_server((address, port)))
            return port
    raise OSError(f"no port is free on all of {', '.join(addresses)}")


def _any_port(address: str) -> int:
    with socket.create_server((address, 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


if __name__ == "__main__":
    _enter()
    socket.create_server(("127.0.0.2", 443)).close()
