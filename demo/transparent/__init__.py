"""The story once more, with clients that nobody has configured: `scripts/demo --transparent`.

    acts            the six acts
    stage           everything they need
    networks        the client's network, the gateway, and the internet
    packet_filter   the gateway's network side
    shop            Bookinfo (`demo/bookinfo`) in the client's network
    browser         pictures of its page
    page_text       the page as a terminal can show it
    ways_round      how a client tries to get past the gateway
    capture         what evil.example's interface saw of it

It makes real networks, so it needs root; what it shares with the play on loopback is in `demo`.
"""
