"""What the gateway costs, beside the proxies that people would otherwise take: `scripts/bench`.

    options     the command line
    install     where the other proxies and the load generators are; fetches those that are not there
    place       a network and a hosts file of our own, so that nothing reaches a real address
    programs    programs that end with the bench
    accounts    CPU time, memory and descriptors of a program and of all that it has started
    origin      nginx, an origin that takes uploads, and the authority that both are certified by
    subjects/   what is measured: the gateway and its peers, each with the same list of allowed names
    clients/    what makes the load, and checks every answer
    stage       what the parts need of all that: subjects, load, and the cost of one
    parts/      the workloads, one a file
    figures     what was measured: medians over the rounds, and ratios within each round
    targets     what must hold
    table       for people
    report      for programs
    chart       a picture
    decide      the cost of a decision alone (a bench of its own: scripts/bench decide)

The rules of all of it:

- CPU time of the whole process tree divided by the operations that succeeded. It hardly moves with a slow client or a
  busy neighbour, which requests per second do.
- In every round each subject gets the same load in turn, and ratios are taken within a round: both sides of a ratio had
  the same machine.
- Every answer is checked, status and content. A subject that answered wrongly has no figure, and the run fails.
"""
