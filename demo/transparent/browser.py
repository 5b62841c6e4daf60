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
_PNG = b"\x89PNG\r\n\x1a\n"


def find_browser() -> str | None:
    return next(filter(None, map(shutil.which, _NAMES)), None)


def take_picture(
    browser: str, url: str, path: Path, *, where: Sequence[str], env: Mapping[str, str], folder: Path
) -> None:
    """Writes a PNG of the page at `url`; the browser runs behind the prefix `where`, and keeps nothing.

    It looks up no other name than the page's: a browser has questions of its own, which are not part of the play.
    """
    host = url.split("/")[2].partition(":")[0]
    with TemporaryDirectory(prefix="browser-", dir=folder, ignore_cleanup_errors=True) as home:
        picture = Path(home) / "picture.png"
        flags = [*_FLAGS, f"--user-data-dir={home}/profile", f"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE {host}"]
        done = subprocess.run(
            [*where, browser, *flags, f"--screenshot={picture}", url],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env={**env, "HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home},
            timeout=_TIMEOUT,
            check=False,
        )
        if done.returncode != 0 or not picture.exists() or not picture.read_bytes().startswith(_PNG):
            last = done.stderr.strip().splitlines()[-3:]
            raise OSError(f"{Path(browser).name} took no picture (exit status {done.returncode}): {' / '.join(last)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(picture, path)
