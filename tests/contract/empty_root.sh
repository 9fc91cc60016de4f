#!/bin/sh
# Starts a hub and the world, in a network of their own where there are namespaces, and runs the
# program there with these arguments.
if [ -n "$OWN_NETWORK" ]; then
    ip link set lo up && ip address add 169.254.170.2/32 dev lo || exit 99
fi
"$HUB" start "$DIR/hub" >/dev/null 2>&1 || exit 98
trap '"$HUB" remove "$DIR/hub"' EXIT
"$PYTHON" "$WORLD" "$DIR/root" "$DIR" "$@"
