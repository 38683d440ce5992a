#!/bin/sh
# Installs into target/tools the relays that `make bench-peers` measures beside our own. What cannot be installed is left
# out, and its figures in docs/speed.md are quoted.
set -eu
tools=$(dirname "$0")/../target/tools
mkdir -p "$tools"

crate() { # NAME VERSION BINARY
  [ -x "$tools/bin/$3" ] && return
  # Its own lock file names libraries that newer compilers do not build any more.
  cargo install --quiet --root "$tools" --version "$2" "$1" || echo "$1 cannot be installed: left out" >&2
}

crate rathole 0.5.0 rathole
crate bore-cli 0.6.0 bore
