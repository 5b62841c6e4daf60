"""Opens tunnels, uses each once, makes a file, and uses each once more when somebody takes the file away."""

from __future__ import annotations

import argparse
import json
import resource
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.clients.tunnel import Way, Wrong, context, get, open_tunnel


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", type=int, required=True)
    parser.add_argument("--sni-only", action="store_true")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--ready", type=Path, required=True)
    options = parser.parse_args()

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    tls = context(options.ca)
    way = Way(options.proxy, options.host, options.port, connect=not options.sni_only)
    body = options.body.encode("ascii")
    wrong: list[str] = []

    def begin(_: int) -> ssl.SSLSocket | None:
        try:
            tunnel = open_tunnel(way, tls)
            get(tunnel, way.host, options.path, body, close=False)
        except (OSError, Wrong) as error:
            wrong.append(f"opening: {type(error).__name__}: {error}")
            return None
        return tunnel

    def end(tunnel: ssl.SSLSocket) -> None:
        try:
            with tunnel:
                get(tunnel, way.host, options.path, body, close=True)
        except (OSError, Wrong) as error:
            wrong.append(f"after the pause: {type(error).__name__}: {error}")

    with ThreadPoolExecutor(16) as pool:
        tunnels = [tunnel for tunnel in pool.map(begin, range(options.count)) if tunnel is not None]
        if not wrong:
            options.ready.touch()
            while options.ready.exists():
                time.sleep(0.02)
        list(pool.map(end, tunnels))
    print(json.dumps({"good": options.count - len(wrong), "wrong": len(wrong), "examples": wrong[:3]}))


if __name__ == "__main__":
    main()
