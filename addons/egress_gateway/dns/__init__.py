"""The gateway's own resolver: a name is resolved here, once, and only what came out may be judged and
dialled.

    resolver      ask for a host, get `Answer` or `Bindings`, or a `ResolveError`; single flight, order of the sources
    settings      what an operator may set, and how a list of servers is written
    upstream      the name servers as one: who is silent, who is back
    health        which servers are silent
    lookup        one name on the wire: both families, the next server, aliases
    client        one question to one server: UDP, then TCP when the answer was cut
    chain         one message: which addresses or bindings it holds for the name that was asked
    cache         answers that have a time to live
    watched_file  what a file of the system says (resolv_conf, hosts_file), and when it says something new
    answer        what comes out

Nothing here knows rules, and nothing here judges an address.
"""
