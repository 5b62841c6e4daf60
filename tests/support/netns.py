"""A private network for the whole test run.

The test process moves into a network namespace of its own, in which `lo` is the only interface and every
address in the world is routed to it: `203.0.113.10`, `10.0.0.5`, `169.254.169.254` or `8.8.8.8` are all here.
So a test listens on whatever address it likes, a connection to any other is refused at once by this very
kernel and is seen by `support.wire.Wire`, and nothing can leave.

The addresses are *routed* to `lo`, not assigned to it, so a gateway that lists its own addresses finds only
loopback and `OWN_V4` / `OWN_V6`, which also are the source of every connection that does not go to loopback.
"""

import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass

# The only addresses of this "machine" beside loopback (benchmarking and documentation ranges, nobody's own).
OWN_V4 = "198.18.0.1"
OWN_V6 = "3fff::1"

# No packet to these is ever answered: what a dead host looks like. (The kernel drops those to the IPv6 one so
# early that not even `Wire` sees them.)
BLACKHOLE_V4 = "203.0.113.250"
BLACKHOLE_V6 = "2001:db8::dead"

_SETUP = f"""\
link set lo up
addr add {OWN_V4}/32 dev lo
addr add {OWN_V6}/128 dev lo nodad
route add local 0.0.0.0/0 dev lo table main src {OWN_V4}
route add local ::/0 dev lo table main src {OWN_V6}
route add {BLACKHOLE_V4}/32 dev lo src {OWN_V4}
route add {BLACKHOLE_V6}/128 dev lo src {OWN_V6}
"""


@dataclass(frozen=True, slots=True)
class Network:
    """Whether this process is in its private network; if not, `reason` says why."""

    available: bool
    reason: str = ""
    outside: str = ""  # the namespace the process came from, as /proc names it


def namespace(pid: int | str = "self") -> str:
    """The network namespace of a process, such as `net:[4026531840]`."""
    return os.readlink(f"/proc/{pid}/ns/net")


def enter() -> Network:
    """Move this process (and all it will start) into a new private network; never half-way."""
    if not hasattr(os, "unshare"):
        return Network(False, "network namespaces need Linux")
    if shutil.which("ip") is None:
        return Network(False, "the ip command (package iproute2) is not installed")
    outside = namespace()
    # Some systems let a process enter a namespace and then forbid to set it up, so a child tries first.
    trial = subprocess.run([sys.executable, "-I", __file__], capture_output=True, text=True, check=False)
    if trial.returncode != 0:
        said = trial.stderr.strip().splitlines() or ["no output"]
        return Network(False, f"no network namespace of its own: {said[-1]}")
    _move()
    _set_up(outside)
    return Network(True, outside=outside)


def _move() -> None:
    if os.geteuid() == 0:
        os.unshare(os.CLONE_NEWNET)
        return
    uid, gid = os.geteuid(), os.getegid()
    os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
    # Root inside, so that `ip` and raw sockets work; still the same user outside.
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _set_up(outside: str) -> None:
    if namespace() == outside:  # never lay routes in the network of the machine
        raise OSError("still in the network namespace this process was started in")
    done = subprocess.run(["ip", "-batch", "-"], input=_SETUP, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError("ip: " + " ".join(done.stderr.split()))


if __name__ == "__main__":
    started_in = namespace()
    _move()
    _set_up(started_in)
    socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM).close()
