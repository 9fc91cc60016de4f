#!/usr/bin/env bash
# Fails unless the OpenSSL and the glibc that get linked into the program, and the zlib and zstd of an
# OpenSSL that has them, are the newest that this machine's package source offers. Prints a line for each:
# its name, its version, its package's version.
#
#   deploy/dev/newest.sh [--upgrade]    --upgrade installs the newest first, as root: for an image
#
#   ALLOW_OPENSSL, ALLOW_GLIBC, ALLOW_ZLIB, ALLOW_ZSTD
#       a version to link in on purpose, if it is not the newest, or if this machine cannot tell
set -euo pipefail
fail() { echo "ERROR $*" >&2; exit 1; }

# Lists of its own, so that an ordinary user can ask too.
lists=$(mktemp -d)
trap 'rm -rf "$lists"' EXIT
chmod 755 "$lists"
mkdir "$lists/cache"
apt=(-o "Dir::State::lists=$lists" -o "Dir::Cache=$lists/cache" -o APT::Update::Error-Mode=any)
# apt before 2.4 does not know the error mode, and calls a source that does not answer a success.
if ! command -v apt-get >/dev/null; then
    unknown="there is no apt-get here"
elif ! words=$(LC_ALL=C apt-get "${apt[@]}" update 2>&1) || grep -q '^Err:' <<<"$words"; then
    printf '%s\n' "$words" >&2
    unknown="the package source does not answer; apt's own words are above"
elif [ "${1-}" = --upgrade ]; then
    DEBIAN_FRONTEND=noninteractive apt-get "${apt[@]}" install -y --no-install-recommends \
        gcc libc6-dev libssl-dev libzstd-dev pkg-config zlib1g-dev >&2
fi

check() { # name version file [why-it-cannot-be-checked]
    local allow=ALLOW_${1^^} package='' version=$2 why=${4:-${unknown-}} policy newest
    if [ -z "$why" ] && ! package=$(dpkg-query -S "$(realpath "$3")" 2>/dev/null); then
        why="$3 belongs to no package"
    elif [ -z "$why" ]; then
        package=${package%%: *}
        # shellcheck disable=SC2016 # dpkg's own variable
        version=$(dpkg-query -W -f '${Version}' "$package")
        policy=$(LC_ALL=C apt-cache "${apt[@]}" policy "$package")
        newest=$(sed -n 's/^ *Candidate: //p' <<<"$policy")
        if ! grep -q ' [a-z]*:/' <<<"$policy"; then
            why="no package source has $package"
        elif [ "$version" != "$newest" ]; then
            why="the package source offers $newest; next: apt-get update && apt-get install --only-upgrade ${package%:*}"
        fi
    fi
    if [ -n "$why" ] && [ "${!allow-}" != "$version" ]; then
        [ -n "$package" ] || why="it cannot be checked whether that is the newest: $why"
        fail "$1 $version would be linked in, and $why
ERROR nothing was built; to link this version in on purpose, set $allow=$version"
    fi
    echo "$1 $2 $version"
}

# These make openssl-sys link another one in than pkg-config names.
other=$(env | grep -oE '^([A-Za-z0-9_]*_)?OPENSSL_(DIR|LIB_DIR|INCLUDE_DIR|NO_PKG_CONFIG|LIBS)=' | tr -s '=\n' ' ' || true)
check openssl "$(pkg-config --modversion openssl)" "$(pkg-config --variable=libdir openssl)/libssl.a" \
    "${other:+${other}is set}"
glibc=$(getconf GNU_LIBC_VERSION)
check glibc "${glibc#glibc }" "$(cc -print-file-name=libc.a)"
others=" $(pkg-config --static --libs-only-l openssl) "
[[ $others != *' -lz '* ]] || check zlib "$(pkg-config --modversion zlib)" "$(cc -print-file-name=libz.a)"
[[ $others != *' -lzstd '* ]] || check zstd "$(pkg-config --modversion libzstd)" "$(cc -print-file-name=libzstd.a)"
for library in $others; do
    case $library in
        # The last two are glibc's.
        -lssl | -lcrypto | -lz | -lzstd | -ldl | -lpthread) ;;
        *) fail "OpenSSL would link $library in, and nobody checks whether that is the newest" ;;
    esac
done
