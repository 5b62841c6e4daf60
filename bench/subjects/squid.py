"""Squid as a forward proxy that caches nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bench import place
from bench.programs import Program
from bench.subjects.subject import Running, Setting, started

NAME = "squid"

_CONFIG = """\
http_port 127.0.0.1:{port}
acl allowed_names dstdomain "{folder}/allowed"
acl allowed_ports port 80 443 {up_port}
http_access deny !allowed_ports
http_access allow allowed_names
http_access deny all
cache deny all
cache_mem 8 MB
memory_pools on
workers 1
access_log {log}
cache_log {folder}/cache.log
cache_store_log none
pid_filename {folder}/squid.pid
coredump_dir {folder}
netdb_filename none
hosts_file /etc/hosts
pinger_enable off
max_filedescriptors {descriptors}
shutdown_lifetime 0 seconds
visible_hostname bench
{user}"""


def start(programs: Mapping[str, str], setting: Setting) -> Running:
    folder = setting.folder
    (folder / "allowed").write_text("\n".join(setting.names) + "\n", encoding="ascii")
    text = _CONFIG.format(
        port=setting.port,
        folder=folder,
        up_port=place.UP_PORT,
        log=f"stdio:{folder}/access.log" if setting.log else "none",
        descriptors=min(place.raise_descriptor_limit(), 65_536),
        user="cache_effective_user nobody\ncache_effective_group nogroup\n" if os.geteuid() == 0 else "",
    )
    (folder / "squid.conf").write_text(text, encoding="ascii")
    folder.chmod(0o777)  # it will not be root
    program = Program(NAME, [programs[NAME], "-N", "-f", str(folder / "squid.conf")], folder)
    return started(Running(NAME, program, http=setting.port, connect=setting.port))
