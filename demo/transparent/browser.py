"""Pictures of a page, by Chromium without a window."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_SIZE = "1000,760"
_TIMEOUT = 60.0
_FLAGS = (
    "--headless",
    "--no-sandbox",  # it is root that plays, and what it looks at is ours
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    f"--window-size={_SIZE}",
)
# A short path for all that it writes: it gives up where a socket's is too long, as it may be below a long TMPDIR.
_HOME, _PICTURE = "/mnt", "picture.png"
_AT_HOME = f'mount --bind "$0" {_HOME}; exec "$@"'
_PNG = b"\x89PNG\r\n\x1a\n"


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


def take_picture(
    browser: str, url: str, path: Path, *, where: Sequence[str], env: Mapping[str, str], folder: Path
) -> None:
    """Writes a PNG of the page at `url`; the browser runs behind the prefix `where`, and keeps nothing.

    `where` must lead to a mount namespace of its own. The browser looks up no other name than the page's: it has
    questions of its own, which are not part of the play.
    """
    host = url.split("/")[2].partition(":")[0]
    with TemporaryDirectory(prefix="browser-", dir=folder, ignore_cleanup_errors=True) as home:
        own = [f"--user-data-dir={_HOME}/profile", f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {host}"]
        done = subprocess.run(
            [*where, "sh", "-ec", _AT_HOME, home, browser, *_FLAGS, *own, f"--screenshot={_HOME}/{_PICTURE}", url],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**env, **dict.fromkeys(("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"), _HOME)},
            timeout=_TIMEOUT,
            check=False,
        )
        picture = Path(home) / _PICTURE
        if done.returncode != 0 or not picture.exists() or not picture.read_bytes().startswith(_PNG):
            last = done.stderr.strip().splitlines()[-3:]
            raise OSError(f"{Path(browser).name} took no picture (exit status {done.returncode}): {' / '.join(last)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(picture, path)
