#!/usr/bin/env bash
# Builds the program as it is shipped, in a release or an image: with the newest OpenSSL and glibc, and
# with the list of its crates inside, which scanners read. Prints its path.
#
#   deploy/dev/ship.sh [--upgrade]    --upgrade and ALLOW_...: as for newest.sh
#
#   TOOLS    where cargo-auditable is, or gets built (target/tools)
set -euo pipefail
cd "$(dirname "$0")/../.."
fail() { echo "ERROR $*" >&2; exit 1; }

libraries=$(deploy/dev/newest.sh "$@")
tools=${TOOLS:-target/tools}
# Its version decides some of the program's bytes.
deploy/dev/live.sh - cargo install --quiet --locked --root "$tools" cargo-auditable@0.7.7
tools=$(cd "$tools" && pwd)
# An earlier build can hold an older OpenSSL, and a program with an older glibc: what rests on this crate
# is built and linked again.
deploy/dev/cargo.sh clean --quiet --release --package openssl-sys
PATH=$tools/bin:$PATH deploy/dev/live.sh - deploy/dev/cargo.sh auditable build --release --locked

program=target/$(rustc -vV | sed -n 's/^host: //p')/release/register-trust
read -r _ openssl _ <<<"$libraries"
grep -qxF "$openssl" <<<"$(strings -a "$program")" || fail "$program does not hold OpenSSL $openssl"
grep -qF .dep-v0 <<<"$(readelf -SW "$program")" || fail "$program does not hold the list of its crates"
printf '%s\n' "$libraries" >&2
echo "$program"
