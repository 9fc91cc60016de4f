#!/usr/bin/env bash
# The embedded development hub: a PostgreSQL of the project's own in a folder of its own.
#
#   deploy/dev/hub.sh start DIR   start it, made first if need be; DIR/env then tells how to connect
#   deploy/dev/hub.sh stop DIR
#   deploy/dev/hub.sh remove DIR  stop it and delete what it left in the folder
#
# HUB_OPTIONS: further options for the server's command line. PG: see need.sh.
#
# PostgreSQL refuses to run as root. For root the server has a user of its own, postgres or nobody,
# and in a checkout that is somebody's root acts as its owner. The server holds a lock on DIR/running
# as long as it lives, so a copied folder is never taken for one whose server runs.
set -euo pipefail

here=$(dirname "$0")
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$here/../lib.sh"
here=$(cd "$here/../.." && pwd)

[[ $# == 2 && $1 =~ ^(start|stop|remove)$ ]] || fail "usage: deploy/dev/hub.sh start|stop|remove DIR"
verb=$1
# No core dump is left. Files that the server's user reads get an open mask, secret ones a mask of their own.
ulimit -c 0
umask 022
# First, since the package brings the server's user.
[ "$verb" != start ] || bin=$("$here/deploy/dev/need.sh" postgres)
# What is meant for the program is not for psql.
unset "${!PG@}"

place=$2
while [ ! -e "$place" ]; do place=$(dirname "$place"); done
[ -x "$place" ] || fail "whether there is a development hub in $2 cannot be seen: $place is closed to $(id -un)"
[ "$verb" = start ] || [ -e "$2" ] || exit 0
owner=$(stat -c %U "$place")
if [ "$(id -u)" = 0 ] && [ "$owner" != "$(id -un)" ] && id "$owner" >/dev/null 2>&1; then
    as_owner=(setpriv --reuid "$owner" --regid "$(id -g "$owner")" --init-groups)
    (cd / && "${as_owner[@]}" test -r "$here/deploy/dev/hub.sh") ||
        fail "the development hub in $2 belongs to $owner, who cannot read $here: use a checkout of $owner's, or set HUB_DIR"
    exec "${as_owner[@]}" ${bin+env "PG=$bin"} "$here/deploy/dev/hub.sh" "$@"
fi

# One at a time: 'make -j' registers several trusts at once. The lock counts only if nobody removed
# the folder meanwhile.
while :; do
    mkdir -p "$2"
    { [ -O "$2" ] && [ "$(stat -c %u "$2")" = "$(id -u)" ]; } ||
        fail "the development hub in $2 belongs to $(stat -L -c %U "$2"): run as $(stat -L -c %U "$2") or root, or set HUB_DIR to a folder of your own"
    [ "$verb" = start ] || [ -e "$2/lock" ] || exit 0
    dir=$(cd "$2" && pwd -P)
    exec 9>>"$dir/lock"
    flock 9
    [ ! "$dir/lock" -ef "/proc/$$/fd/9" ] || break
done

# The server's own folder, the only one that its user may write to; root never writes there. It is
# DIR/server, but where that user cannot enter DIR (a project below /root) one in /var/tmp, whose file
# 'of' tells whose it is. A copied DIR still names its model's.
home=$dir/server as_server=()
set_user() { # name
    local group
    group=$(id -g "$1")
    as_server=(setpriv --reuid "$1" --regid "$group" --clear-groups)
}
# With nothing of the caller's but the lock: no variable, no other descriptor.
become_server() {
    local descriptor
    cd "$home" || exit
    for descriptor in /proc/"$BASHPID"/fd/*; do
        case ${descriptor##*/} in
            0 | 1 | 2 | 8) ;;
            *) eval "exec ${descriptor##*/}>&-" ;;
        esac
    done
    exec env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin LC_ALL=C ${as_server[0]+"${as_server[@]}"} "$@"
}
# Bash quotes the whole body if it is killed.
server() { (become_server "$@"); }
if [ "$(id -u)" = 0 ]; then
    user=postgres
    id "$user" >/dev/null 2>&1 || user=nobody
    elsewhere=$(cat "$dir/home" 2>/dev/null) || elsewhere=
    if [[ $elsewhere == /var/tmp/register-trust-hub* && -d $elsewhere ]]; then
        home=$elsewhere
        user=$(stat -c %U "$home")
        set_user "$user"
        of=$(server head -n 1 of 2>/dev/null) || of=$dir
        [ "$of" = "$dir" ] || [ "$(cat "$of/home" 2>/dev/null)" != "$home" ] || home=$dir/server
    fi
    owner=root
    [ ! -d "$home" ] || owner=$(stat -c %U "$home")
    [ "$owner" = root ] || user=$owner
    set_user "$user"
fi

