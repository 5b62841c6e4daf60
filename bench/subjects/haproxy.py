"""HAProxy: TLS with one backend for plain requests, and a filter of SNIs.

It is no forward proxy, and resolves nothing, so it does the least.
"""

from __future__ import annotations

from collections.abc import Mapping

from bench import place
from bench.programs import Program
from bench.subjects.subject import Running, Setting, started

NAME = "haproxy"
SPLICING = "haproxy-splice"
"""The same told to move bytes in the kernel, which it does not by itself."""

_CONFIG = """\
global
    nbthread 1
    maxconn {connections}
{log}
defaults
{splicing}    timeout connect 10s
    timeout client 1h
    timeout server 1h
    maxconn {connections}
{log_global}
frontend origination
    mode http
    bind 127.0.0.1:{originate} backlog 4096
{http_log}
    acl allowed req.hdr(host),field(1,:) -i -f {folder}/allowed
    http-request deny unless allowed
    http-request set-uri %[path]
    default_backend tls
backend tls
    mode http
    http-reuse always
    server origin {origin}:443 ssl verify required ca-file {ca} sni str({tls_name}) verifyhost {tls_name}
frontend sni
    mode tcp
    bind 127.0.0.1:{sni} backlog 4096
{tcp_log}
    tcp-request inspect-delay 10s
    acl allowed req.ssl_sni -i -f {folder}/allowed
    tcp-request content accept if allowed
    tcp-request content reject if WAIT_END
    use_backend uploads if {{ req.ssl_sni -i {up_name} }}
    default_backend passthrough
backend passthrough
    mode tcp
    server origin {origin}:443
backend uploads
    mode tcp
    server origin {uploads}:{up_port}
"""


def start(programs: Mapping[str, str], setting: Setting) -> Running:
    return _start(NAME, programs, setting, "")


def start_splicing(programs: Mapping[str, str], setting: Setting) -> Running:
    return _start(SPLICING, programs, setting, "    option splice-request\n    option splice-response\n")


def _start(name: str, programs: Mapping[str, str], setting: Setting, splicing: str) -> Running:
    folder = setting.folder
    (folder / "allowed").write_text("\n".join(setting.names) + "\n", encoding="ascii")
    text = _CONFIG.format(
        folder=folder,
        splicing=splicing,
        connections=min(place.raise_descriptor_limit() // 3, 30_000),
        originate=setting.port,
        sni=setting.port + 1,
        origin=place.ORIGIN,
        uploads=place.UPLOADS,
        up_port=place.UP_PORT,
        ca=setting.ca,
        tls_name=place.TLS,
        up_name=place.UP,
        log="    log stdout format raw local0 info" if setting.log else "",
        log_global="    log global" if setting.log else "",
        http_log="    option httplog" if setting.log else "",
        tcp_log="    option tcplog" if setting.log else "",
    )
    (folder / "haproxy.cfg").write_text(text, encoding="ascii")
    program = Program(name, [programs[name], "-db", "-f", str(folder / "haproxy.cfg")], folder)
    return started(Running(name, program, originate=setting.port, sni=setting.port + 1))
