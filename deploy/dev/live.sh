#!/usr/bin/env bash
# Runs a long command, and says every 20 seconds that it is still at work. With a LOG the command's
# output goes there: the last line of it tells how far it is, and a failure shows its end.
#
#   deploy/dev/live.sh LOG|- COMMAND...
set -euo pipefail

log=$1
shift
[ "$log" != - ] || log=
# The clock reads a pipe that only this shell holds: it ends when this shell does, however it ends.
exec 7> >(
    exec >&2
    while :; do
        read -r -t 20 _ && status=0 || status=$?
        [ "$status" -gt 128 ] || exit 0
        printf '… %s s' "$SECONDS"
        [ -z "$log" ] || printf ': %s' "$(tail -n 1 "$log" | tr -d '[:cntrl:]' | cut -c -100)"
        echo
    done
)
status=0
if [ -n "$log" ]; then
    "$@" >"$log" 2>&1 7>&- || status=$?
    [ "$status" = 0 ] || tail -n 15 "$log" >&2
else
    "$@" 7>&- || status=$?
fi
exit "$status"
