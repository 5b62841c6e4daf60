"""The gateway as a program of its own: several worker processes on one port, and a supervisor that keeps them.

    main          all of it put together
    command_line  what the user asked for, in mitmproxy's own words and a few of ours
    misspelt      flags that there are none of, and what was probably meant
    shown         where the log goes: errors apart
    plan          what is to run: how many workers, on which event loop, who listens
    checked       whether what is to be observed could be, before the first fork
    supervisor    forks the workers and the telemetry, starts again what died, drains, ends
    processes     a child process: forked, watched, gone with its parent
    named         the name of each process
    board         what the processes know of each other: a page of numbers that they share
    scripts       the user's own scripts, loaded when there is an event loop
    worker        one worker's life, from the fork to the end of its last client
    lean          without the addons that would have nothing to do
    places        where to listen, and that nobody else listens there
    accepting     clients, from the listening socket to the guard; no more of them than there are descriptors for
    telemetry     /metrics, /healthz and /readyz of all of them, in a process of its own
    loops         uvloop where it helps and is there

See docs/decisions/0014-forked-workers.md.
"""
