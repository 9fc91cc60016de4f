#!/usr/bin/env bash
# Makes a release in two fresh clones in two folders and compares the bytes.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for folder in one "another/deeper folder"; do
    git clone -q . "$work/$folder"
    make -s -C "$work/$folder" release TOOLS="$PWD/target/tools"
    cp "$work/$folder"/target/release-*/SHA256SUMS "$work/${folder%%/*}.sums"
done
diff "$work/one.sums" "$work/another.sums" || { echo 'ERROR the builds differ' >&2; exit 1; }
