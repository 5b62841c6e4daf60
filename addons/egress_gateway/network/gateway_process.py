"""The gateway itself, started in the background as an ordinary user, and waited for until it is ready."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from .layout import parse_port
from .log_file import last_lines, open_log
from .machine import User
from .terminal import Failure

ROOT = Path(__file__).resolve().parents[3]
GATEWAY = ROOT / "scripts" / "gateway"
_KEPT = ("LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "SSL_CERT_DIR")
_ANY = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # what to ask, not where to listen


@dataclass(frozen=True, slots=True)
class Readiness:
    """Where the gateway says whether it is ready."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Readiness:
        """`host:port`, `[v6]:port` or `:port`, as the gateway itself takes it. Raises ValueError."""
        host, colon, port = text.strip().rpartition(":")
        bare = host.removeprefix("[").removesuffix("]")
        if not colon or (":" in host and len(host) - len(bare) != 2):
            raise ValueError(f"{text!r} is not an address to listen on (write 127.0.0.1:9464, [::1]:9464 or :9464)")
        return cls(_ANY.get(bare, bare), parse_port(port))

    def ask(self) -> str:
        """Empty when it is ready, else what it says."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=2)
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            said = response.read().decode(errors="replace").strip()
            return "" if response.status == 200 else said or f"status {response.status}"
        except (OSError, http.client.HTTPException) as error:
            return str(error) or repr(error)
        finally:
            connection.close()


_DRAIN_SECONDS = "5"
"""Less than `Process.stop` waits. With the packet filter gone, what is still open has not long to go."""
_DEFAULTS = (
    # A line a request is for a terminal: into a file, clients could fill the disk with it.
    "flow_detail=0",
    # Clients with public addresses are clients too, and the packet filter keeps strangers away.
    "block_global=false",
)


def _sets(arguments: Sequence[str], setting: str) -> bool:
    """Whether `arguments` set the option of `setting` already, as `--set NAME=VALUE` or `--set=NAME=VALUE`."""
    start = setting.partition("=")[0] + "="
    after_set = (word for before, word in pairwise(arguments) if before == "--set")
    return any(word.startswith(start) for word in after_set) or any(
        word.startswith(f"--set={start}") for word in arguments
    )


def command(proxy_port: int, dns_port: int, rules: str, metrics: str, more: Sequence[str]) -> tuple[str, ...]:
    """What to run. `more` are the operator's own arguments."""
    modes = ("--mode", f"transparent@{proxy_port}", "--mode", f"dns@{dns_port}")
    defaults = [word for setting in _DEFAULTS if not _sets(more, setting) for word in ("--set", setting)]
    where = ("--rules", rules, "--metrics-listen", metrics, "--drain-timeout", _DRAIN_SECONDS)
    return (str(GATEWAY), *where, *modes, *defaults, *more)


def environment(user: User, home: Path) -> dict[str, str]:
    """Nothing of root's own."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    path = "/usr/local/bin:/usr/bin:/bin"
    # Unbuffered, so that its log has what it said when it is looked into.
    own = {"HOME": str(home), "USER": user.name, "LOGNAME": user.name, "PYTHONUNBUFFERED": "1"}
    return kept | {"PATH": path} | own


def home_of(user: User, instead: Path) -> Path:
    """The user's home directory if it can write there, else `instead`, which is made for it."""
    own = Path(user.home)
    try:
        if own.is_dir() and own.stat().st_uid == user.uid:
            return own
    except OSError:
        pass
    instead.mkdir(mode=0o700, exist_ok=True)
    os.chown(instead, user.uid, user.gid)
    return instead


def start(what: Sequence[str], user: User, home: Path, log: Path) -> subprocess.Popen[bytes]:
    """Runs the gateway as `user`, in a session of its own. Raises `Failure`."""
    with open_log(log) as output:
        try:
            return subprocess.Popen(  # noqa: S603  # our own script
                what,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=environment(user, home),
                user=user.uid,
                group=user.gid,
                extra_groups=user.groups,
                umask=0o022,
                start_new_session=True,
            )
        except OSError as error:
            raise Failure(f"user {user.name} cannot run {what[0]}: {error.strerror}") from None


def wait_ready(process: subprocess.Popen[bytes], readiness: Readiness, log: Path, patience: float) -> None:
    """Raises `Failure` with the last lines of its log when it ends, or is not ready within `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        code = process.poll()
        if code is not None:
            raise Failure(f"the gateway ended with status {code} before it was ready: {last_lines(log)}")
        said = readiness.ask()
        if not said:
            return
        if time.monotonic() > deadline:
            raise Failure(f"the gateway was not ready within {patience:g} s ({said}): {last_lines(log)}")
        time.sleep(0.1)


def check_user(user: User, rules: str) -> None:
    """Raises `Failure` unless `user` can run this Python with this project, and reads the rules."""
    try:
        done = subprocess.run(  # noqa: S603  # our own arguments
            [sys.executable, "-I", "-c", _LOADS, rules],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            cwd="/",
            env=environment(user, Path("/")),
            user=user.uid,
            group=user.gid,
            extra_groups=user.groups,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise Failure(f"user {user.name} cannot run {sys.executable}: {error} ({_OPEN})") from None
    said = done.stderr.strip().splitlines() or [""]
    if done.returncode == _UNREADABLE:
        raise Failure(f"user {user.name} cannot read the rules: {said[0]}")
    if done.returncode:
        raise Failure(f"user {user.name} cannot run {sys.executable} with {ROOT}: {said[-1]} ({_OPEN})")


_OPEN = "every folder on the way must be open to that user: chmod a+rx"
_UNREADABLE = 3
_LOADS = f"""
import sys
from egress_gateway.config.load import load_directory
from egress_gateway.config.problem import RuleErrors
try:
    load_directory(sys.argv[1])
except RuleErrors as error:
    print(error, file=sys.stderr)
    sys.exit({_UNREADABLE})
"""
