"""What can be seen of the gateway: events in; metrics, an access log and terminal lines out. Can be absent.

    observation  all of it, made, started and stopped together
    metrics      counts events
    families     the names, labels and help texts of what is counted
    series       counters, gauges and histograms, as rows of cells
    arena        the memory that the cells are in, which processes share
    merged       Prometheus' text format over all processes that count
    processes    what the system knows of these processes
    admin        the small HTTP server for metrics, health and readiness
    listen       how its address is written
    access_log   a JSON line a request, tunnel or refusal
    access_line  how it is written
    terminal     the same for people
    line_writer  the thread that writes lines, and drops them rather than wait
    output       where it writes them: a file, a FIFO, standard output
    fanout       one observer made of several
    words        words and figures that log, terminal and metrics share

Nothing here can slow or fail traffic: a call costs microseconds and never waits, and an exception stops at
the fanout.
"""
