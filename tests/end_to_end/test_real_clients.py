"""What people really use: each client asks for an allowed host in plain HTTP, by TLS origination and by its own TLS,
and for a host that no rule allows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.gateway import Gateway

NODE = Path(__file__).resolve().parents[1] / "clients" / "node"
"""Where `scripts/test` installs the proxy agent for Node."""

PLAIN = "http://plain.example/echo"
ORIGINATED = "http://www.googleapis.com:443/echo"
SECURE = "https://www.googleapis.com/echo"
DENIED = "http://denied.example/echo"
DENIED_TLS = "https://denied.example/echo"

CURL = ["curl", "-sS", "--max-time", "20", "-w", "\n%{http_code}"]

RUBY = """
require "net/http"
proxy, url, ca = URI(ARGV[0]), URI(ARGV[1]), ARGV[2]
http = Net::HTTP.new(url.host, url.port, proxy.host, proxy.port)
if url.scheme == "https"
  http.use_ssl = true
  http.ca_file = ca
end
begin
  response = http.get(url.request_uri)
  puts response.body.delete("\\n"), response.code
rescue => error
  puts error.message, "000"
end
"""

REQUESTS = """
import sys, requests
proxy, url, ca = sys.argv[1:]
session = requests.Session(); session.trust_env = False
try:
    answer = session.get(url, proxies={"http": proxy, "https": proxy}, verify=ca, timeout=20)
    print(answer.text.replace("\\n", " ")); print(answer.status_code)
except requests.RequestException as error:
    print(error); print("000")
"""

HTTPX = """
import ssl, sys, httpx
proxy, url, ca = sys.argv[1:]
with httpx.Client(proxy=proxy, verify=ssl.create_default_context(cafile=ca), trust_env=False, timeout=20) as client:
    try:
        answer = client.get(url)
        print(answer.text.replace("\\n", " ")); print(answer.status_code)
    except httpx.HTTPError as error:
        print(error); print("000")
"""

NODE_FETCH = """
const { ProxyAgent, fetch } = require("undici");
const fs = require("fs");
const [proxy, url, ca] = process.argv.slice(1);
// Plain HTTP through absolute URIs, as other clients do it, and not through CONNECT.
const agent = new ProxyAgent({ uri: proxy, proxyTunnel: url.startsWith("https:"),
                               requestTls: { ca: fs.readFileSync(ca) } });
fetch(url, { dispatcher: agent })
  .then(async (answer) => { console.log((await answer.text()).replaceAll("\\n", " ")); console.log(answer.status); })
  .catch((error) => { console.log(String(error.cause || error)); console.log("000"); })
  .finally(() => agent.close());
"""

CLIENTS = {
    "curl": lambda proxy, url, ca: [*CURL, "--cacert", ca, "-x", proxy, url],
    "curl that tunnels everything": lambda proxy, url, ca: [*CURL, "--cacert", ca, "-p", "-x", proxy, url],
    "Python requests": lambda proxy, url, ca: [sys.executable, "-c", REQUESTS, proxy, url, ca],
    "Python httpx": lambda proxy, url, ca: [sys.executable, "-c", HTTPX, proxy, url, ca],
    "Node fetch": lambda proxy, url, ca: ["node", "-e", NODE_FETCH, proxy, url, ca],
    "Ruby Net::HTTP": lambda proxy, url, ca: ["ruby", "-e", RUBY, proxy, url, ca],
}


@pytest.fixture(scope="module")
def gw(world: Any, data_path: str) -> Gateway:
    gateway: Gateway = world.gateway(data_path=data_path)
    return gateway


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    program = CLIENTS[request.param]("", "", "")[0]
    if shutil.which(program) is None or (program == "node" and not (NODE / "node_modules").is_dir()):
        pytest.skip(f"{program} is not installed (scripts/test installs it)")
    name: str = request.param
    return name


def run(client: str, gw: Gateway, url: str, ca: Path) -> tuple[int, str]:
    """Status and body; status 0 where the client got no HTTP answer."""
    return run_command(CLIENTS[client](gw.url, url, str(ca)))


def run_command(command: list[str]) -> tuple[int, str]:
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=NODE, check=False)
    *body, status = done.stdout.strip().rsplit("\n", 1)
    assert status.isdigit(), f"{command}: {done.stdout}{done.stderr}"
    return int(status), "\n".join(body) + done.stderr


def test_plain_http_is_forwarded(client: str, gw: Gateway, world: Any) -> None:
    status, body = run(client, gw, PLAIN, world.ca.pem_path)
    assert status == 200, body
    assert json.loads(body)["method"] == "GET"
    assert not world.plain.connections[-1].client_hello


def test_plain_http_to_port_443_leaves_as_verified_tls(client: str, gw: Gateway, world: Any) -> None:
    status, body = run(client, gw, ORIGINATED, world.ca.pem_path)
    assert status == 200, body
    assert world.secure.connections[-1].sni == "www.googleapis.com"
    assert world.secure.requests[-1].header("host") == "www.googleapis.com"
    gw.wait_for_log(tls_mode="originate", authority="www.googleapis.com:443", response_code=200)


def test_tls_of_the_client_itself_passes_undecrypted(client: str, gw: Gateway, world: Any) -> None:
    # The client trusts the origin's authority and not the gateway's, so it would notice.
    status, body = run(client, gw, SECURE, world.ca.pem_path)
    assert status == 200, body
    gw.wait_for_log(tls_mode="passthrough", requested_server_name="www.googleapis.com")


def test_a_host_without_a_rule_is_refused(client: str, gw: Gateway, world: Any) -> None:
    before = len(world.denied.connections)
    status, body = run(client, gw, DENIED, world.ca.pem_path)
    # A client that tunnels plain HTTP sees the refusal of its CONNECT, which some show as an error only.
    assert status == 403 or "403" in body, body
    status, body = run(client, gw, DENIED_TLS, world.ca.pem_path)
    assert status == 0 or status == 403, body
    assert "200" not in str(status)
    assert len(world.denied.connections) == before


def test_curl_speaks_http_2_inside_its_tunnel(gw: Gateway, origin: Any, dns: Any, world: Any) -> None:
    dns.set("h2.googleapis.com", ["203.0.113.11"])
    origin.h2("203.0.113.11", "h2.googleapis.com")
    ca = str(world.ca.pem_path)
    command = ["curl", "-sS", "--http2", "--cacert", ca, "-x", gw.url, "-o", "/dev/null"]
    status, body = run_command([*command, "-w", "%{http_version}\n%{http_code}", "https://h2.googleapis.com/"])
    assert (status, body) == (200, "2")


@pytest.fixture(scope="module")
def socks(world: Any, data_path: str) -> Gateway:
    gateway: Gateway = world.gateway(data_path=data_path, mode="socks5")
    return gateway


@pytest.mark.parametrize(
    ("url", "outcome"), [(PLAIN, 200), (ORIGINATED, 200), (SECURE, 200), (DENIED, 0), (DENIED_TLS, 0)]
)
def test_curl_over_socks5h(socks: Gateway, world: Any, url: str, outcome: int) -> None:
    before = len(world.denied.connections)
    proxy = f"socks5h://{socks.host}:{socks.port}"
    status, body = run_command([*CURL, "--cacert", str(world.ca.pem_path), "-x", proxy, url])
    assert status == outcome, body
    assert len(world.denied.connections) == before
