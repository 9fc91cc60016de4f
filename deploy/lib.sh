# shellcheck shell=bash
# What the deploy scripts share.

# A person's own shell must not change what these scripts read, print or start. A file that is opened
# while 0, 1 or 2 is closed would become one of them.
unset CDPATH BASH_ENV GREP_OPTIONS POSIXLY_CORRECT
{ : >&2; } || exec 2>/dev/null
{ : <&0; } 2>/dev/null || exec </dev/null
{ : >&1; } 2>/dev/null || exec >/dev/null

say() { printf '%s\n' "$*" >&2; }
fail() { say "ERROR $*"; exit 1; }

# The file that trusts are described in, by PROD.
env_file() {
    case ${PROD-} in
        '') echo .env.development ;;
        stag) echo .env.stag ;;
        true) echo .env.production ;;
        *) fail "PROD is '$PROD', not stag or true" ;;
    esac
}

# TRUST_<n>_<field> as it stands in the file; one pair of quotes around it is taken off.
from_file() { # variable
    local line
    [ -r "$(env_file)" ] || return 0
    line=$(grep -m 1 "^$1=" "$(env_file)") || return 0
    line=${line#*=}
    line=${line%$'\r'}
    case $line in
        \"*\") line=${line#?} line=${line%?} ;;
        \'*\') line=${line#?} line=${line%?} ;;
    esac
    printf '%s' "$line"
}

# Hands the kit in the file $1 on: into the command KIT_SINK, or under the name of trust $2 into the
# folder $3, synced before it gets its name. No kit with credentials is ever overwritten. The file
# stays as it is; where this fails it still holds the kit.
hand_on() { # file number folder
    if [ -n "${KIT_SINK-}" ]; then
        bash -c "$KIT_SINK" <"$1"
        return
    fi
    local kit=$3/trust-$2.json new
    new=$(mktemp "$3/.trust-$2.XXXXXX") || return
    if ! { cp "$1" "$new" && sync "$new"; }; then
        rm -f "$new"
        return 1
    fi
    if ! grep -q '"trust_api_key":' "$1"; then
        kit=$3/trust-$2.metadata.json
    elif [ -e "$kit" ]; then
        mv --backup=numbered -T "$kit" "$kit.old" || return
        say "an earlier kit is kept as $kit.old"
    fi
    mv -T "$new" "$kit" && sync "$3" || return
    say "the kit is in $kit"
}
