"""The story this gateway comes from, played for real on loopback: `scripts/demo`.

    acts        the seven acts, each of which checks how it ended
    stage       everything the acts need: certificates, names, origins, the gateway, the details service
    origins     the stand-in for the Books API, and servers that must never be reached
    names       a DNS server that knows the names of the story
    clients     well-behaved and malicious clients of the gateway
    network     a network of our own, so that nothing here touches the machine's

What it shares with the same story for clients that nobody has configured (`transparent`, with the shop in `bookinfo`):

    play        one act after the other, until one differs from the story
    scenes      what happens in both
    base_stage  what both stages have
    telling     what the gateway tells of itself: metrics and access log
    authority   the certificates
    datagrams   servers that speak UDP
    processes   programs that end with the demo
    ending      how a signal ends it
    console     the running commentary

`details.rb` is the application (`details.py` where there is no Ruby).
"""
