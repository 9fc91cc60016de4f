#!/usr/bin/env bash
# Registers trust N and leaves its kit in a file readable by its owner alone.
#
#   deploy/register.sh N [register-trust's options]
#
# The trust is described by NAME, CODE and REGION, or else in .env.development, .env.stag or
# .env.production. The hub is, in this order:
#
#   PROD=stag|true   in ECS: a one-off task (deploy/ecs.sh)
#   HUB=compose      in a compose project: its container SERVICE (flip-api), where the program
#                    is COMMAND (/opt/register-trust/register-trust; see deploy/compose.yaml)
#   DB_HOST=...      where it says
#   otherwise        the embedded development hub in HUB_DIR (.hub)
#
# The kit goes to KITS (kits), or into the command KIT_SINK if that is set.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"

number=${1-}
[[ $number =~ ^[0-9]+$ ]] || fail "'$number' is no trust's number; usage: deploy/register.sh N [OPTION]..."
shift
env_file >/dev/null
kits=${KITS:-kits}
name=${NAME:-$(from_file "TRUST_${number}_NAME")}
code=${CODE:-$(from_file "TRUST_${number}_CODE")}
region=${REGION:-$(from_file "TRUST_${number}_REGION")}
[ -n "$name" ] || fail "TRUST_${number}_NAME is not set, neither in the environment nor in $(env_file)"
arguments=("--name=$name" "--code=$code" "--region=$region" "$@")

umask 077
mkdir -p "$kits"
for left in "$kits/.trust-$number".*; do
    if grep -qs '"trust_api_key":' "$left"; then
        say "WARN $left holds a kit with credentials of a run that did not end: if it is valid (README, \"Operations\"), hand it on; then delete it"
    fi
done
if [ -n "${PROD-}" ]; then
    exec "$here/ecs.sh" "$number" "$kits" "${arguments[@]}"
fi

case ${HUB-} in
    compose)
        command -v docker >/dev/null || fail "HUB=compose needs docker"
        compose=(docker compose)
        docker compose version >/dev/null 2>&1 || compose=(docker-compose)
        register=("${compose[@]}" exec -T "${SERVICE:-flip-api}" "${COMMAND:-/opt/register-trust/register-trust}")
        ;;
    '')
        register=("$here/../target/release/register-trust")
        if [ -z "${DB_HOST-}" ]; then
            hub=${HUB_DIR:-.hub}
            "$here/dev/hub.sh" start "$hub"
            while IFS='=' read -r key value; do
                export "$key=$value"
            done <"$hub/env"
        fi
        ;;
    *) fail "HUB is '$HUB', not compose" ;;
esac

new=$(mktemp "$kits/.trust-$number.XXXXXX")
"${register[@]}" "${arguments[@]}" >"$new" </dev/null && status=0 || status=$?
if [ "$status" != 0 ]; then
    # An outcome that is not known leaves a kit that may be valid.
    case $(tail -n 1 "$new") in
        '[{'*) fail "the kit that may be valid is in $new" ;;
    esac
    rm -f "$new"
    fail "trust $number got no kit (exit status $status); the reason stands above"
fi
# A container engine can put lines of its own before the kit.
kit=$(grep '^\[' "$new" | tail -n 1)
case $kit in
    '[{'*) printf '%s\n' "$kit" >"$new" ;;
    *) fail "the run succeeded without a kit; what it printed is in $new" ;;
esac
hand_on "$new" "$number" "$kits" || fail "the kit could not be handed on; it is in $new"
rm -f "$new"
