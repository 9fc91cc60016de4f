#!/usr/bin/env bash
# The embedded development hub: a PostgreSQL of the project's own in a folder of its own.
# PostgreSQL refuses to run as root, so root drops to another user for it.
#
#   deploy/hub.sh start DIR   start it, made first if need be; DIR/env then tells how to connect
#   deploy/hub.sh stop DIR
#   deploy/hub.sh remove DIR  stop it and delete the folder
#
# HUB_OPTIONS: further options for the server's command line.
set -euo pipefail

say() { printf '%s\n' "$*" >&2; }
fail() { say "ERROR $*"; exit 1; }

here=$(cd "$(dirname "$0")/.." && pwd)
[ $# = 2 ] || fail "usage: deploy/hub.sh start|stop|remove DIR"
verb=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)

as_server=()
if [ "$(id -u)" = 0 ]; then
    server_user=postgres
    id postgres >/dev/null 2>&1 || server_user=nobody
    as_server=(setpriv --reuid "$server_user" --regid "$(id -g "$server_user")" --clear-groups)
fi
server() { (cd / && "${as_server[@]}" "$@"); }

# Where the server's files are. A folder that the server's user cannot enter (a project below
# /root) gets them beside the system's other variable files instead.
place() {
    home=$dir
    if [ ${#as_server[@]} != 0 ] && ! server test -x "$dir"; then
        home=/var/tmp/register-trust-hub-$(printf '%s' "$dir" | cksum | cut -d ' ' -f 1)
        mkdir -p "$home"
    fi
    [ ${#as_server[@]} = 0 ] || chown "$server_user" "$home"
    data=$home/data
}

start() {
    local bin
    bin=$("$here/deploy/need.sh" postgres)
    if [ -e "$dir/env" ] && server "$bin/pg_ctl" status -D "$data" >/dev/null 2>&1; then
        return
    fi
    [ "$home" = "$dir" ] || say "the development hub's files are in $home"
    local password
    if [ ! -e "$data/PG_VERSION" ]; then
        say "making a development hub in $home"
        password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
        (umask 077 && printf '%s\n' "$password" >"$dir/password")
        (umask 077 && cp "$dir/password" "$home/pwfile")
        [ ${#as_server[@]} = 0 ] || chown "$server_user" "$home/pwfile"
        server "$bin/initdb" -D "$data" -U hub -A scram-sha-256 --pwfile="$home/pwfile" \
            -E UTF8 --locale=C --no-sync >"$dir/log" 2>&1 || { cat "$dir/log" >&2; fail "initdb failed"; }
        rm "$home/pwfile"
    fi
    password=$(cat "$dir/password")
    local socket= port try
    [ ${#home} -gt 80 ] || socket=$home
    for try in 1 2 3 4 5 6 7 8; do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        # shellcheck disable=SC2086 # options are words
        if server "$bin/pg_ctl" start -w -s -D "$data" -l "$data/log" -o "-p $port \
                -c listen_addresses=127.0.0.1 -c unix_socket_directories='$socket' ${HUB_OPTIONS-}" >/dev/null 2>&1; then
            break
        fi
        [ "$try" != 8 ] || { tail -n 5 "$data/log" >&2; fail "the development hub does not start"; }
    done
    (umask 077 && printf '%s=%s\n' DB_HOST 127.0.0.1 DB_PORT "$port" POSTGRES_USER hub POSTGRES_DB hub \
        POSTGRES_PASSWORD "$password" >"$dir/env.new")
    local psql=("$bin/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U hub)
    export PGPASSWORD=$password PGOPTIONS='-c client_min_messages=warning'
    "${psql[@]}" -d postgres -At -c "SELECT 1 FROM pg_database WHERE datname = 'hub'" | grep -q 1 ||
        "${psql[@]}" -d postgres -c 'CREATE DATABASE hub'
    "${psql[@]}" -d hub -f "$here/sql/dev_hub.sql"
    mv "$dir/env.new" "$dir/env"
    say "the development hub is up on 127.0.0.1:$port"
}

stop() {
    [ -e "$data/postmaster.pid" ] || return 0
    server "$("$here/deploy/need.sh" postgres)/pg_ctl" stop -s -m "$1" -D "$data" || true
}

place
case $verb in
    start) start ;;
    stop) stop fast ;;
    remove) stop immediate; rm -rf "$home" "$dir" ;;
    *) fail "usage: deploy/hub.sh start|stop|remove DIR" ;;
esac
