"""The transparent play, on real networks: it is told to its end, with pictures, and leaves nothing behind."""

import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import pytest

from support.demo import DEMO, assert_told_in_order, run, running_in
from support.waiting import eventually

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.private_network]

needs_programs = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nft", "unshare"))), reason="needs root, ip and nft"
)
needs_chromium = pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")

_ROOT = Path(DEMO).parents[1]
_WITHOUT, _WITH = "bookinfo-without-rule.png", "bookinfo-with-rule.png"
_ERROR_COLOUR = bytes.fromhex("fbeae7")
"""The ground of the box that says what is missing."""
_UPPER_PART = 330

_IN_THIS_ORDER = (
    "Act 1 · Two networks, and a router between them",
    "✓ the page has details, by version 1",
    "doors, and all of them are open",
    "$ scripts/gateway-up --inside inside --outside outside",
    "Act 2 · Nothing is allowed",
    "✓ the page says: Error fetching product details",
    "✓ and has the rest: reviews, ratings",
    "✓ the gateway answers in place of every name server, and refuses",
    "✓ upstream, nobody was asked",
    "✓ the origin has heard nothing: 0 connections",
    "Act 3 · A rule opens the door",
    "Created config egress-rule/default/googleapis at revision 1",
    "✓ the page has its details, by the Books API",
    "✓ plain HTTP from details came to the origin in TLS, for www.googleapis.com",
    "✓ TLS that cannot be verified carries nothing",
    "Act 4 · The malicious client",
    "403 Forbidden  (x-egress-reason: address_mismatch)",
    "TLS alert: TLSV1_ALERT_ACCESS_DENIED",
    "✓ evil.example's interface saw nothing",
    "doors, and all of them are closed",
    "Act 5 · The rule goes",
    "✓ the page says again: Error fetching product details",
    "Act 6 · What the gateway tells of it",
    'egress_identity_mismatches_total{claim="address"}',
    '"original_destination": "198.51.100.66:443"',
    "That is the story, and every line of it was checked.",
)


