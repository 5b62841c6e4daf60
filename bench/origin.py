"""Where the load goes: nginx, an origin that takes uploads, and the authority that certifies both."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import trustme

from bench import place
from bench.programs import Program

ROOT = Path(__file__).resolve().parents[1]
SMALL = "/small"
SMALL_BODY = "an answer of a length that many APIs have: " + "0123456789abcdef" * 16
BIG = "/big"

_NGINX = """\
worker_processes {workers};
daemon off;
{user}pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log error;
worker_rlimit_nofile {descriptors};
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    keepalive_timeout 3600;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 80 backlog=4096;
        listen 443 ssl backlog=4096;
        ssl_certificate {folder}/origin.pem;
        ssl_certificate_key {folder}/origin.key;
        ssl_protocols TLSv1.2 TLSv1.3;
        location = {small} {{ return 200 "{body}"; }}
        location = {big} {{ alias {content}; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Origin:
    ca: Path
    """The authority, for whoever verifies."""
    content: Path
    """What BIG has, and what uploads are made of."""


@contextlib.contextmanager
def running(folder: Path, nginx: str, content_bytes: int, descriptors: int) -> Iterator[Origin]:
    """Both origins, until the end of the block."""
    authority = trustme.CA(organization_name="egress gateway bench")
    ca = folder / "ca.pem"
    authority.cert_pem.write_to_path(str(ca))
    issued = authority.issue_cert(place.WWW, place.TLS, place.UP)
    (folder / "origin.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (folder / "origin.key").write_bytes(issued.private_key_pem.bytes())
    content = folder / "content"
    with content.open("wb") as file:
        for _ in range(content_bytes >> 20):
            file.write(os.urandom(1 << 20))
    text = _NGINX.format(
        folder=folder,
        user="user root;\n" if os.geteuid() == 0 else "",
        workers=1,
        descriptors=descriptors,
        connections=descriptors - 100,
        small=SMALL,
        body=SMALL_BODY,
        big=BIG,
        content=content,
    )
    (folder / "nginx.conf").write_text(text, encoding="ascii")
    uploads = [sys.executable, "-m", "bench.clients.upload_origin", "--port", str(place.UP_PORT)]
    uploads += ["--certificate", str(folder / "origin.pem"), "--key", str(folder / "origin.key")]
    uploads += ["--content", str(content)]
    with (
        Program("nginx", [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf")], folder) as web,
        Program("uploads", uploads, folder, dict(os.environ) | {"PYTHONPATH": str(ROOT)}) as taking,
    ):
        web.wait_for_port(443)
        taking.wait_for_port(place.UP_PORT)
        yield Origin(ca, content)
