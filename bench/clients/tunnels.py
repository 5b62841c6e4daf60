"""Opens tunnels one after the other in several threads, fetches something small through each, and closes it."""

from __future__ import annotations

import json
import threading
import time

from bench.clients.tunnel import argument_parser, context, get, open_tunnel, way_of


def main() -> None:
    parser = argument_parser()
    parser.add_argument("--body", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--count", type=int, default=0, help="end after so many, whatever the time")
    parser.add_argument("--threads", type=int, default=16)
    options = parser.parse_args()

    tls = context(options.ca)
    way = way_of(options)
    body = options.body.encode("ascii")
    deadline = time.monotonic() + options.seconds
    lock = threading.Lock()
    good, wrong = 0, []

    def work() -> None:
        nonlocal good
        # One in any case: the machine may have paused when the time began.
        while (time.monotonic() < deadline or not good) and not (options.count and good >= options.count):
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
