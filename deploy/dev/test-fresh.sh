#!/usr/bin/env bash
# The README's two commands on a fresh machine: in a bare root of Debian's or Ubuntu's with git, make
# and this machine's Rust toolchain, from a clone of what is committed here. Each command runs twice,
# as root in what an ordinary container allows (no further capabilities, no namespaces), and as an
# ordinary user, first without sudo, then with it. Prints how long each took. Needs root.
#
#   SUITE     the release (this machine's own)
#   MIRROR    where it comes from (where this machine's own packages come from)
#   TESTS     how often 'make test' runs for each of them (2; 0 leaves it out)
#   WHO       for whom (root user)
#
# The new root gets this machine's settings of the network: name server, proxies, certificates, mirrors.
set -euo pipefail

# shellcheck source-path=SCRIPTDIR source=../lib.sh
. "$(dirname "$0")/../lib.sh"
cd "$(dirname "$0")/../.."

[ "$(id -u)" = 0 ] || fail "only root can make a bare root: sudo make test-fresh"
for tool in debootstrap unshare rustc git; do
    command -v "$tool" >/dev/null || fail "there is no $tool: apt-get install debootstrap util-linux git"
done

if [ "${1-}" != --inside ]; then
    # In namespaces of its own: no process and no mount outlives this script, however it ends.
    work=$(mktemp -d /var/tmp/register-trust-fresh.XXXXXX)
    trap 'rm -rf --one-file-system "$work"' EXIT
    unshare --mount --pid --fork --kill-child --mount-proc "$PWD/deploy/dev/test-fresh.sh" --inside "$work"
    exit
fi
work=$2

suite=${SUITE:-$(. /etc/os-release && echo "$VERSION_CODENAME")}
# shellcheck disable=SC2016 # apt's own variables
mirror=${MIRROR:-$(apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
    sed -n "s/^$suite main //p" | head -n 1)}
[ -n "$mirror" ] || fail "apt knows no mirror of $suite here: set MIRROR"
[ -z "$(git status --porcelain)" ] || say "WARNING what is not committed here is not tried"

timed() { # what command...
    local what=$1 start=$SECONDS status=0
    shift
    say "=== $what"
    "$@" || status=$?
    took=$((SECONDS - start))
    printf '%5d s  %s%s\n' "$took" "$what" "$([ "$status" = 0 ] || echo ": exit $status")" >>"$work/times"
    return "$status"
}

# An older debootstrap does not know Ubuntu's newer releases, which are all made in one way.
components=main script=()
if [[ $mirror = *ubuntu* ]]; then
    components=main,universe script=(/usr/share/debootstrap/scripts/gutsy)
fi
timed "a bare root: $suite from $mirror" deploy/dev/live.sh "$work/debootstrap" \
    debootstrap --variant=minbase --components="$components" --include=git,make "$suite" "$work/base" "$mirror" \
    ${script[0]+"${script[@]}"}
base=$work/base
# Where this machine has settings of its own, the new one needs them too.
cp -L /etc/resolv.conf /etc/hosts "$base/etc/"
apt-config dump | grep -E '^Acquire::(https?|ftp|Retries)' >"$base/etc/apt/apt.conf.d/00machine" || true
mkdir -p "$base/usr/local/share/ca-certificates" "$base/opt/rust" "$base/etc/skel/.cargo"
cp -R /usr/local/share/ca-certificates/. "$base/usr/local/share/ca-certificates/" 2>/dev/null || true
cp /etc/pip.conf "$base/etc/" 2>/dev/null || true
for file in config.toml config; do
    cp "${CARGO_HOME:-$HOME/.cargo}/$file" "$base/etc/skel/.cargo/" 2>/dev/null || true
done
cp -R "$base/etc/skel/.cargo" "$base/root/"
mapfile -t machine < <(env | grep -E '^((https?|no|all|ftp)_proxy|(HTTPS?|NO|ALL|FTP)_PROXY|PIP_[A-Z_]*|CARGO_(HTTP|NET|REGISTR)[A-Z_]*)=')
rust=$(rustc --print sysroot)

