"""The gateway under test as a real process: mitmdump or mitmweb with the addons, or the gateway's own runner.

    with Gateway(rules=RULES, dns_servers=[dns.endpoint], trusted_ca=ca.pem_path) as gw:
        reply = gw.raw(b"GET http://denied.example/ HTTP/1.1\\r\\n\\r\\n")
        gw.wait_for_log(authority="denied.example", verdict="deny")

Each has its own rules directory, access log, ports and mitmproxy configuration directory. What stands in
`options` goes before the defaults; `None` there takes a default away.
"""

import atexit
import contextlib
import functools
import http.client
import json
import os
import shutil
import socket
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import mitmproxy.certs
from prometheus_client.parser import text_string_to_metric_families

from support.ca import with_small_key
from support.files import put
from support.process import Process, group, rss_kib
from support.sockets import free_port
from support.waiting import PATIENCE, eventually

REPOSITORY = Path(__file__).resolve().parents[2]
PUBLIC_RANGES = "203.0.113.0/24,2001:db8::/32"
READY_TIMEOUT = 20.0
_SILENCE = 2.0
"""Seconds without a word after which an answer is whole, where the connection stays open."""

type Program = Literal["mitmdump", "mitmweb", "gateway"]
type Option = str | int | float | bool | Path | Sequence[str] | None
type Rules = str | Mapping[str, str] | Path
type Ending = Literal["closed", "reset", "quiet"]
type MetricKey = tuple[str, frozenset[tuple[str, str]]]


class GatewayFailed(AssertionError):
    """The process ended, or was not ready in time; the text has its output."""


class Reply(bytes):
    """What came back over a raw connection, and how it ended: "closed", "reset", or "quiet" (still open)."""

    ending: Ending = "quiet"


@dataclass(slots=True)
class _Log:
    """What was read of an access log, so that it is parsed once."""

    file: tuple[int, int] | None = None
    read: int = 0
    entries: list[dict[str, Any]] = field(default_factory=list)


