#!/usr/bin/env bash
# Installs what is missing for building, for the development hub or for the tests, from Debian's
# or Ubuntu's packages and PyPI. Says what it does; quick when nothing is missing.
#
#   deploy/dev/need.sh build | postgres | python DIR ...
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"

apt_install() { # what-for package...
    local purpose=$1 sudo=
    shift
    command -v apt-get >/dev/null || fail "$purpose needs the packages $*, and there is no apt-get: install them by hand"
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || fail "$purpose needs the packages $*: install them as root"
        sudo=sudo
    fi
    say "installing $* for $purpose"
    local log
    log=$(mktemp)
    if ! { $sudo apt-get update && $sudo env DEBIAN_FRONTEND=noninteractive \
            apt-get install -y --no-install-recommends "$@"; } >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        rm -f "$log"
        fail "apt-get could not install $* (for $purpose)"
    fi
    rm -f "$log"
}

# The newest PostgreSQL server on this machine; nothing if there is none.
postgres_bin() {
    local dir
    for dir in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) "$(dirname "$(command -v initdb || echo /none/x)")"; do
        if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
            echo "$dir"
            return
        fi
    done
}

need_build() {
    command -v cargo >/dev/null || fail "there is no cargo: install a Rust toolchain (https://rustup.rs)"
    command -v cc >/dev/null || apt_install "building" gcc libc6-dev
    if ! command -v pkg-config >/dev/null || ! pkg-config --exists openssl; then
        apt_install "building (OpenSSL's headers)" pkg-config libssl-dev
    fi
}

need_postgres() {
    [ -n "$(postgres_bin)" ] && return
    # Debian would start a server of its own on port 5432; nobody asked for that one.
    if [ ! -e /etc/postgresql-common ]; then
        apt_install "the development hub" postgresql-common
    fi
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo sh -c 'test -d /etc/postgresql || echo "create_main_cluster = false" >> /etc/postgresql-common/createcluster.conf'
    apt_install "the development hub" postgresql
    [ -n "$(postgres_bin)" ] || fail "the package postgresql brought no initdb"
}

need_python() { # directory of the venv
    local venv=$1 packages=('moto[server,ssm,ecs,logs,ec2]==5.1.*' 'boto3==1.*' 'awscli==1.*' 'python-dotenv==1.*')
    command -v openssl >/dev/null || apt_install "the tests" openssl
    command -v ip >/dev/null || apt_install "the tests" iproute2
    if [ ! -x /usr/sbin/pgbouncer ] && ! command -v pgbouncer >/dev/null; then
        apt_install "the tests" pgbouncer
        # Debian starts a service of its own; nobody asked for that one.
        $([ "$(id -u)" = 0 ] || echo sudo) service pgbouncer stop >/dev/null 2>&1 || true
    fi
    command -v shellcheck >/dev/null || apt_install "the lints" shellcheck
    [ "$(cat "$venv/complete" 2>/dev/null)" != "${packages[*]}" ] || return 0
    command -v python3 >/dev/null || apt_install "the end-to-end tests" python3
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        apt_install "the end-to-end tests" python3-venv
    fi
    say "installing ${packages[*]} into $venv"
    rm -rf "$venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}" >&2 ||
        fail "pip could not install ${packages[*]} (for the end-to-end tests)"
    printf '%s\n' "${packages[*]}" >"$venv/complete"
}

case ${1-} in
    build) need_build ;;
    postgres) need_postgres; postgres_bin ;;
    python) need_python "$2" ;;
    *) fail "usage: deploy/dev/need.sh build | postgres | python DIR" ;;
esac
