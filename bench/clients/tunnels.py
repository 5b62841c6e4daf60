"""Opens tunnels one after the other in several threads, fetches something small through each, and closes it."""

from __future__ import annotations

import argparse
import json
import threading
import time

from bench.clients.tunnel import Way, context, get, open_tunnel


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", type=int, required=True)
    parser.add_argument("--sni-only", action="store_true")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ca", required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--body", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--count", type=int, default=0, help="end after so many, whatever the time")
    parser.add_argument("--threads", type=int, default=16)
    options = parser.parse_args()

    tls = context(options.ca)
    way = Way(options.proxy, options.host, options.port, connect=not options.sni_only)
    body = options.body.encode("ascii")
    deadline = time.monotonic() + options.seconds
    lock = threading.Lock()
    good, wrong = 0, []

    def work() -> None:
        nonlocal good
        while time.monotonic() < deadline and not (options.count and good >= options.count):
            try:
                with open_tunnel(way, tls) as tunnel:
                    get(tunnel, way.host, options.path, body, close=True)
            except Exception as error:  # whatever it was, this tunnel did not do what it should
                with lock:
                    wrong.append(f"{type(error).__name__}: {error}")
                if len(wrong) > 20:
                    return
            else:
                with lock:
                    good += 1

    threads = [threading.Thread(target=work) for _ in range(options.threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"good": good, "wrong": len(wrong), "examples": wrong[:3]}))


if __name__ == "__main__":
    main()