class Gateway:
    """Starts in `__enter__` (or `start()`), ready when that returns.

    `rules`: YAML for one file, a mapping of file names to YAML, or a directory to copy.
    `script` is what mitmproxy loads; `scripts_before` and `scripts_after` stand around it.
    `wait_ready=False` returns at once: for starts that must fail, see `wait_for_exit`.
    `listen_host=""` is every address, of both families.
    `cold` executes the program itself: for tests of how it starts. Otherwise it starts warm, where it can.
    `workers` is for the program "gateway", which loads the addons itself, and no `script`.
    """

    def __init__(
        self,
        rules: Rules = "",
        options: Mapping[str, Option] | None = None,
        *,
        program: Program = "mitmdump",
        data_path: Literal["relay", "inspect"] | None = None,
        mode: str | Sequence[str] | None = None,
        scripts_before: Iterable[Path] = (),
        scripts_after: Iterable[Path] = (),
        extra_args: Iterable[str] = (),
        env: Mapping[str, str] | None = None,
        dns_servers: Sequence[str] = (),
        trusted_ca: Path | None = None,
        script: Path = REPOSITORY / "addons" / "egress.py",
        listen_host: str = "127.0.0.1",
        wait_ready: bool = True,
        cold: bool = False,
        workers: int = 2,
        ready_timeout: float = READY_TIMEOUT,
    ) -> None:
        runner = program == "gateway"
        self._directory = Path(tempfile.mkdtemp(prefix="gateway-test-"))
        self._forget = weakref.finalize(self, shutil.rmtree, self._directory, ignore_errors=True)
        self.rules_dir = self._directory / "rules"
        self.access_log_path = self._directory / "access.log"
        self.confdir = self._directory / "conf"
        _write_rules(rules, self.rules_dir)
        shutil.copytree(_mitmproxy_ca(cold), self.confdir)
        self.host = listen_host or "127.0.0.1"
        self.port = free_port(listen_host or "::")
        self.metrics_port = free_port()
        self.web_port = free_port() if program == "mitmweb" else 0
        self.program = program
        self.workers = workers if runner else 1
        self._wait_ready, self._ready_timeout = wait_ready, ready_timeout
        self._cold = cold
        self._env = env or {}
        self._process: Process | None = None
        self._log = _Log()
        self.exit_code: int | None = None
        defaults: dict[str, Option] = {
            "confdir": self.confdir,
            "egress_rules": self.rules_dir,
            "egress_metrics_listen": f"127.0.0.1:{self.metrics_port}",
            "egress_access_log": self.access_log_path,
            "egress_public_ranges": PUBLIC_RANGES,
            "egress_data_path": data_path,
            "egress_dns_servers": ",".join(dns_servers) or None,
            "ssl_verify_upstream_trusted_ca": trusted_ca,
            "web_password": "x" if program == "mitmweb" else None,
        }
        scripts = [*scripts_before, *([] if runner else [script]), *scripts_after]
        self.command = [
            *_program(program, cold),
            *(["--workers", str(workers)] if runner else ()),
            *(text for path in scripts for text in ("-s", str(path))),
            *("--listen-host", listen_host, "--listen-port", str(self.port)),
            *(text for one in ([mode] if isinstance(mode, str) else mode or ()) for text in ("--mode", one)),
            *(["--no-web-open-browser", "--web-port", str(self.web_port)] if program == "mitmweb" else ()),
            *_set_options(defaults | dict(options or {})),
            *extra_args,
        ]

    # Where it is.

    @property
    def address(self) -> tuple[str, int]:
        """Of the proxy port, as sockets take it."""
        return self.host, self.port

    @property
    def url(self) -> str:
        """Of the proxy port, as HTTP clients take it."""
        return f"http://{self.host}:{self.port}"

    @property
    def web_url(self) -> str:
        return f"http://127.0.0.1:{self.web_port}"

    @property
    def inspect_ca(self) -> Path:
        """The certificate of mitmproxy's own authority, for clients of decrypted connections."""
        return self.confdir / "mitmproxy-ca-cert.pem"

    # Life.

    @property
    def process(self) -> Process:
        if self._process is None:
            raise RuntimeError("the gateway was not started")
        return self._process

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        """Standard output and error so far."""
        return self.process.output

    def start(self) -> Self:
        binaries = Path(sys.executable).parent
        env = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        env |= {"PYTHONUNBUFFERED": "1", "PATH": f"{binaries}{os.pathsep}{env.get('PATH', '')}", **self._env}
        self._process = Process(self.command, env, REPOSITORY, start_warm=not self._cold)
        try:
            if self._wait_ready:
                self.wait_ready(self._ready_timeout)
        except BaseException:
            self.stop()
            raise
        return self

    def wait_ready(self, timeout: float = READY_TIMEOUT) -> None:
        """Until /readyz says 200; GatewayFailed when the process ends or the time is over."""
        deadline = time.monotonic() + timeout
        status: object = None
        while time.monotonic() < deadline:
            if self.process.wait(0.02):
                code = self.process.exit_code
                raise GatewayFailed(f"exited with {code} before it was ready:\n{self.output}")
            try:
                status, _ = self.metrics_get("/readyz")
            except OSError as error:
                status = error
            if status == 200:
                if self.program == "gateway":
                    self._wait_for_workers(deadline)
                return
        raise GatewayFailed(f"not ready after {timeout:g} s (/readyz: {status}):\n{self.output}")

    def _wait_for_workers(self, deadline: float) -> None:
        """It is ready with the first of them; they may be fewer than it was told to start."""
        self.workers = int(self.metric("egress_workers_wanted"))
        eventually(
            lambda: self.metric("egress_workers_ready") == self.workers,
            lambda: f"{self.workers} workers:\n{self.output}",
            max(1.0, deadline - time.monotonic()),
        )

    def wait_for_exit(self, timeout: float = READY_TIMEOUT) -> int:
        """The exit code of a process that ends by itself; GatewayFailed when it does not."""
        if not self.process.wait(timeout):
            raise GatewayFailed(f"still running after {timeout:g} s:\n{self.output}")
        return self.stop()

    def stop(self) -> int:
        """SIGTERM, SIGKILL after 10 s; the exit code. `output` and `access_log()` remain; idempotent."""
        self.exit_code = self.process.stop()
        return self.exit_code

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._forget()

    def rss_kib(self) -> int:
        """Resident memory of the process and its workers."""
        total = 0
        for pid in group(self.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a worker that just ended
                total += rss_kib(pid)
        return total

    # Talking to it.

    def connect(self, timeout: float = PATIENCE) -> socket.socket:
        """A connection to the proxy port."""
        sock = socket.create_connection(self.address, timeout=timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock

    def raw(self, data: bytes | Iterable[bytes], timeout: float | None = None, pause: float = 0.01) -> Reply:
        """Send `data` (pieces: segments `pause` s apart), and read as `read_reply` does."""
        pieces = [data] if isinstance(data, bytes) else data
        with self.connect() as sock:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # refused before it had all
                for number, piece in enumerate(pieces):
                    time.sleep(pause if number else 0)
                    sock.sendall(piece)
            return read_reply(sock, timeout)

    # What it tells.

    def metrics_get(self, path: str) -> tuple[int, str]:
        """Status and body of a path on the metrics port."""
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics_port, timeout=PATIENCE)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except http.client.HTTPException as error:
            raise OSError(f"{path}: {error!r}") from error
        finally:
            connection.close()

    def metrics(self, name: str = "") -> dict[MetricKey, float]:
        """Every sample, or those whose name begins with `name`: {(name, frozenset of label pairs): value}."""
        status, text = self.metrics_get("/metrics")
        assert status == 200, f"/metrics says {status}: {text}"
        if name:  # parsing takes longest
            text = "".join(line for line in text.splitlines(keepends=True) if line.startswith(name))
        families = text_string_to_metric_families(text)
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the samples of this name that have at least these labels; 0 when there is none."""
        wanted = labels.items()
        samples = self.metrics(name).items()
        return sum(value for (found, pairs), value in samples if found == name and wanted <= pairs)

    def wait_for_metric(self, name: str, at_least: float = 1, timeout: float = PATIENCE, **labels: str) -> float:
        """The sum as in `metric`, as soon as it is `at_least` that."""
        eventually(
            lambda: self.metric(name, **labels) >= at_least,
            lambda: f"{name}{labels} >= {at_least}, is {self.metric(name, **labels)}",
            timeout,
            every=0.05,
        )
        return self.metric(name, **labels)

    def access_log(self) -> list[dict[str, Any]]:
        """The lines written so far; a line that is not a JSON object is an AssertionError."""
        try:
            with open(self.access_log_path, "rb") as file:
                status = os.fstat(file.fileno())
                if self._log.file != (which := (status.st_dev, status.st_ino)) or status.st_size < self._log.read:
                    self._log = _Log(which)  # another one, or cut
                file.seek(self._log.read)
                data = file.read()
        except FileNotFoundError:
            return []
        complete = data[: data.rfind(b"\n") + 1]  # the last may be half written
        entries = [_entry(line) for line in complete.decode().split("\n")[:-1]]
        self._log.read += len(complete)
        self._log.entries += entries
        return list(self._log.entries)

    def wait_for_log(
        self, predicate: Callable[[dict[str, Any]], bool] | None = None, timeout: float = PATIENCE, **fields: Any
    ) -> dict[str, Any]:
        """The first line that has these `fields` and for which `predicate` holds, as soon as there is one."""

        def matching() -> list[dict[str, Any]]:
            return [
                entry
                for entry in self.access_log()
                if entry.items() >= fields.items() and (predicate is None or predicate(entry))
            ]

        def seen() -> str:
            return f"a line with {fields or predicate}; the last ones: {self.access_log()[-5:]}"

        return eventually(matching, seen, timeout)[0]

    # Its rules.

    def write_rule(self, filename: str, yaml_text: str, wait: bool = True) -> Path:
        """Put a file there in one step, and wait until the gateway has loaded (or refused) it."""
        path = self.rules_dir / filename
        with self.reload_expected() if wait else contextlib.nullcontext():
            put(path, yaml_text)
        return path

    def delete_rule(self, filename: str, wait: bool = True) -> None:
        with self.reload_expected() if wait else contextlib.nullcontext():
            (self.rules_dir / filename).unlink()

    @contextlib.contextmanager
    def reload_expected(self, timeout: float = PATIENCE) -> Iterator[None]:
        """At the end, wait until the gateway, each of its workers, has read the rules again since the beginning."""
        before = self.metric("egress_rules_reloads_total")
        yield
        self.wait_for_metric("egress_rules_reloads_total", before + self.workers, timeout)


def read_reply(sock: socket.socket, timeout: float | None = None) -> Reply:
    """All that comes until the connection ends or nothing came for `timeout` seconds.

    None waits longer for the first of it, which is to come, than for what may be no more than the end.
    """
    data = bytearray()
    ending: Ending = "quiet"
    sock.settimeout(PATIENCE if timeout is None else timeout)
    with contextlib.suppress(TimeoutError):
        try:
            while chunk := sock.recv(65536):
                data += chunk
                sock.settimeout(_SILENCE if timeout is None else timeout)
            ending = "closed"
        except ConnectionResetError:
            ending = "reset"
    reply = Reply(data)
    reply.ending = ending
    return reply


def _program(name: str, cold: bool) -> list[str]:
    if name != "gateway":
        return [str(Path(sys.executable).parent / name)]
    # What the script hands over to, having added what is given here anyway.
    return [str(REPOSITORY / "scripts" / "gateway")] if cold else [sys.executable, "-P", "-m", "egress_gateway.runner"]


def _set_options(options: Mapping[str, Option]) -> Iterator[str]:
    for name, value in options.items():
        if value is None:
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        for one in values:
            text = str(one).lower() if isinstance(one, bool) else str(one)
            yield from ("--set", f"{name}={text}")


def _write_rules(rules: Rules, directory: Path) -> None:
    if isinstance(rules, Path):
        shutil.copytree(rules, directory)
        return
    directory.mkdir()
    files = {"rules.yaml": rules} if isinstance(rules, str) else rules
    for name, text in files.items():
        if text:
            (directory / name).write_text(text, encoding="utf-8")


def _entry(line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise AssertionError(f"a line of the access log is not JSON: {line!r}") from error
    assert isinstance(entry, dict), f"a line of the access log is not an object: {line!r}"
    return entry


@functools.cache
def _mitmproxy_ca(cold: bool) -> Path:
    """mitmproxy makes its own CA at the first start, which takes long; one for the whole run is enough.

    A program that is started cold finds what mitmproxy has made. The others find a key that takes no time to load.
    """
    directory = Path(tempfile.mkdtemp(prefix="gateway-test-ca-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    mitmproxy.certs.CertStore.create_store(directory, "mitmproxy", 2048)
    if not cold:
        certificate = directory / "mitmproxy-ca-cert.pem"
        key, pem = with_small_key(certificate.read_bytes())
        certificate.write_bytes(pem)
        (directory / "mitmproxy-ca.pem").write_bytes(key + pem)
    return directory