# The process of this very folder's server; a number that was left behind may be anybody's by now.
# Another group than the server's may not look at where it works, but while the lock is held there is
# a server, and its port was chosen by chance.
server_pid() {
    local file pid port
    file=$(server head -n 4 data/postmaster.pid 2>/dev/null) || return
    pid=${file%%$'\n'*} port=${file##*$'\n'}
    [[ $pid =~ ^[0-9]+$ && $port =~ ^[0-9]+$ ]] || return
    server test "/proc/$pid/cwd" -ef data || {
        ! flock -n "$dir/running" true 2>/dev/null &&
            tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q "/postgres -D data -p $port "
    } || return
    echo "$pid"
}

make_home() {
    if [ -z "${as_server[0]-}" ]; then
        mkdir -p "$home"
    elif [ ! -d "$home" ] || [ "$(stat -c %u "$home")" = 0 ]; then
        # The user can be found out only in a folder that is there.
        mkdir -p "$home"
        if ! server test -x "$home"; then
            rmdir "$home"
            home=$(mktemp -d /var/tmp/register-trust-hub.XXXXXX)
            chmod 755 "$home"
        fi
        chown -h "$(id -u "${as_server[2]}"):$(id -g "${as_server[2]}")" "$home"
    fi
    printf '%s\n' "$home" >"$dir/home"
    [ "$home" = "$dir/server" ] || printf '%s\n' "$dir" | server tee of >/dev/null
}

start() {
    local password port try version
    if server_pid >/dev/null && [ -e "$dir/env" ]; then
        return
    fi
    make_home
    if [ ! -e "$home/data" ]; then
        say "making a development hub in $home"
        server rm -rf data.new
        password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
        (umask 077 && printf '%s\n' "$password" >"$dir/password")
        # shellcheck disable=SC2016 # the server's own shell
        server sh -c 'umask 077 && cat >pwfile && "$0"/initdb -D data.new -U hub -A scram-sha-256 --pwfile=pwfile \
            -E UTF8 --locale=C --no-sync; status=$?; rm -f pwfile; exit $status' "$bin" \
            <"$dir/password" >"$dir/log" 2>&1 || { cat "$dir/log" >&2; fail "initdb failed"; }
        server mv data.new data
    fi
    version=$(server cat data/PG_VERSION 2>/dev/null) ||
        fail "$home/data is no data of $(id -un "$(server id -u)")'s (a copy, perhaps): 'make clean' removes this hub"
    if [ "$("$bin/postgres" -V | sed 's/[^0-9]*\([0-9]*\).*/\1/')" != "$version" ]; then
        fail "the development hub in $dir was made by PostgreSQL $version, and this is $("$bin/postgres" -V): 'make clean' removes it; PG=/usr/lib/postgresql/$version/bin uses it"
    fi
    password=$(cat "$dir/password")
    if server_pid >/dev/null; then
        port=$(server sed -n 4p data/postmaster.pid)
    else
        rm -f "$dir/env"
        exec 8>>"$dir/running"
        flock -w 20 8 || fail "the server of $dir runs where it cannot be reached from here, in another container perhaps: stop it there"
        # Left behind by a server that is gone, or that is a copy's model.
        server rm -f data/postmaster.pid
        for try in 1 2 3 4 5 6 7 8; do
            port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
            # Relative paths: the server's shell sees no odd character of them.
            if server "$bin/pg_ctl" start -w -t 120 -s -D data -l data/log -o "-p $port -c listen_addresses=127.0.0.1 \
                -c unix_socket_directories=.. ${HUB_OPTIONS-}" </dev/null >/dev/null 2>&1; then
                break
            fi
            [ "$try" != 8 ] || { server tail -n 5 data/log >&2 || true; fail "the development hub does not start; its log is $home/data/log"; }
            sleep 0.3
        done
        exec 8>&-
    fi
    local psql=("$bin/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$port" -U hub)
    export PGPASSWORD=$password PGOPTIONS='-c client_min_messages=warning'
    "${psql[@]}" -d postgres -At -c "SELECT 1 FROM pg_database WHERE datname = 'hub'" | grep -q 1 ||
        "${psql[@]}" -d postgres -c 'CREATE DATABASE hub'
    "${psql[@]}" -d hub -f "$here/sql/dev_hub.sql"
    # Another run of 'make -j' may be reading it.
    (umask 077 && printf '%s=%s\n' DB_HOST 127.0.0.1 DB_PORT "$port" POSTGRES_USER hub POSTGRES_DB hub \
        POSTGRES_PASSWORD "$password" >"$dir/env.new")
    mv -f "$dir/env.new" "$dir/env"
    say "the development hub is up on 127.0.0.1:$port"
    [ "$home" = "$dir/server" ] ||
        say "its data is in $home, since its user cannot enter $dir; 'make clean' removes both"
}

stop() { # signal: INT ends it cleanly, QUIT at once
    local pid n
    [ -d "$home" ] || return 0
    if pid=$(server_pid); then
        # shellcheck disable=SC2016
        server sh -c 'kill -s "$0" "$1"' "$1" "$pid"
        for ((n = 0; n < 600; n++)); do
            server_pid >/dev/null || break
            sleep 0.1
        done
        [ "$n" -lt 600 ] || fail "the development hub in $dir does not stop (process $pid)"
    fi
    # Its last process, too; or one that cannot be seen from here.
    exec 8>>"$dir/running"
    flock -w 20 8 || fail "the development hub in $dir does not stop: its server runs where it cannot be reached from here, in another container perhaps"
    exec 8>&-
}

case $verb in
    start) start ;;
    stop) stop INT ;;
    remove)
        stop QUIT
        # Nothing but what is the hub's: the folder can be anybody's.
        rm -rf "$home" "$dir/server"
        rm -f "$dir/env" "$dir/env.new" "$dir/home" "$dir/log" "$dir/password" "$dir/running" "$dir/lock"
        rmdir "$dir" 2>/dev/null || say "$dir stays: it holds other files"
        ;;
esac
