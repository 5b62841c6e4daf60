# shellcheck shell=bash
# What the scripts share. Source it; it runs nothing by itself.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
# shellcheck disable=SC2034  # used by the scripts that source this file
PYTHON=$VENV/bin/python

# Progress goes to standard error: what a script prints on standard output may be piped on.
say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# The comment block at the top of the calling script is its manual.
print_manual() { sed -n '2,/^[^#]/{/^#/!d;s/^# \{0,1\}//;p;}' "$0"; }

# Make .venv fit the lock, which takes a blink when it already does.
set_up() { "$ROOT/scripts/setup" --called >&2; }

# Make the compiled code fit the sources; says nothing, and takes a blink, when it already does.
compile_hot_rooms() { PYTHONPATH=$ROOT "$PYTHON" -P -m compile; }