enter() { # root; what follows runs in it
    cp -a "$base" "$1"
    mount --bind "$rust" "$1/opt/rust"
    mount -o remount,bind,ro "$1/opt/rust"
    mount -t proc proc "$1/proc"
    mkdir -p "$1/dev/shm" "$1/dev/pts"
    mount -t tmpfs -o mode=1777 shm "$1/dev/shm"
    mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$1/dev/pts"
    ln -sf pts/ptmx "$1/dev/ptmx"
}
# What Docker leaves to root by default.
capabilities=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap
as() { # user command...: in the root $root, from the user's checkout
    local home=/root user=$1
    [ "$user" = root ] || home=/home/$user
    shift
    # shellcheck disable=SC2016 # the shell inside
    setpriv --bounding-set "$capabilities" --inh-caps "$capabilities" chroot "$root" env -i \
        "HOME=$home" "USER=$user" TERM=dumb "PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" \
        ${machine[0]+"${machine[@]}"} setpriv --reuid "$user" --regid "$user" --init-groups \
        sh -c 'cd ~ && [ ! -d register-trust ] || cd register-trust; exec "$@"' sh "$@" </dev/null
}
no_server() { # why there is none
    local left
    left=$(grep -lx 'postgres\|pgbouncer' /proc/[0-9]*/comm) || return 0
    fail "$1, and still there is $(tr '\0' ' ' <"${left%%comm*}cmdline")"
}
two_commands() { # who
    local n
    timed "$1: make register-trust-1, first" as "$1" make register-trust-1
    timed "$1: make register-trust-1, second" as "$1" make register-trust-1
    [ "$took" -lt 2 ] || fail "the second make register-trust-1 took $took s, not under two"
    for ((n = 1; n <= ${TESTS:-2}; n++)); do
        timed "$1: make test, time $n" as "$1" make test
    done
    timed "$1: make register-trust-1, after it all" as "$1" make register-trust-1
    timed "$1: make hub-stop" as "$1" make hub-stop
    no_server "hub-stop ended the only server"
    [ -z "$(ls -A "$root"/etc/postgresql/* 2>/dev/null)" ] || fail "Debian's own cluster was made"
    timed "$1: make register-trust-1, a hub that was stopped" as "$1" make register-trust-1
    timed "$1: make clean" as "$1" make clean
    no_server "clean ended it"
    as "$1" test ! -e .hub || fail "clean left .hub"
    [ -z "$(ls -A "$root/var/tmp")" ] || fail "clean left $(ls -A "$root/var/tmp") in /var/tmp"
    [ -z "$(ls -d "$root/usr/sbin/policy-rc.d" "$root/etc/postgresql-common/createcluster.d" 2>/dev/null)" ] ||
        fail "the installation left its guards"
}

for who in ${WHO:-root user}; do
    root=$work/$who
    enter "$root"
    if [ "$who" = root ]; then
        git clone -q . "$root/root/register-trust"
        two_commands root
    else
        as root useradd --create-home --shell /bin/bash "$who"
        git clone -q . "$root/home/$who/register-trust"
        as root chown -R "$who:$who" "/home/$who/register-trust"
        # Without sudo: one line for root, that names everything.
        ! refused=$(as "$who" make test 2>&1) || fail "make test went on without the packages"
        line=$(grep '^  apt-get update && apt-get install ' <<<"$refused") || fail "no line to paste in: $refused"
        say "without sudo: $line"
        case $line in
            *gcc*libssl-dev*postgresql*shellcheck*) ;;
            *) fail "the line does not name everything" ;;
        esac
        as root sh -c 'apt-get update && apt-get install -y --no-install-recommends sudo' >/dev/null 2>&1
        echo "$who ALL=(ALL) NOPASSWD: ALL" >"$root/etc/sudoers.d/$who"
        two_commands "$who"
    fi
    umount -R "$root/proc" "$root/dev/shm" "$root/dev/pts" "$root/opt/rust"
    rm -rf --one-file-system "$root"
done
cat "$work/times"
