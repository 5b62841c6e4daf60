"""The packet filter around the gateway: what sends a network's traffic to it, and stops everything else.

    up, down                  the commands behind scripts/gateway-up and scripts/gateway-down
    command_line, terminal    what they were asked, and how they speak
    layout, ruleset           what was asked → the text of one nftables table (pure)
    ports                     which ports the rules name
    checks, machine, sockets  all that is verified before the first change, and what the kernel knows about it
    nft                       the table in and out, by the program nft
    keeper, keeper_process    the process that keeps the set of ports in step with the rules, and its start
    gateway_process           the gateway itself, started as an ordinary user
    log_file                  what the two of them said
    processes, state          pid files that never mean somebody else, the lock, the directory of all that

Everything is verified first; then there is one change, which is one transaction. What fails is taken back.
"""
