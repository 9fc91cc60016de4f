# shellcheck shell=bash
# What the deploy scripts share; for bash 3.2 (macOS) and later.
#
# Where kits are, FOLDER being KITS for development and KITS/<stage> for every other stage, such as
# KITS/stag and KITS/production:
#
#   FOLDER/.trust-<n>.XXXXXX        a kit on its way, or one that an earlier run left
#   FOLDER/trust-<n>.json           the kit with credentials
#   FOLDER/trust-<n>.metadata.json  the latest kit without
#
# A kit's way: new_file before the program runs, store_line before the acknowledgement, finish
# after the receipt. Only one run of a number is on its way: lock_number.

# A person's own shell must not change what these scripts read, print or start. A file that is opened
# while 0, 1 or 2 is closed would become one of them.
unset CDPATH BASH_ENV GREP_OPTIONS POSIXLY_CORRECT
{ : >&2; } || exec 2>/dev/null
{ : <&0; } 2>/dev/null || exec </dev/null
{ : >&1; } 2>/dev/null || exec >/dev/null

# A dead terminal stops nothing.
say() { printf '%s\n' "$*" >&2 2>/dev/null || :; }
fail() { say "ERROR $*"; exit 1; }

# --- What the operator has set ---------------------------------------------------------------

stage() { # prints the stage that PROD names
    case ${PROD-} in
        '') echo development ;;
        true) echo production ;;
        *[!A-Za-z0-9_-]*) fail "PROD is '$PROD', which is not a plain word such as stag or true" ;;
        *) printf '%s\n' "$PROD" ;;
    esac
}

env_file() {
    local stage
    stage=$(stage) && printf '.env.%s\n' "$stage"
}

kits_folder() {
    local stage folder=${KITS:-kits}
    stage=$(stage) || return
    [[ $folder != -* ]] || folder=./$folder
    [ "$stage" = development ] || folder=$folder/$stage
    printf '%s\n' "$folder"
}

