"""What `Gateway` expects of the gateway, and no more: options, readiness, metrics, and a log line a request.

Loaded by a real mitmdump, so that the harness is tested without the gateway.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from mitmproxy import ctx, http

OPTIONS = ("rules", "metrics_listen", "access_log", "data_path", "dns_servers", "public_ranges")


class StandIn:
    def __init__(self) -> None:
        self.requests = {"GET": 0, "POST": 0}
        self.reloads = 0

    def load(self, loader) -> None:
        for name in OPTIONS:
            loader.add_option(f"egress_{name}", str, "", name)

    def running(self) -> None:
        mode = os.environ.get("STAND_IN", "")
        if mode == "exit":
            print("the stand-in gives up", flush=True)
            os._exit(3)
        if mode == "orphan":
            threading.Thread(target=os.system, args=("sleep 300 &",)).start()
        print("data path", ctx.options.egress_data_path, "dns", ctx.options.egress_dns_servers, flush=True)
        host, port = ctx.options.egress_metrics_listen.split(":")
        stand_in, ready_at = self, time.monotonic() + (1e9 if mode == "never ready" else 0.2)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status = 503 if self.path == "/readyz" and time.monotonic() < ready_at else 200
                body = stand_in.metrics().encode() if self.path == "/metrics" else b"ok"
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_args) -> None:
                pass

        server = ThreadingHTTPServer((host, int(port)), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        threading.Thread(target=self.watch, args=(Path(ctx.options.egress_rules),), daemon=True).start()

    def watch(self, directory: Path) -> None:
        before = None
        while True:
            try:
                now = sorted((path.name, path.read_text()) for path in directory.iterdir())
            except FileNotFoundError:  # removed meanwhile
                continue
            if before not in (None, now):
                self.reloads += 1
            before = now
            time.sleep(0.1)

    def metrics(self) -> str:
        lines = ["# TYPE egress_decisions_total counter"]
        for method, count in self.requests.items():
            labels = f'action="deny",reason="no_rule",method="{method}"'
            lines.append(f"egress_decisions_total{{{labels}}} {count}")
        lines.append("# TYPE egress_rules_reloads_total counter")
        lines.append(f'egress_rules_reloads_total{{result="success"}} {self.reloads}')
        return "\n".join(lines) + "\n"

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        self.requests[flow.request.method] += 1
        flow.response = http.Response.make(403, b"no", {"x-egress-reason": "no_rule"})
        entry = {"authority": flow.request.host, "verdict": "deny", "pid": os.getpid()}
        with open(ctx.options.egress_access_log, "a") as log:
            log.write(json.dumps(entry) + "\n")


addons = [StandIn()]
sys.stderr.write("the stand-in is loaded\n")
