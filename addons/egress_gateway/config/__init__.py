"""Rules in: files that people write become the policy's `EgressRule`s, or problems that tell the place and the fix.

    load          a directory or a text in, a `RuleSet` or every problem at once out
    watch, beside                   the same again on every change, beside the event loop
    alike                           many documents that differ in words alone, read by comparison
    store, edit, atomic             the directory as a store of objects, for the command line
    read, objects, document         one text, its documents, the objects in them
    istio_rule, own_rule            what each API version checks, with identity, destination, ports, reach, breadth
    tables, shape, schema           the fields there are, records by them, the same as JSON Schema
    compose, nodes, scalars         YAML with positions, and what it would misread
    problem, limits                 what is said, and how much is read

Values that leave this room are parsed and canonical; nobody behind it checks them again.
"""
