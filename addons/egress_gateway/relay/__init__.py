"""The gateway's own connections: classify, decide, dial the judged address, move bytes.

A client, from its first byte:

    serve                                 one connection to its end, by mitmproxy's proxy mode
    explicit_proxy, socks5, transparent   how it says where it wants to go
    stream_relay                          what CONNECT, SOCKS5 and the transparent modes end in
    classify, first_bytes                 what is spoken there
    client_hello, handshake, hello_retry  TLS that passes undecrypted: what is judged of it
    refuse                                how a client is told no
    layer                                 where mitmproxy hands a connection over

HTTP:

    heads, http1                          a message head: waited for, and read
    target, question                      what a request asks for, and what is remembered of that
    http_relay, http_exchange             request by request; one that is allowed
    forward, body_copy, websocket         what goes on to the next hop

Destinations and tunnels:

    upstream, dial                        a connection to a judged address, kept for one client
    upstream_tls, tls_connection          verified TLS
    tls_sessions                          what of it a later connection can resume
    tunnel                                bytes both ways, and how they end
    splice, way, pipes                    in the kernel, between two sockets
    rate                                  what is so fast that it may gather for a moment
    idle_clock                            the one timer of all of them
    pump                                  by reading and writing, where a side is no socket

Under all of it:

    connection, stream, client            a socket as reader and writer; buffered; with whose it is
    poller                                the one epoll in which all sockets stand
    deadline, waiting                     how long a task waits, and how it is resumed
"""
