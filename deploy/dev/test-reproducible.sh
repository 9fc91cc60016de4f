#!/usr/bin/env bash
# Builds the static binary from two fresh clones in two folders and compares the bytes.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for folder in one "another/deeper folder"; do
    git clone -q . "$work/$folder"
    make -s -C "$work/$folder" static
done
sha256sum "$work"/*/target/*/release/register-trust "$work"/*/*/target/*/release/register-trust | tee "$work/sums"
[ "$(cut -d ' ' -f 1 "$work/sums" | sort -u | wc -l)" = 1 ] || { echo 'ERROR the builds differ' >&2; exit 1; }
