#!/usr/bin/env bash
# Finds everything that is missing before the first long step, and installs it: Debian's or Ubuntu's
# packages in one go, and Python's into target/python. Quick where nothing is missing.
#
#   deploy/dev/need.sh PART...   build, sbom, postgres (prints the folder of its programs), tests
#
# PG: the programs of another PostgreSQL than the newest of this machine, /usr/lib/postgresql/17/bin.
set -euo pipefail

here=$(dirname "$0")
# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$here/../lib.sh"
cd "$here/../.."
if [ -n "${PG-}" ]; then
    { [ -x "$PG/initdb" ] && [ -x "$PG/postgres" ]; } || fail "PG is '$PG', and there is no initdb or no postgres in it"
    PG=$(cd "$PG" && pwd)
fi

have() { command -v "$1" >/dev/null; }

# Root's part. A server that nobody asked for must not start: neither PostgreSQL on port 5432, which
# would start with the machine from then on, nor PgBouncer.
as_root() { # package...
    local cluster=/etc/postgresql-common/createcluster.d/zz-register-trust-$$.conf policy=/usr/sbin/policy-rc.d
    mkdir -p "${cluster%/*}"
    # shellcheck disable=SC2064 # with the paths as they are now
    trap "rm -f $cluster; rmdir ${cluster%/*} 2>/dev/null || true" EXIT
    echo 'create_main_cluster = false' >"$cluster"
    if [ ! -e "$policy" ]; then
        # shellcheck disable=SC2064
        trap "rm -f $cluster $policy; rmdir ${cluster%/*} 2>/dev/null || true" EXIT
        # If this process is killed, the file has no effect any more.
        # shellcheck disable=SC2016 # its own $1
        printf '#!/bin/sh\n[ -e /proc/%s ] || exit 0\ncase $1 in postgresql* | pgbouncer*) exit 101 ;; esac\n' $$ >"$policy"
        chmod 755 "$policy"
    fi
    # If one of several sources does not answer, the installation can still succeed.
    apt-get update || true
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@"
}
if [ "${1-}" = --as-root ]; then
    shift
    as_root "$@"
    exit
fi

# The server's programs: in PG, or the newest on this machine; nothing if there are none.
postgres_bin() {
    local dir
    if [ -n "${PG-}" ]; then
        echo "$PG"
        return
    fi
    for dir in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -rV) "$(dirname "$(command -v initdb || echo /none/x)")"; do
        if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
            echo "$dir"
            return
        fi
    done
}

# pgaudit's package goes with the version of the server, installed or to come. Only Debian's own
# servers can have it.
pgaudit() {
    local bin version
    bin=$(postgres_bin)
    version=$(sed -n 's|^/usr/lib/postgresql/\([0-9]*\)/bin$|\1|p' <<<"$bin")
    if [ -z "$bin" ]; then
        version=$(apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p')
        # Where apt has no lists yet the pattern finds the only one that the distribution has.
        echo "postgresql-${version:-[0-9]*}-pgaudit"
    elif [ -n "$version" ] && [ ! -e "/usr/lib/postgresql/$version/lib/pgaudit.so" ]; then
        echo "postgresql-$version-pgaudit"
    fi
}

# Whether a static OpenSSL links this library in, as Debian's does since 3.5; until it is there it may.
openssl_links() { # library
    ! { have pkg-config && pkg-config --exists openssl; } || [[ " $(pkg-config --static --libs openssl) " == *" -l$1 "* ]]
}
has_archive() { # library
    have cc && [ -e "$(cc -print-file-name="lib$1.a")" ]
}

# The list. What is essential on Debian and Ubuntu is not in it.
packages() { # part...
    local part
    for part in "$@"; do
        case $part in
            build)
                has_archive c || echo gcc libc6-dev
                have pkg-config || echo pkg-config
                { have pkg-config && pkg-config --exists openssl; } || echo libssl-dev
                { ! openssl_links z || has_archive z; } || echo zlib1g-dev
                { ! openssl_links zstd || has_archive zstd; } || echo libzstd-dev
                [ -s "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}" ] || echo ca-certificates
                ;;
            sbom) have python3 || echo python3 ;;
            postgres) [ -n "$(postgres_bin)" ] || echo postgresql ;;
            tests)
                have openssl || echo openssl
                have ip || echo iproute2
                { have pgrep && have kill; } || echo procps
                have shellcheck || echo shellcheck
                python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
                have age || echo age
                [ -x /usr/sbin/pgbouncer ] || have pgbouncer || echo pgbouncer
                pgaudit
                ;;
        esac
    done
}

