"""`egressctl`: reads, writes, checks and explains egress rules, in the manner of `istioctl` 0.7.

One file a group of commands; `main` puts them together. Three rules hold for all of them:

- standard output is the answer and nothing else; warnings and errors go to standard error, an error as one
  line `egressctl: place: what is wrong (what to do)`;
- exit status 0 is yes, 1 is no or an error, 2 is a command line that was not understood;
- it starts fast: mitmproxy is never imported, and what reads rule files only by the commands that do.
"""
