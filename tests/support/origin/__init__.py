"""Recording servers to stand in for the internet, each bound to one address and port of the private network.

- `HttpOrigin`      HTTP/1.1, with or without TLS, with routes for every shape of body
- `H2Origin`        HTTP/2 (hypercorn), with TLS or with prior knowledge
- `RawOrigin`       a TCP echo, which may greet first
- `FileOrigin`      HTTP/1.1, serves a folder
- `SmtpOrigin`      a mail server, as far as its greeting
- `ScriptedOrigin`  answers with exactly the bytes a test gives, for hostile responses

Each is a context manager, keeps its `connections`, and has `wait_for(n)`.
"""

from support.origin.factory import Origins
from support.origin.files import FileOrigin
from support.origin.h2 import H2Origin, H2Request
from support.origin.http1 import HttpOrigin, Request, pseudo_random, sha256_of_pseudo_random
from support.origin.listener import Connection, Listener, peek_client_hello
from support.origin.raw import SSH_GREETING, RawOrigin, ScriptedOrigin
from support.origin.smtp import SmtpOrigin

__all__ = [
    "SSH_GREETING",
    "Connection",
    "FileOrigin",
    "H2Origin",
    "H2Request",
    "HttpOrigin",
    "Listener",
    "Origins",
    "RawOrigin",
    "Request",
    "ScriptedOrigin",
    "SmtpOrigin",
    "peek_client_hello",
    "pseudo_random",
    "sha256_of_pseudo_random",
]
