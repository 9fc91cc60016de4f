#!/usr/bin/env bash
# The embedded development hub: a PostgreSQL of the project's own in a folder of its own.
# PostgreSQL refuses to run as root, so root drops to another user for it.
#
#   deploy/dev/hub.sh start DIR   start it, made first if need be; DIR/env then tells how to connect
#   deploy/dev/hub.sh stop DIR
#   deploy/dev/hub.sh remove DIR  stop it and delete the folder
#
# HUB_OPTIONS: further options for the server's command line.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
here=$(cd "$(dirname "$0")/../.." && pwd)

[[ $# == 2 && $1 =~ ^(start|stop|remove)$ ]] || fail "usage: deploy/dev/hub.sh start|stop|remove DIR"
verb=$1
[ "$verb" = start ] || [ -e "$2/lock" ] || exit 0
# The server's user must get in; what is secret has a mask of its own.
umask 022
mkdir -p "$2"
dir=$(cd "$2" && pwd)
[[ $dir != *[\'\"\$\\]* ]] || fail "a development hub cannot be in $dir: the path holds a quote, a dollar or a backslash"
# One at a time: 'make -j' registers several trusts at once.
exec 9>"$dir/lock"
flock 9
# What is meant for the program is not for psql.
unset "${!PG@}"

as_server=()
if [ "$(id -u)" = 0 ]; then
    server_user=postgres
    id postgres >/dev/null 2>&1 || server_user=nobody
    as_server=(setpriv --reuid "$server_user" --regid "$(id -g "$server_user")" --clear-groups)
fi
server() { (cd / && exec 9>&- && "${as_server[@]}" "$@"); }

# The server's own folder, the only one that its user owns. Where that user cannot enter DIR (a
# project below /root) it is beside the system's other variable files.
home=$dir/server
if [ -e "$dir/home" ]; then
    home=$(cat "$dir/home")
elif [ ${#as_server[@]} != 0 ] && ! server test -x "$dir"; then
    home=/var/tmp/register-trust-hub-$(printf '%s' "$dir" | cksum | cut -d ' ' -f 1)
    if [ -L "$home" ] || { [ -e "$home" ] && [ "$(stat -c %U "$home")" != "$server_user" ]; }; then
        fail "$home belongs to somebody else: remove it"
    fi
fi
data=$home/data

start() {
    local bin password port try socket=''
    bin=$("$here/deploy/dev/need.sh" postgres)
    if [ -e "$dir/env" ] && server "$bin/pg_ctl" status -D "$data" >/dev/null 2>&1; then
        return
    fi
    mkdir -p "$home"
    printf '%s\n' "$home" >"$dir/home"
    [ ${#as_server[@]} = 0 ] || chown "$server_user" "$home"
    if [ ! -e "$data" ]; then
        say "making a development hub in $home"
        rm -rf "$data.new"
        password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
        (umask 077 && printf '%s\n' "$password" >"$dir/password" && cp "$dir/password" "$home/pwfile")
        [ ${#as_server[@]} = 0 ] || chown "$server_user" "$home/pwfile"
        server "$bin/initdb" -D "$data.new" -U hub -A scram-sha-256 --pwfile="$home/pwfile" \
            -E UTF8 --locale=C --no-sync >"$dir/log" 2>&1 || { cat "$dir/log" >&2; fail "initdb failed"; }
        rm "$home/pwfile"
        mv "$data.new" "$data"
    fi
    password=$(cat "$dir/password")
    [ ${#home} -gt 80 ] || socket=$home
    for try in 1 2 3 4 5 6 7 8; do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        if server "$bin/pg_ctl" start -w -s -D "$data" -l "$data/log" -o "-p $port \
                -c listen_addresses=127.0.0.1 -c unix_socket_directories='$socket' ${HUB_OPTIONS-}" >/dev/null 2>&1; then
            break
        fi
        [ "$try" != 8 ] || { tail -n 5 "$data/log" >&2 || true; fail "the development hub does not start"; }
    done
    local psql=("$bin/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U hub)
    export PGPASSWORD=$password PGOPTIONS='-c client_min_messages=warning'
    "${psql[@]}" -d postgres -At -c "SELECT 1 FROM pg_database WHERE datname = 'hub'" | grep -q 1 ||
        "${psql[@]}" -d postgres -c 'CREATE DATABASE hub'
    "${psql[@]}" -d hub -f "$here/sql/dev_hub.sql"
    (umask 077 && printf '%s=%s\n' DB_HOST 127.0.0.1 DB_PORT "$port" POSTGRES_USER hub POSTGRES_DB hub \
        POSTGRES_PASSWORD "$password" >"$dir/env")
    say "the development hub is up on 127.0.0.1:$port"
}

stop() { # how
    [ -e "$data/postmaster.pid" ] || return 0
    server "$("$here/deploy/dev/need.sh" postgres)/pg_ctl" stop -s -m "$1" -D "$data" || true
}

case $verb in
    start) start ;;
    stop) stop fast ;;
    remove) stop immediate; rm -rf "$home" "$dir" ;;
esac
