"""A machine of the lab as its programs see it: a name server of its own, a home, and the authorities it trusts.

    desk = Machine(lab.client, home, name_server=lab.gateway.ipv4, trusts=ca.pem_path)
    ended = desk.run("curl", "https://www.example.com/")     # there are no proxy settings anywhere
    ended.check()

/etc/resolv.conf belongs to the real machine, so each program gets a mount namespace of its own in which another
file lies over it; /etc/hosts and /etc/nsswitch.conf stay. It also gets a process namespace: what it starts
(a browser's helpers, git's transports) ends with it, however it ends.
"""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from support.networks import Host

_UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
_START = 'mount --bind "$1" /etc/resolv.conf && shift && "$@"; exit $?'
"""The shell stays, as the first process of its namespace: that one is to wait for orphans."""

# By client library: there is no one place where all of them look.
_TRUST = ("CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")


ASKS_ONCE = "attempts:1 timeout:20"


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended, and when."""

    command: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float

    @property
    def said(self) -> str:
        return self.err + self.out

    def check(self) -> "Ended":
        assert self.code == 0, f"{self.command} ended with {self.code}:\n{self.said}"
        return self


class Machine:
    """Runs programs on `host`. `home` is an empty folder; it becomes their HOME and their current folder.

    `resolver_options` are those of resolv.conf(5). The usual ones tell a refusal, which comes at once, from silence.
    """

    def __init__(
        self, host: Host, home: Path, *, name_server: str, trusts: Path, resolver_options: str = ASKS_ONCE
    ) -> None:
        self.host = host
        self.home = home
        self._resolv_conf = home / "resolv.conf"
        text = f"nameserver {name_server}\noptions {resolver_options}\n"
        self._resolv_conf.write_text(text, encoding="ascii")
        self._env = {
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "PATH": f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin",
            **dict.fromkeys(_TRUST, str(trusts)),
        }

    def run(self, *command: str | Path, timeout: float = 30, **env: str) -> Ended:
        """Run a program to its end, with nothing to read and these variables as well."""
        words = tuple(map(str, command))
        started = time.monotonic()
        done = self.host.run(
            *_UNSHARE,
            *("sh", "-c", _START, "sh", self._resolv_conf),
            *words,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            cwd=self.home,
            env=self._env | env,
            errors="replace",
        )
        return Ended(words, done.returncode, done.stdout, done.stderr, time.monotonic() - started)
