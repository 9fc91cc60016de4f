#!/bin/sh
# cargo with the flags of the one binary that is tested, measured and shipped. The Makefile and the
# Dockerfile both call it. A bare 'cargo build' works too, but links against this machine's libraries.
#
# .cargo/config.toml cannot hold these flags for all three: a static binary needs '--target', or the
# proc-macros of the build become static too and do not load; and cargo has a name for "this
# machine's target" only since 1.91, later than the oldest version that Cargo.toml promises.
set -eu
cargo_home=${CARGO_HOME:-$HOME/.cargo}
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
exec cargo "$@"
