#!/usr/bin/env bash
# Runs the image for real beside a development hub: as a one-off, and by 'docker compose exec' in
# a hub's container that gets the image's binary by deploy/compose.yaml.
#
#   deploy/dev/test-image.sh IMAGE HUB_IMAGE
#
# HUB_IMAGE: any image with a shell and sleep, in the place of the hub's own.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. deploy/lib.sh
image=$1 hub_image=$2

work=$(mktemp -d)
export COMPOSE_FILE=$work/compose.yaml:$PWD/deploy/compose.yaml
export COMPOSE_PROJECT_NAME=register-trust-test REGISTER_TRUST_IMAGE=$image
compose=(docker compose)
docker compose version >/dev/null 2>&1 || compose=(docker-compose)
# shellcheck disable=SC2317 # called by the trap
clean_up() {
    "${compose[@]}" down -v -t 0 >/dev/null 2>&1 || true
    docker rm -f register-trust-test-source >/dev/null 2>&1 || true
    deploy/dev/hub.sh remove "$work/hub" || true
    rm -rf "$work"
}
trap clean_up EXIT
deploy/dev/hub.sh start "$work/hub"

run() { # name: as a one-off that is nobody and can write nowhere
    docker run --rm --network host --read-only --cap-drop ALL --security-opt no-new-privileges \
        --env-file "$work/hub/env" "$image" --name "$1" --code X
}
check() { # what, in which text
    grep -q "$1" <<<"$2" || fail "no $1 in: $2"
}

check '"trust_api_key":' "$(run 'One-off')"
again=$(run 'One-off')
check '"fl_kit_slot":"Trust_1"' "$again"
! grep -q trust_api_key <<<"$again" || fail "a trust that exists got credentials"
check 'usage: register-trust' "$(docker run --rm "$image" --nonsense 2>&1 || true)"
check '65532' "$(docker inspect --format '{{.Config.User}}' "$image")"
docker create --name register-trust-test-source "$image" >/dev/null
docker cp register-trust-test-source:/usr/local/bin/register-trust "$work/register-trust" >/dev/null
check '\.dep-v0' "$(readelf -SW "$work/register-trust")"
openssl=$(strings -a "$work/register-trust" | grep -xE '3\.[0-9]+\.[0-9]+' || true)
say "the image's binary has $(stat -c %s "$work/register-trust") bytes, with OpenSSL ${openssl:-unknown}, in $(docker history --quiet "$image" | wc -l) layers"

cat >"$work/compose.yaml" <<YAML
services:
  flip-api:
    image: $hub_image
    command: ["sleep", "600"]
    network_mode: host
    env_file: ["$work/hub/env"]
    environment: {FL_BACKEND: flower}
YAML
"${compose[@]}" up -d >"$work/log" 2>&1 || fail "compose did not start the hub's container: $(cat "$work/log")"
make -s register-trust-1 HUB=compose KITS="$work/kits" TRUST_1_NAME="In the hub's container"
check '"FL_BACKEND":"flower"' "$(cat "$work/kits/trust-1.json")"
make -s sync-trust-kit-1 HUB=compose KITS="$work/kits" TRUST_1_NAME="In the hub's container"
check '"trust_id"' "$(cat "$work/kits/trust-1.metadata.json")"
check ' valid$' "$(make -s check-kit-1 HUB=compose KITS="$work/kits" TRUST_1_NAME="In the hub's container")"
check '^0$' "$("${compose[@]}" exec -T flip-api sh -c 'ulimit -c; ulimit -Hc' | sort -u)"
say "the image works"
