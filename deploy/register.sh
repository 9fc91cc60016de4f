#!/usr/bin/env bash
# Registers trust N and leaves its kit in a file readable by its owner alone: the home of the
# Makefile's targets.
#
#   deploy/register.sh HUB_DIR KITS_DIR N NAME [register-trust's options]
#
# A full kit goes to KITS_DIR/trust-N.json, one without credentials to trust-N.metadata.json.
# No full kit is ever overwritten.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
fail() { say "ERROR $*"; exit 1; }

[ $# -ge 4 ] || fail "usage: deploy/register.sh HUB_DIR KITS_DIR N NAME [OPTION]..."
hub=$1 kits=$2 number=$3 name=$4
shift 4
here=$(cd "$(dirname "$0")/.." && pwd)
[[ $number =~ ^[0-9]+$ ]] || fail "trust '$number' has no number"
[ -n "$name" ] || fail "TRUST_${number}_NAME is not set"

if [ -z "${DB_HOST-}" ]; then
    "$here/deploy/hub.sh" start "$hub"
    set -a
    # shellcheck disable=SC1091 # written by hub.sh
    . "$hub/env"
    set +a
fi

umask 077
mkdir -p "$kits"
new=$(mktemp "$kits/.trust-$number.XXXXXX")
if ! "$here/target/release/register-trust" "--name=$name" "$@" >"$new"; then
    # An outcome that is not known leaves a kit that may be valid.
    case $(tail -n 1 "$new") in
        '[{'*) fail "the kit that may be valid is in $new" ;;
    esac
    rm -f "$new"
    exit 1
fi
kit=$kits/trust-$number.json
if ! grep -q '"trust_api_key":' "$new"; then
    kit=$kits/trust-$number.metadata.json
elif [ -e "$kit" ]; then
    mv --backup=numbered -T "$kit" "$kit.old"
    say "an earlier kit is kept as $kit.old"
fi
mv "$new" "$kit"
say "the kit is in $kit"
