#!/bin/sh
# cargo with the flags of the one binary that is tested, measured and shipped. The Makefile and the
# Dockerfile both call it. A bare 'cargo build' works too, but links against this machine's libraries.
#
# .cargo/config.toml cannot hold these flags for all three: a static binary needs '--target', or the
# proc-macros of the build become static too and do not load; and cargo has a name for "this
# machine's target" only since 1.91, later than the oldest version that Cargo.toml promises.
set -eu
cargo_home=${CARGO_HOME:-${HOME:-$(getent passwd "$(id -u)" | cut -d : -f 6)}/.cargo}
# The system's OpenSSL, linked in.
export OPENSSL_STATIC=1
CARGO_BUILD_TARGET=$(rustc -vV | sed -n 's/^host: //p')
export CARGO_BUILD_TARGET
# Random bytes come from the system call itself: a static binary cannot look up libc's function, and
# an empty root has no /dev/urandom to fall back to. The binary does not tell where it was built, so
# that two builds give the same bytes.
CARGO_ENCODED_RUSTFLAGS=$(printf '%s\037%s\037%s' -Ctarget-feature=+crt-static \
    '--cfg=getrandom_backend="linux_getrandom"' "--remap-path-prefix=$cargo_home=/cargo")
export CARGO_ENCODED_RUSTFLAGS
# One folder whatever a person has configured, for the Makefile takes the program from it; and the
# jobs of a make that does not share its tokens are of no use.
unset MAKEFLAGS MFLAGS
export CARGO_TARGET_DIR=target
if [ -e target ] && [ ! -w target ]; then
    echo "ERROR $PWD/target belongs to $(stat -c %U target): remove it as that user, or use a checkout of your own" >&2
    exit 1
fi
# What root builds in somebody else's checkout is its owner's: the next build is not refused.
if [ "$(id -u)" = 0 ] && [ "$(stat -c %u .)" != 0 ]; then
    status=0
    cargo "$@" || status=$?
    [ ! -e target ] || chown -hR --reference=. target
    exit "$status"
fi
exec cargo "$@"
