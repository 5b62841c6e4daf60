"""What both data paths ask: one snapshot of rules, one way to decide, one way from a name to addresses to dial.

gatekeeper      decides with the snapshot in force, fails closed, resolves and judges, tells the observer
whereabouts     the addresses of a host, for a client that may have dialled one already
names           which addresses names have been seen to have
name_journal    what the processes of one gateway tell each other about that
byte_names      whether a redirected connection is one of bytes, and which name's `tcp` rule covers its address
own_addresses   is this address one of this machine's?
quotas          what one client has of the gateway at a time, over all processes
turns           how often something may happen
live            what is open now, judged again when the rules change
settings        limits and address policy, as the operator set them
"""