# Prints TRUST_<n>_<field>=<value> for every such line of the stage's file, as make's include,
# docker compose and python-dotenv read it. Nothing is evaluated.
trust_lines() {
    local LC_ALL=C file line value count=0
    local variable='TRUST_[0-9]+_(NAME|CODE|REGION)'
    local looks="^[[:space:]]*(export[[:space:]]+)?($variable)([^A-Za-z0-9_].*)?\$"
    local assigns='^[[:space:]]*=(.*)$' opens="^[[:space:]]*[\"']"
    local quoted="^[[:space:]]*(\"([^\"\\]*)\"|'([^'\\]*)')[[:space:]]*(#.*)?\$"
    file=$(env_file) || return
    [ -e "$file" ] || return 0
    [ -r "$file" ] || fail "$file cannot be read"
    while IFS= read -r line || [ -n "$line" ]; do
        count=$((count + 1))
        [ "$count" != 1 ] || line=${line#$'\xef\xbb\xbf'}
        line=${line%$'\r'}
        [[ $line =~ $looks ]] || continue
        variable=${BASH_REMATCH[2]}
        [[ ${BASH_REMATCH[4]} =~ $assigns ]] || fail "$file, line $count: $variable is not followed by '='"
        value=${BASH_REMATCH[1]}
        if [[ $value =~ $quoted ]]; then
            value=${BASH_REMATCH[2]}${BASH_REMATCH[3]}
        elif [[ $value =~ $opens ]]; then
            fail "$file, line $count: the quotes of $variable cannot be read; a quoted value may hold neither a backslash nor the kind of quote that is around it"
        else
            value=${value%%[[:space:]]#*}
            value=${value#"${value%%[![:space:]]*}"}
            value=${value%"${value##*[![:space:]]}"}
        fi
        printf '%s=%s\n' "$variable" "$value"
    done <"$file"
}

from_file() { # variable: its value, which is that of the last line if there are several
    local lines line value=''
    lines=$(trust_lines) || return
    while IFS= read -r line; do
        [[ $line != "$1="* ]] || value=${line#*=}
    done <<<"$lines"
    printf '%s' "$value"
}

# --- Kits on the disk ------------------------------------------------------------------------

# Returns when these files and folders will outlast a power failure. macOS has no 'sync FILE', and
# its fsync does not reach the platter, as F_FULLFSYNC (51) does.
durable() { # file-or-folder...
    case $OSTYPE in
        linux*) sync -- "$@" ;;
        *) perl -MIO::Handle -e 'for (@ARGV) {
            my $f; open($f, "<", $_) && (fcntl($f, 51, 0) || $f->sync) or die "cannot sync $_: $!\n" }' -- "$@" ;;
    esac
}

# Makes the folder, owner-only, and whatever of it may be new durable: a run that was killed here
# can have made it.
make_folder() { # folder
    local part=$1
    mkdir -p -- "$1" || return
    while [ -w "$part" ]; do
        durable "$part" || return
        case $part in
            / | .) break ;;
            */*) part=${part%/*} part=${part:-/} ;;
            *) part=. ;;
        esac
    done
}

# Waits until no other run of this number is on its way. Descriptor 8 holds the lock; a process
# that may outlive the run has to close it.
lock_number() { # number folder
    command -v flock >/dev/null || command -v perl >/dev/null || fail "there is neither flock nor perl: install one"
    case $OSTYPE in
        linux*) ;;
        *) command -v perl >/dev/null || fail "there is no perl, which syncs files here: install it" ;;
    esac
    exec 8>>"$2/.lock-trust-$1" || fail "$2/.lock-trust-$1 cannot be opened"
    lock_8 nonblocking || {
        say "waiting for another run of trust $1"
        lock_8
    }
}
lock_8() {
    if command -v flock >/dev/null; then
        flock ${1:+-n} 8
    else
        # The lock belongs to the open file, which this shell keeps when perl ends.
        perl -e 'use Fcntl ":flock"; open(my $f, ">&=", 8) or die; exit !flock($f, @ARGV ? LOCK_EX | LOCK_NB : LOCK_EX)' -- "$@"
    fi
}

new_file() { # number folder: prints the name of a new empty file, readable by its owner alone
    (umask 077 && mktemp "$2/.trust-$1.XXXXXX")
}

# Writes a kit's line into its file. Fails unless it will outlast a power failure.
store_line() { # file line
    local back
    printf '%s\n' "$2" >"$1" && durable "$1" "$(dirname "$1")" || return
    IFS= read -r back <"$1" && [ "$back" = "$2" ]
}

# Takes a line that is a whole kit apart: kit_id, kit_name (as JSON has it) and, if it has
# credentials, kit_keys.
# shellcheck disable=SC2034 # kit_name is for register.sh
is_kit() { # line
    local LC_ALL=C
    local kit='\[\{"trust_id":"([0-9A-Za-z-]+)","trust_name":"(([^"\]|\\.)*)",(.*)\}\]$'
    kit_id='' kit_name='' kit_keys=''
    [[ $1 =~ $kit ]] || return
    kit_id=${BASH_REMATCH[1]} kit_name=${BASH_REMATCH[2]}
    [[ ${BASH_REMATCH[4]} != '"trust_api_key":"'* ]] || kit_keys=yes
}

# Does the same with the kit in a file. Fails if the file holds no whole kit.
look_at() { # file
    local line
    kit_id='' kit_keys=''
    while IFS= read -r line || [ -n "$line" ]; do
        ! is_kit "$line" || return 0
    done <"$1"
    return 1
} 2>/dev/null

# Hands a durable kit on: into the command KIT_SINK, or to its final name. Only then does the file's
# own name go. Fails if the kit stays in the file, and names it.
finish() { # file number folder
    local final=$3/trust-$2.json what=kit
    look_at "$1" || { say "ERROR $1 holds no whole kit"; return 1; }
    if [ -n "${KIT_SINK-}" ]; then
        # Ctrl-C stops the command, and not this script.
        if trap : INT TERM HUP QUIT PIPE && ! bash -o pipefail -c "$KIT_SINK" <"$1" 8>&-; then
            say "ERROR KIT_SINK failed; the kit stays in $1"
            return 1
        fi
        trap '' INT TERM HUP QUIT PIPE
        rm -f -- "$1"
        say "KIT_SINK has taken the kit of trust $2"
        return
    fi
    if [ -z "$kit_keys" ]; then
        final=$3/trust-$2.metadata.json what='kit without credentials'
        if [ -d "$final" ] || { look_at "$final" && [ -n "$kit_keys" ]; }; then
            say "ERROR $final is in the way; the kit, which has no credentials, stays in $1"
            return 1
        fi
        # Nothing is lost here: every run gets such a kit again.
        if ! { mv -f -- "$1" "$final" && durable "$3"; }; then
            say "ERROR the kit, which has no credentials, cannot be named $final"
            return 1
        fi
    elif [ -e "$final" ] && ! cmp -s -- "$1" "$final"; then
        say "ERROR $final holds another kit; the kit of the trust $kit_id stays in $1"
        return 1
    elif { [ -e "$final" ] || ln -- "$1" "$final"; } && durable "$final" "$3"; then
        rm -f -- "$1"
    else
        say "ERROR the kit of the trust $kit_id cannot be named $final; it stays in $1"
        return 1
    fi
    say "the $what is in $final"
}

# Finds the kits with credentials that earlier runs of this number left, as the array 'left', and
# removes what is worth nothing. To be called under the number's lock.
left_kits() { # number folder
    local file
    left=()
    for file in "$2/.trust-$1".*; do
        [ -f "$file" ] || continue
        if look_at "$file"; then
            if [ -n "$kit_keys" ]; then
                left+=("$file")
            else
                say "removing $file, a kit without credentials that an earlier run left"
                rm -f -- "$file"
            fi
        elif [ ! -s "$file" ]; then
            rm -f -- "$file"
        elif grep -qF '[{"trust_' "$file" && ! grep -qF '}]' "$file"; then
            # Only a whole kit is ever acknowledged.
            say "removing $file, the beginning of a kit that was never registered"
            rm -f -- "$file"
        else
            say "WARNING $file holds no kit; an earlier run left it"
        fi
    done
}

# The trust of this number is registered under this id: hands that one of the kits in 'left' on.
pick_up() { # number folder id
    local file status=0
    for file in ${left[@]+"${left[@]}"}; do
        look_at "$file" || continue
        [ "$kit_id" = "$3" ] || continue
        say "$file, which an earlier run left, is the valid kit of the trust $3"
        finish "$file" "$1" "$2" || status=1
    done
    return "$status"
}