def machine() -> dict[str, object]:
    """What a demo could leave behind on the machine it runs on."""

    def said(*command: str) -> str:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    return {
        "interfaces": said("ip", "-oneline", "link"),
        "addresses": said("ip", "-oneline", "address"),
        "routes": said("ip", "route", "show", "table", "all"),
        "packet filter": said("nft", "list", "ruleset"),
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
        "mounts": Path("/proc/self/mounts").read_text(),
        "named networks": sorted(os.listdir("/run/netns")) if Path("/run/netns").exists() else [],
    }


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demo makes its folder, so that what is left of it can be seen."""
    made = tmp_path / "temporary"
    made.mkdir()
    monkeypatch.setenv("TMPDIR", str(made))
    monkeypatch.setenv("STARTED_BY_TEST", str(made))  # Chromium gets another TMPDIR
    return made


def started(*arguments: str, behind: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*behind, DEMO, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    )


def read_until(demo: subprocess.Popen[str], text: str) -> str:
    """What it says until it says this; AssertionError when it ends before."""
    assert demo.stdout is not None
    said = ""
    for line in demo.stdout:
        said += line
        if text in line:
            return said
    assert demo.stderr is not None
    raise AssertionError(f"it never said {text}:\n{said}{demo.stderr.read()}")


def pixels(path: Path) -> tuple[int, Counter[bytes]]:
    """The width of a PNG (8 bits, RGB), and how often it has each colour in its upper part, which has the details."""
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, depth, kind = struct.unpack_from("!IIBB", data, 16)
    assert (depth, kind) == (8, 2)
    packed, position = b"", 8
    while position < len(data):
        (length,) = struct.unpack_from("!I", data, position)
        if data[position + 4 : position + 8] == b"IDAT":
            packed += data[position + 8 : position + 8 + length]
        position += 12 + length
    lines, stride = zlib.decompress(packed), width * 3
    above, colours = bytearray(stride), Counter[bytes]()
    for row in range(min(height, _UPPER_PART)):
        start = row * (stride + 1)
        line = _unfiltered(lines[start], bytearray(lines[start + 1 : start + 1 + stride]), above)
        colours.update(bytes(line[i : i + 3]) for i in range(0, stride, 3))
        above = line
    return width, colours


def _unfiltered(kind: int, line: bytearray, above: bytearray) -> bytearray:
    """A line of a PNG as it was before it was filtered (PNG specification, section 9)."""
    if kind == 0:
        return line
    if kind == 2:
        return bytearray((here + up) & 255 for here, up in zip(line, above, strict=True))
    for i in range(len(line)):
        left, up = line[i - 3] if i > 2 else 0, above[i]
        if kind == 1:
            guess = left
        elif kind == 3:
            guess = (left + up) // 2
        else:
            corner = above[i - 3] if i > 2 else 0
            guess = min((left, up, corner), key=lambda value: abs(left + up - corner - value))
        line[i] = (line[i] + guess) & 255
    return line


@needs_programs
@needs_chromium
def test_the_story_is_told_in_order_with_pictures_and_nothing_is_left_behind(folder: Path, tmp_path: Path) -> None:
    before = machine()
    pictures = tmp_path / "pictures"
    done = run("--transparent", "--fast", "--screenshots", str(pictures))
    assert_told_in_order(done, _IN_THIS_ORDER)

    sizes = {path.name: path.stat().st_size for path in pictures.iterdir()}
    assert sizes.keys() == {_WITHOUT, _WITH}
    assert max(sizes.values()) <= 120 * 1024
    (width, without), (other_width, with_rule) = pixels(pictures / _WITHOUT), pixels(pictures / _WITH)
    assert width == other_width == 1000
    assert without[_ERROR_COLOUR] > 10_000, "the page does not show the error"
    assert with_rule[_ERROR_COLOUR] == 0
    assert max(with_rule.values()) < with_rule.total() * 0.9, "an empty page"

    assert list(folder.iterdir()) == []
    assert running_in(folder) == []
    assert machine() == before


@needs_programs
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_it_and_everything_it_has_started(folder: Path, number: signal.Signals) -> None:
    before = machine()
    with started("--transparent") as demo:
        read_until(demo, "Act 2")
        running = running_in(folder)
        assert any("demo.bookinfo.reviews" in command for command in running)
        assert any("network.keeper" in command for command in running), "the keeper of gateway-up"
        demo.send_signal(number)
        _, said = demo.communicate(timeout=30)
    if number is signal.SIGKILL:
        eventually(lambda: running_in(folder) == [], lambda: f"not ended: {running_in(folder)}", timeout=15)
    else:
        assert demo.returncode == 128 + number
        assert f"ended by {number.name}" in said
        assert list(folder.iterdir()) == []
    assert running_in(folder) == []
    assert machine() == before


@needs_programs
def test_a_rule_that_allows_something_else_is_noticed(folder: Path, tmp_path: Path) -> None:
    before = machine()
    rule = tmp_path / "other.yaml"
    rule.write_text(
        "kind: EgressRule\nmetadata: {name: googleapis}\nspec:\n"
        '  destination: {service: "*.example.org"}\n  ports: [{port: 443, protocol: https}]\n'
    )
    done = run("--transparent", "--fast", "--rule-file", str(rule))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("demo: act 3 differs from the story; this does not hold: the name has an address now")
    assert "Act 4" not in done.stdout
    assert list(folder.iterdir()) == []
    assert running_in(folder) == []
    assert machine() == before


@needs_programs
def test_without_chromium_there_are_no_pictures_and_it_says_so(folder: Path, tmp_path: Path) -> None:
    """Chromium is hidden behind an empty file that nobody can execute."""
    hidden = 'for name in chromium chromium-browser google-chrome google-chrome-stable; do path=$(command -v "$name") '
    hidden += '&& mount --bind /dev/null "$(realpath "$path")"; done; exec "$@"'
    before, pictures = machine(), tmp_path / "pictures"
    behind = ("unshare", "--mount", "sh", "-c", hidden, "sh")
    with started("--transparent", "--screenshots", str(pictures), behind=behind) as demo:
        assert "Chromium is not installed, so there will be no pictures." in read_until(demo, "Act 1")
        demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=30)
    assert demo.returncode == 128 + signal.SIGTERM
    assert not pictures.exists()
    assert list(folder.iterdir()) == []
    assert running_in(folder) == []
    assert machine() == before


def test_who_is_not_root_is_told_so_in_one_line() -> None:
    done = subprocess.run(
        ["unshare", "--user", sys.executable, "-m", "demo", "--transparent"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"demo: --transparent .* only root may: .*\n", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--screenshots", "pictures"), "--transparent"),
        (("--transparent", "--host-network"), "--host-network"),
    ],
    ids=["pictures of the play on loopback", "networks of its own on the host's network"],
)
def test_options_that_contradict_each_other(arguments: tuple[str, ...], complaint: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert complaint in done.stderr.strip().splitlines()[-1]
