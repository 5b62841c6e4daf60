"""What clients ask: the gateway as their name server, over UDP and TCP.

    questions    one question: may it be asked, what is the answer, and what will the client know by it
    refusals     what a question is answered that has no records to its name, and who is told of it
    permission   which names may be asked for, and which of their addresses may be handed out
    bindings     HTTPS and SVCB records, without what would lead a client round the gateway
    message      a datagram to a question, an answer to a datagram
    rate         how often something is said
    datagrams    a UDP socket
    serve        the questions of one TCP connection

A name is answered only where a rule lets clients reach it, and nobody else is asked about any other. Whatever is handed
out is learned first (`gate.names`), so that a client that then dials it is recognised.
"""
