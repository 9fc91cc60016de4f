#!/usr/bin/env bash
# Makes a release: the program, what it is made of, and their checksums. Two runs with the same commit,
# toolchain, OpenSSL and glibc make the same bytes.
#
#   deploy/dev/release.sh            prints the folder
#   deploy/dev/release.sh --check    only fails unless everything is committed; prints the version
#
#   ALLOW_DIRTY=yes    releases changes that are not committed, too; the version then ends with -dirty
set -euo pipefail
cd "$(dirname "$0")/../.."
fail() { echo "ERROR $*" >&2; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
changes=$(git status --porcelain) || fail "git does not say what is committed here: release from a clone"
if [ -n "$changes" ]; then
    [ "${ALLOW_DIRTY-}" = yes ] || fail "a release is made of what is committed, and this is not:
$changes
ERROR next: commit it, or set ALLOW_DIRTY=yes for a release that nobody can make again"
    version=$version-dirty
fi
if [ "${1-}" = --check ]; then
    echo "$version"
    exit
fi

program=$(deploy/dev/ship.sh)
make -s sbom
name=register-trust-$version-$(rustc -vV | sed -n 's/^host: //p')
folder=target/release-$version
rm -rf "$folder"
mkdir "$folder"
cp "$program" "$folder/$name"
cp target/sbom.json "$folder/$name.cdx.json"
(cd "$folder" && sha256sum -- * >../SHA256SUMS.new && mv ../SHA256SUMS.new SHA256SUMS)
rustc --version
git log -1 --format='commit %H'
cat "$folder/SHA256SUMS"
echo "$folder"
