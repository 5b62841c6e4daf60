"""The details service of a book shop, for machines without Ruby; `details.rb` is the original and says what it does.

There is not a line about a proxy here: urllib finds it in the variables http_proxy and https_proxy, or there is none.
"""

from __future__ import annotations

import json
import os
import platform
import re
import signal
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

BOOKS_PORT = int(os.environ.get("BOOKS_PORT", "443"))
SCHEME = "http" if os.environ.get("WITH_ISTIO") == "true" else "https"
HOST = os.environ.get("BOOKS_HOST", "www.googleapis.com")
ISBN = "0486424618"

type Answer = tuple[int, dict[str, Any]]


def details(number: int) -> Answer:
    url = f"{SCHEME}://{HOST}:{BOOKS_PORT}/books/v1/volumes?q=isbn:{ISBN}"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            book = json.load(response)["items"][0]["volumeInfo"]
    except urllib.error.HTTPError as error:
        reason, body = error.headers.get("x-egress-reason"), error.read().decode(errors="replace")
        message = f"{HOST} could not be asked: {error.code} {error.reason}"
        return 502, {"error": message, "reason": reason, "body": body}
    except (OSError, ValueError, LookupError) as error:  # what a refused CONNECT said is only in the text
        return 502, {"error": f"{HOST} could not be asked: {error}"}
    isbn = {known["type"]: known["identifier"] for known in book["industryIdentifiers"]}
    return 200, {
        "id": number,
        "title": book["title"],
        "author": book["authors"][0],
        "year": int(book["publishedDate"]),
        "pages": book["pageCount"],
        "publisher": book["publisher"],
        "language": book["language"],
        "ISBN-10": isbn["ISBN_10"],
        "ISBN-13": isbn["ISBN_13"],
    }


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = re.fullmatch(r"/details/(\d+)", self.path)
        if asked:
            status, content = details(int(asked[1]))
        elif self.path == "/health":
            status, content = 200, {"status": "Details is healthy"}
        else:
            status, content = 404, {"error": "there is nothing here"}
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


class Server(ThreadingHTTPServer):
    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's would look up the name of the address


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    address, _, wanted = os.environ.get("LISTEN", "127.0.0.1:0").rpartition(":")
    server = Server((address, int(wanted)), Handler)
    port = server.socket.getsockname()[1]
    print(f"details (Python {platform.python_version()}) listens on port {port}", flush=True)
    server.serve_forever()
