#!/usr/bin/env bash
# Runs all tests, and says at the end what this machine could not prove. A test that finds no
# namespaces, or no container engine, writes that into target/not-run; where there are namespaces all
# the same, it fails here.
set -euo pipefail
cd "$(dirname "$0")/../.."

not_run=target/not-run
rm -f "$not_run"
# A shell's background job ignores INT and QUIT, and so would all that the tests interrupt.
RUST_TEST_THREADS=8 env --default-signal deploy/dev/live.sh - deploy/dev/cargo.sh test --locked "$@"
[ -s "$not_run" ] || exit 0
sort -u "$not_run" | sed 's/^/not run: /'
grep -qv 'no container engine' "$not_run" || exit 0
own=(unshare -mn)
[ "$(id -u)" = 0 ] || own=(unshare -Urmn)
if "${own[@]}" true 2>/dev/null; then
    echo 'ERROR this machine has namespaces: what was not run above could have been' >&2
    exit 1
fi
