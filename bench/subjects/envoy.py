"""Envoy as a dynamic forward proxy, with one thread."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bench.programs import Program
from bench.subjects.subject import Running, Setting, started

NAME = "envoy"

_HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"
_FILTER = "type.googleapis.com/envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig"
_CLUSTER = "type.googleapis.com/envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"
_TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_PROTOCOLS = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_FILE_LOG = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog"
_RESOLVER = "type.googleapis.com/envoy.extensions.network.dns_resolver.getaddrinfo.v3.GetAddrInfoDnsResolverConfig"

_DNS_CACHE = {
    "name": "names",
    "dns_lookup_family": "V4_ONLY",
    "typed_dns_resolver_config": {
        "name": "envoy.network.dns_resolver.getaddrinfo",
        "typed_config": {"@type": _RESOLVER},
    },
}


def start(programs: Mapping[str, str], setting: Setting) -> Running:
    path = setting.folder / "envoy.json"
    path.write_text(json.dumps(configuration(setting)), encoding="ascii")
    command = [programs[NAME], "-c", str(path), "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]
    program = Program(NAME, command, setting.folder)
    port = setting.port
    return started(Running(NAME, program, http=port, originate=port, connect=port))


def configuration(setting: Setting) -> dict[str, Any]:
    routes = [
        {
            "match": {"connect_matcher": {}},
            "route": {
                "cluster": "plain",
                "timeout": "0s",
                "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
            },
        },
        {
            "match": {
                "prefix": "/",
                "headers": [{"name": ":authority", "string_match": {"suffix": ":443"}}],
            },
            "route": {"cluster": "tls", "timeout": "0s"},
        },
        {"match": {"prefix": "/"}, "route": {"cluster": "plain", "timeout": "0s"}},
    ]
    manager: dict[str, Any] = {
        "@type": _HTTP,
        "stat_prefix": "egress",
        "generate_request_id": False,
        "stream_idle_timeout": "3600s",
        "http_filters": [
            {
                "name": "envoy.filters.http.dynamic_forward_proxy",
                "typed_config": {"@type": _FILTER, "dns_cache_config": _DNS_CACHE},
            },
            {"name": "envoy.filters.http.router", "typed_config": {"@type": _ROUTER}},
        ],
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "route_config": {
            "ignore_port_in_host_matching": True,
            "virtual_hosts": [{"name": "allowed", "domains": list(setting.names), "routes": routes}],
        },
    }
    if setting.log:
        log = {"@type": _FILE_LOG, "path": str(setting.folder / "access.log")}
        manager["access_log"] = [{"name": "envoy.access_loggers.file", "typed_config": log}]
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    listener = {
        "name": "egress",
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": setting.port}},
        "filter_chains": [{"filters": filters}],
    }
    limits = {"thresholds": [dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), 1000000)]}
    protocols = {
        "@type": _PROTOCOLS,
        "explicit_http_config": {"http_protocol_options": {}},
        "upstream_http_protocol_options": {"auto_sni": True, "auto_san_validation": True},
    }
    cluster = {
        "lb_policy": "CLUSTER_PROVIDED",
        "circuit_breakers": limits,
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocols},
        "cluster_type": {
            "name": "envoy.clusters.dynamic_forward_proxy",
            "typed_config": {"@type": _CLUSTER, "dns_cache_config": _DNS_CACHE},
        },
    }
    tls = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": _TLS,
            "common_tls_context": {"validation_context": {"trusted_ca": {"filename": str(setting.ca)}}},
        },
    }
    return {
        "static_resources": {
            "listeners": [listener],
            "clusters": [
                cluster | {"name": "plain"},
                cluster | {"name": "tls", "transport_socket": tls},
            ],
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors."
                        "downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": 1_000_000,
                    },
                }
            ]
        },
    }
