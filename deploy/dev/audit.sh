#!/usr/bin/env bash
# Checks the dependencies by deny.toml. Advisories come from a local database, never from the network.
#
#   deploy/dev/audit.sh [licenses | sources | bans | advisories]...    without any, all of them
#
#   ADVISORY_DB    a clone of RustSec's database (the one that 'cargo deny fetch' has made)
set -euo pipefail
cd "$(dirname "$0")/../.."
fail() { echo "ERROR $*" >&2; exit 1; }

tools=${TOOLS:-target/tools}
deny() { # option...
    "$tools/bin/cargo-deny" --all-features --locked "$@" check "${checks[@]}"
}
checks=("$@")
[ $# != 0 ] || checks=(licenses sources bans advisories)
if [[ " ${checks[*]} " != *' advisories '* ]]; then
    deny
    exit
fi

next="next: git clone https://github.com/RustSec/advisory-db, or git pull in it, and make audit ADVISORY_DB=advisory-db"
homes=("${CARGO_HOME:-$HOME/.cargo}"/advisory-dbs/advisory-db-*/)
db=$(cd "${ADVISORY_DB:-${homes[0]}}" 2>/dev/null && pwd) ||
    fail "there is no advisory database in ${ADVISORY_DB:-${homes[0]}}; advisories were not checked
ERROR $next"
[ -n "$(git -C "$db" ls-tree main crates/)" ] ||
    fail "$db is no advisory database with a branch main; advisories were not checked
ERROR $next"
day=$(git -C "$db" log -1 --format=%cs main)
[[ ! $day < $(date -d '30 days ago' +%F) ]] ||
    fail "the advisory database in $db is of $day, more than 30 days old; advisories were not checked
ERROR $next"
echo "advisories of $day from $db"

# cargo-deny fetches as usual, but into a folder of its own, and git gives it the local database as the remote.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
sed "s|^\[advisories\]\$|&\ndb-path = \"$work/dbs\"|" deny.toml >"$work/deny.toml"
export GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=url.file://$db.insteadOf GIT_CONFIG_VALUE_0=https://github.com/RustSec/advisory-db
deny --config "$work/deny.toml"
