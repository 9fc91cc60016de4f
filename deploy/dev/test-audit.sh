#!/usr/bin/env bash
# 'make audit' says what advisories say, and fails where it has none to ask.
set -euo pipefail
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

audit() { # whether it succeeds, and what it says
    local status=0
    said=$(make -s audit CHECKS=advisories ADVISORY_DB="$work/db" 2>&1) || status=$?
    if [ "$status" = 0 ]; then status=yes; else status=no; fi
    if [ "$status" != "$1" ] || [[ $said != *"$2"* ]]; then
        echo "ERROR expected: $1, '$2'. It said:
$said" >&2
        exit 1
    fi
}
advisory() { # crate id
    mkdir -p "$work/db/crates/$1"
    # shellcheck disable=SC2016 # a fence of Markdown's
    printf '```toml\n[advisory]\nid = "%s"\npackage = "%s"\ndate = "2026-01-01"\nurl = "https://example.org"\n[versions]\npatched = []\n```\n\n# A title of %s\n\nWords.\n' \
        "$2" "$1" "$2" >"$work/db/crates/$1/$2.md"
    git -C "$work/db" add -A
    commit
}
commit() { # [date]
    GIT_COMMITTER_DATE=${1-} git -C "$work/db" -c user.name=test -c user.email=test@example.org commit -qm one --allow-empty
}

audit no "there is no advisory database in $work/db; advisories were not checked"
git init -q -b main "$work/db"
commit
audit no "is no advisory database with a branch main"
advisory a-crate-that-nobody-uses RUSTSEC-2026-9001
audit yes 'advisories ok'
# deny.toml has its reason for this one.
advisory h2 RUSTSEC-2026-0258
audit yes 'advisories ok'
commit "$(date -d '31 days ago' +%FT%T)"
audit no 'more than 30 days old'
advisory zeroize RUSTSEC-2026-9002
audit no 'A title of RUSTSEC-2026-9002'
echo 'make audit goes by the advisories at hand'
