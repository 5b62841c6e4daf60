"""Opens tunnels, uses each once, makes a file, and uses each once more when somebody takes the file away."""

from __future__ import annotations

import json
import resource
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.clients.tunnel import Wrong, argument_parser, context, get, open_tunnel, way_of


def main() -> None:
    parser = argument_parser()
    parser.add_argument("--body", required=True)
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--ready", type=Path, required=True)
    options = parser.parse_args()

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    tls = context(options.ca)
    way = way_of(options)
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
