"""The inspect data path: mitmproxy's own HTTP, TLS and WebSocket layers, with gates of ours around them.

    addon             the hooks below, as one addon
    client_hooks      who is let in, and TLS with them
    destination_hooks the choke point: who may be dialled
    replay_hooks      replayed requests, which have no gate
    client            one client connection: what it was granted, what it is doing, how it is ended
    stream_gate       the first bytes of a tunnel: TLS, HTTP or refused
    transparent_gate  the beginning of a redirected connection
    handshake         a second ClientHello must say what the first one said
    socks_gate        SOCKS5, with `succeeded` after the verdict
    http_gate         stands around mitmproxy's HTTP layer: every request judged, every exchange counted
    http1_gate        strict bytes in, one request at a time, and answers of ours
    http2_gate        HTTP/2 inside TLS that is decrypted
    http_judge        the last word on each request, after all other addons and people
    http_connect      CONNECT
    http_input        the bytes of an HTTP/1 client, cut into requests by the relay's strict parser
    upstream_http     the same strictness for what destinations answer
    opening           the way to a destination
    byte_tunnel       a tunnel whose bytes nobody looks at
    requests          from a request to its facts and its verdict
    flows             a verdict written onto a flow: where it goes, what it may carry, or the refusal
    pin               the address that was judged is the address that is dialled
    idle              a connection on which nothing moves is ended
    pace              a client that nobody reads from is made to wait
    ending            farewell, half-close, a short wait, close
    outbox            what was written to a client and has not arrived, and what came from it and was not read

The gates are layers of mitmproxy, built by us and handed to nobody: no guess of mitmproxy's decides which layer comes
next. A gate sees every hook go out and come back, so that whatever other addons and the person at the screen did in
between is judged as well.
"""
