"""What the Python clients in this folder share: the URLs are arguments, each answer becomes a line of JSON."""

import json
import sys
import time
from collections.abc import Callable


def tell_each(get: Callable[[str], tuple[int, str]]) -> None:
    """Calls `get` with each URL, which returns status and text, and prints that, or the error that it raised."""
    for url in sys.argv[1:]:
        started = time.monotonic()
        try:
            status, text = get(url)
            told = {"status": status, "text": text}
        except Exception as error:  # whatever a library raises is what its user sees
            told = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"url": url, "seconds": time.monotonic() - started, **told}))
