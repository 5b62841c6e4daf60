import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from egress_gateway.observe.access_log import AccessLog
from egress_gateway.policy.events import Exchange
from support.waiting import eventually

Make = Callable[..., Exchange]


def test_the_file_holds_a_line_for_each_exchange(tmp_path: Path, request_: Make, refused: Make) -> None:
    log = AccessLog(str(tmp_path / "access.log"))
    log.finished(request_())
    log.finished(refused())
    log.close(10)
    entries = [json.loads(text) for text in (tmp_path / "access.log").read_text().splitlines()]
    assert [entry["verdict"] for entry in entries] == ["allow", "deny"]
    assert log.dropped == 0


def test_after_a_rotation_lines_go_to_the_new_file(tmp_path: Path, request_: Make) -> None:
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log.finished(request_(path="/1"))
    eventually(lambda: path.read_text(), "the first line")
    path.rename(tmp_path / "access.log.1")
    log.reopen()
    log.finished(request_(path="/2"))
    eventually(lambda: path.exists() and path.read_text(), "the second line")
    log.close()
    assert json.loads((tmp_path / "access.log.1").read_text())["path"] == "/1"
    assert json.loads(path.read_text())["path"] == "/2"


def test_a_file_that_cannot_be_opened_is_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="cannot open access log"):
        AccessLog(str(tmp_path))


def test_a_disk_that_is_full_drops_and_counts(request_: Make) -> None:
    log = AccessLog("/dev/full")
    for _ in range(100):
        log.finished(request_())
    log.close()
    assert log.dropped == 100


def test_a_fifo_without_a_reader_never_slows_traffic(tmp_path: Path, request_: Make) -> None:
    os.mkfifo(tmp_path / "fifo")
    log = AccessLog(str(tmp_path / "fifo"), queue_size=50)
    exchange = request_()
    started = time.monotonic()
    for _ in range(20_000):
        log.finished(exchange)
    log.close(10)
    assert time.monotonic() - started < 8
    assert log.dropped == 20_000


def test_a_dash_is_standard_output_and_a_stopped_pipe_does_not_keep_the_process() -> None:
    program = """if True:
        from egress_gateway.observe.access_log import AccessLog
        from egress_gateway.policy.events import Exchange
        log = AccessLog("-")
        for i in range(2000):
            exchange = Exchange(start_time=0.0)
            exchange.path = f"/{i}"
            log.finished(exchange)
        log.close(0.5)
        import sys, threading
        for thread in threading.enumerate():
            if thread is not threading.main_thread():  # what it has in hand when its time is over is counted then
                thread.join()
        print(log.dropped, file=sys.stderr)
    """
    with subprocess.Popen(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.wait(30) == 0
        assert process.stdout is not None
        assert process.stderr is not None
        lines = process.stdout.read().splitlines(keepends=True)
        dropped = int(process.stderr.read())
    whole = [text for text in lines if text.endswith(b"\n")]
    assert [json.loads(text)["path"] for text in whole] == [f"/{i}" for i in range(len(whole))]
    assert len(whole) + dropped == 2000
    assert whole
    assert dropped