rust() { # part...
    local wanted found sudo=
    wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    [ -z "${SUDO_USER-}" ] || sudo="; it was looked for as root: run make without sudo, it calls sudo itself where that is needed"
    { have cargo && have rustc; } || fail "there is no cargo: install Rust $wanted or newer (https://rustup.rs)$sudo"
    found=$(rustc --version) || fail "rustc does not run; rustc says why above$sudo"
    found=${found#rustc } found=${found%%[ -]*}
    [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" = "$wanted" ] ||
        fail "this is Rust $found, and the project needs $wanted or newer: rustup update"
    case " $* " in
        *' tests '*)
            { cargo fmt --version && cargo clippy --version; } >/dev/null 2>&1 ||
                fail "the tests need rustfmt and clippy: rustup component add rustfmt clippy"
            ;;
    esac
}

install() { # part...
    local missing all log root=()
    missing=$(packages "$@" | tr '\n' ' ')
    [ -n "$missing" ] || return 0
    # All of them at once for a person who cannot do it here.
    all="apt-get update && apt-get install -y --no-install-recommends $(packages build postgres tests | tr '\n' ' ' | sed 's/[^ ]*\*[^ ]*/'"'&'"'/')"
    have apt-get || fail "these packages of Debian's are missing, under whatever name they have here: $missing"
    if [ "$(id -u)" != 0 ]; then
        have sudo || fail "packages are missing, and there is no sudo. Run this as root, then make again:
  $all"
        root=(sudo)
    fi
    say "${STEPS:+step 1 of $STEPS: }installing ${missing% } (about a minute)"
    log=$(mktemp)
    # shellcheck disable=SC2086 # a list of words; no pattern of apt's names a file here
    if ! (set -f && deploy/dev/live.sh "$log" ${root[0]+"${root[@]}"} "$BASH" "$PWD/deploy/dev/need.sh" --as-root $missing 9<&-) ||
        [ -n "$(packages "$@")" ]; then
        rm -f "$log"
        fail "not everything could be installed; apt's own words are above. Run this as root, then make again:
  $all"
    fi
    rm -f "$log"
}

# What root made in somebody else's checkout is for its owner to use.
python() {
    local venv=target/python log packages=('moto[server,ssm,ecs,logs,ec2]==5.1.*' 'boto3==1.*' 'awscli==1.*' 'python-dotenv==1.*')
    # A copied or moved environment would run the programs of the place that it was made in.
    if [ "$(cat "$venv/complete" 2>/dev/null)" = "$PWD ${packages[*]}" ] && "$venv/bin/python" -c ''; then
        return
    fi
    say "${STEPS:+step 3 of $STEPS: }installing ${packages[*]} into $venv (2 to 6 minutes)"
    rm -rf "$venv"
    mkdir -p target
    log=$(mktemp)
    if ! { python3 -m venv "$venv" >&2 && deploy/dev/live.sh "$log" \
        "$venv/bin/pip" install --disable-pip-version-check --progress-bar off "${packages[@]}" 9<&-; }; then
        rm -f "$log"
        fail "pip could not install ${packages[*]}; its own words are above"
    fi
    rm -f "$log"
    printf '%s\n' "$PWD ${packages[*]}" >"$venv/complete"
    [ "$(id -u)" != 0 ] || chown -hR --reference=. target
}

usage="usage: deploy/dev/need.sh build | sbom | postgres | tests ..."
[ $# != 0 ] || fail "$usage"
for part in "$@"; do
    [[ $part =~ ^(build|sbom|postgres|tests)$ ]] || fail "$usage"
done
# One at a time: 'make -j' asks several times at once.
exec 9<deploy/dev/need.sh
flock 9
case " $* " in
    *' build '*) rust "$@" ;;
esac
install "$@"
case " $* " in
    *' tests '*) python ;;
esac
case " $* " in
    *' postgres '*) postgres_bin ;;
esac
