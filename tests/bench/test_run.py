"""scripts/bench for real: the gateway is measured, and one that answers wrongly is found out."""

import json
import shutil
import subprocess
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.slow


def run(*arguments: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    for program in ("wrk", "nginx", "ip"):
        if shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin") is None:
            pytest.skip(f"{program} is not installed")
    command = [str(ROOT / "scripts" / "bench"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)


def test_the_gateway_is_measured_and_answers_are_right() -> None:
    done = run("http", "originate", "tunnels", "bytes", "--quick", "--peers", "none", "--json", "-")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["wrong"] == []
    assert said["gateway"].partition(":")[0] in ("compiled", "interpreted")
    figures = {each["key"]: each["subjects"]["gateway"]["median"] for each in said["figures"]}
    assert set(figures) == {"http", "originate", "tunnels", "bytes_down", "bytes_up"}
    assert all(0 < value < 1e6 for value in figures.values()), figures
    # Without peers nothing was compared, and nothing was passed.
    assert all(each["holds"] is None for each in said["targets"])


def test_haproxy_that_splices_is_measured_without_the_other_and_what_was_not_measured_is_not_in_the_table() -> None:
    done = run("bytes", "--quick", "--peers", "haproxy-splice")
    assert done.returncode == 0, done.stderr
    assert "haproxy-splice" in done.stdout
    assert "the best peer" not in done.stdout, "of which nothing can be said"
    assert "not measured" not in done.stdout


_WRONG = textwrap.dedent("""\
    #!/usr/bin/env python3
    # A gateway that answers 200 to everything, with a body of its own.
    import sys, threading
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
    if "--help" in sys.argv:
        sys.exit()
    port = int(sys.argv[sys.argv.index("--listen-port") + 1])
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        def do_GET(self):
            self.send_response(200)
            self.send_header("content-length", "5")
            self.end_headers()
            self.wfile.write(b"wrong")
        def log_message(self, *arguments):
            pass
    for each in (port + 1, port):
        server = ThreadingHTTPServer(("127.0.0.1", each), Handler)
        threading.Thread(target=server.serve_forever).start()
    """)


def test_a_fast_wrong_answer_counts_for_nothing(tmp_path: Path) -> None:
    script = tmp_path / "gateway"
    script.write_text(_WRONG)
    script.chmod(0o755)
    written = tmp_path / "figures.json"
    done = run("http", "--quick", "--peers", "none", "--gateway", str(script), "--json", str(written))
    assert done.returncode == 1, done.stderr
    assert "WRONG: http: gateway: " in done.stderr
    assert "void" in done.stdout
    said = json.loads(written.read_text())
    assert [each["subjects"]["gateway"]["median"] for each in said["figures"]] == [None]
