#!/usr/bin/env bash
# Registers trust N and leaves its kit in a file that only its owner can read.
#
#   deploy/register.sh N [register-trust's options]
#   deploy/register.sh N --check-kits    tell what the kits of trust N that are here are worth
#   deploy/register.sh --numbers         list the numbers that have a name
#
# The trust is described by TRUST_<N>_NAME, TRUST_<N>_CODE and TRUST_<N>_REGION, in the environment
# or else in the stage's file, such as .env.development. The hub is, in this order:
#
#   PROD=stag|true|<stage>   in ECS: a one-off task (deploy/ecs.sh)
#   HUB=compose              in a compose project: its container SERVICE (flip-api), where the
#                            program is COMMAND (/opt/register-trust/register-trust; see
#                            deploy/compose.yaml); COMPOSE_FILE and COMPOSE_PROJECT_NAME count
#   DB_HOST=...              where it says
#   otherwise                the embedded development hub in HUB_DIR (.hub)
#
# The kit goes to KITS (kits; deploy/lib.sh says under which name), or into the shell command
# KIT_SINK if that is set: it reads the kit on stdin, and finds TRUST_NUMBER, TRUST_NAME, TRUST_CODE
# and TRUST_REGION in its environment. Its exit status 0 must mean that it has stored the kit durably.
set -euo pipefail
# An inherited 'set -x' would print the kit, and a core dump would hold it.
set +x
ulimit -c 0
umask 077
# First: it takes away what an inherited shell would change below.
here=$(dirname "$0")
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$here/lib.sh"
here=$(cd "$here" && pwd)

numbers() {
    local variable
    { for variable in ${!TRUST_@}; do echo "$variable=${!variable:+set}"; done && trust_lines; } |
        LC_ALL=C sed -n 's/^TRUST_\([0-9][0-9]*\)_NAME=..*/\1/p' | sort -n | uniq
}

described() { # field: prints what is set for it
    local LC_ALL=C variable=TRUST_${number}_$1
    [[ ${!variable-} != *[[:cntrl:]]* ]] || fail "$variable holds a line break or another control character"
    if [ -n "${!variable-}" ]; then printf '%s' "${!variable}"; else from_file "$variable"; fi
}

# Sets 'program': how the program is called in the hub's home.
find_program() {
    local hub key value
    if [ -n "${PROD-}" ]; then
        program=("$here/ecs.sh" "$number" "$folder")
        return
    fi
    case ${HUB-} in
        compose)
            command -v docker >/dev/null || command -v docker-compose >/dev/null || fail "HUB=compose needs docker"
            program=(docker compose)
            docker compose version >/dev/null 2>&1 || program=(docker-compose)
            program+=(exec -T "${SERVICE:-flip-api}" "${COMMAND:-/opt/register-trust/register-trust}")
            ;;
        '')
            program=("$here/../target/release/register-trust")
            [ -z "${DB_HOST-}" ] || return 0
            hub=${HUB_DIR:-.hub}
            "$here/dev/hub.sh" start "$hub" 8>&-
            while IFS='=' read -r key value; do
                export "$key=$value"
            done <"$hub/env"
            ;;
        *) fail "HUB is '$HUB', not compose" ;;
    esac
}

# Prints the text that a JSON string stands for. Fails on control characters: no registered name
# has one.
unescape() { # json
    local LC_ALL=C rest=$1 text='' code
    while [[ $rest == *\\* ]]; do
        text+=${rest%%\\*} rest=${rest#*\\}
        case $rest in
            [\"\\/]*) text+=${rest:0:1} rest=${rest:1} ;;
            u00[01]* | [!u]*) return 1 ;;
            *)
                code=$((16#${rest:1:4})) rest=${rest:5}
                if ((code >= 0xd800 && code < 0xdc00)); then
                    code=$((0x10000 + (code - 0xd800) * 0x400 + 16#${rest:2:4} - 0xdc00)) rest=${rest:6}
                fi
                if ((code < 0x80)); then set -- "$code"
                elif ((code < 0x800)); then set -- $((0xc0 | code >> 6)) $((0x80 | code & 0x3f))
                elif ((code < 0x10000)); then set -- $((0xe0 | code >> 12)) $((0x80 | code >> 6 & 0x3f)) $((0x80 | code & 0x3f))
                else set -- $((0xf0 | code >> 18)) $((0x80 | code >> 12 & 0x3f)) $((0x80 | code >> 6 & 0x3f)) $((0x80 | code & 0x3f))
                fi
                # shellcheck disable=SC2059 # the inner one makes the format: octal escapes
                text+=$(printf "$(printf '\\%03o' "$@")")
                ;;
        esac
    done
    printf '%s' "$text$rest"
}

# Prints what the hub says of the kit that look_at has seen: valid, worthless or unknown.
worth() {
    local name answer=''
    if name=$(unescape "$kit_name"); then
        answer=$("${program[@]}" "--name=$name" "--check-kit=$kit_id" </dev/null 8>&-) || :
    fi
    answer=${answer%$'\r'}
    case ${answer##*$'\n'} in
        valid | worthless) printf '%s\n' "${answer##*$'\n'}" ;;
        *)
            [[ $answer == '' || $answer == unknown ]] || say "$answer"
            echo unknown
            ;;
    esac
}

check_kits() {
    local file word seen=''
    for file in "$folder/trust-$number.json"* "$folder/.trust-$number".*; do
        [ -s "$file" ] || continue
        look_at "$file" || { say "WARNING $file holds no whole kit"; continue; }
        [ -n "$kit_keys" ] || continue
        word=$(worth)
        printf '%s %s\n' "$file" "$word"
        seen+=" $word"
    done
    for file in "$folder/.task-$number".*; do
        [ ! -e "$file" ] || say "WARNING a run of trust $number did not end, and its kit may be where $file says; the next 'make register-trust-$at' settles it"
    done
    [ -n "$seen" ] || fail "no kit with credentials of trust $number is in $folder"
    [[ $seen == *valid* && $seen != *unknown* ]]
}

# Shows what else came on the program's stdout, but nothing that can be a part of a kit.
show() { # line
    if [[ $1 == *'[{'* || (-n $id && $1 == *'"'*) ]]; then
        say "WARNING the program's stdout had a line of ${#1} bytes that may hold a part of a kit; it is not shown"
    else
        say "${1//[[:cntrl:]]/?}"
    fi
}

# Reads the program's stdout, stores the kit, acknowledges it on descriptor 3, which is the program's
# stdin, and goes by the verdict: 0 the receipt, 3 '[]', 1 neither. It outlives every signal but KILL.
converse() { # file
    trap '' INT TERM HUP QUIT PIPE
    local LC_ALL=C line id='' verdict=1 kit='[{"trust_id":"'
    echo go >&3
    while IFS= read -r line; do
        line=${line%$'\r'}
        if [ -z "$id" ] && is_kit "$line"; then
            # An engine can put bytes of its own before the kit.
            [[ $line == "$kit"* ]] || show "${line%%"$kit"*}"
            id=$kit_id
            if store_line "$1" "$kit${line#*"$kit"}" 3>&- 8>&-; then
                printf '%s\n' "$id" >&3
            else
                say "ERROR the kit cannot be stored in $1"
                exec 3>&-
            fi
        elif [[ -n $id && $line == "$id" ]]; then verdict=0
        elif [[ $line == '[]' ]]; then [ "$verdict" = 0 ] || verdict=3
        else show "$line"
        fi
    done
    [ -z "$line" ] || show "$line"
    return "$verdict"
}

# Becomes the program once the reader of its stdout is there. If that or the script is killed before,
# nothing is started.
start() { # command...
    exec 4<>"$ack"
    read -r -t 10 _ <&4 || exit 1
    exec "$@" <"$ack" 4>&-
}

if [ "${1-}" = --numbers ]; then
    numbers=$(numbers)
    [ -n "$numbers" ] || fail "no TRUST_<n>_NAME is set, nor in $(env_file)"
    printf '%s\n' "$numbers"
    exit
fi
number=${1-}
[[ $number =~ ^[0-9]+$ ]] || fail "'$number' is not a trust's number; usage: deploy/register.sh N [OPTION]..."
shift
folder=$(kits_folder)
# How the operator calls make for this trust.
at=$number${PROD:+ PROD=$PROD}${HUB:+ HUB=$HUB}
[ -z "${KITS-}" ] || printf -v at '%s KITS=%q' "$at" "$KITS"
if [ "$*" = --check-kits ]; then
    find_program
    check_kits
    exit
fi
name=$(described NAME)
code=$(described CODE)
region=$(described REGION)
[ -n "$name" ] || fail "TRUST_${number}_NAME is not set, neither in the environment nor in $(env_file)"
arguments=("--name=$name" "--code=$code" "--region=$region" "$@")
export TRUST_NUMBER=$number TRUST_NAME=$name TRUST_CODE=$code TRUST_REGION=$region

make_folder "$folder" || fail "the folder $folder cannot be made, or cannot be synced"
lock_number "$number" "$folder"
find_program
[ -z "${PROD-}" ] || exec "${program[@]}" "${arguments[@]}"

left_kits "$number" "$folder"
for file in ${left[@]+"${left[@]}"}; do
    look_at "$file"
    say "WARNING an earlier run left $file, the kit of the trust $kit_id: $(worth)"
done

ack=$folder/.ack-trust-$number
rm -f -- "$ack"
if ! { new=$(new_file "$number" "$folder") && mkfifo -- "$ack"; }; then
    fail "no file can be made in $folder; nothing was registered for trust $number"
fi

# The handlers do nothing here, and leave the program its own.
trap : INT TERM HUP QUIT PIPE
# The verdict alone counts, also where Ctrl-C between the two forks leaves one status in PIPESTATUS.
set +o pipefail
start "${program[@]}" "${arguments[@]}" --await-ack 8>&- | converse "$new" 3<>"$ack" &&
    ended=(0 0) || ended=("$?" "${PIPESTATUS[@]}")
# Nothing that follows may be cut short.
trap '' INT TERM HUP QUIT PIPE
rm -f -- "$ack"

look_at "$new" || kit_keys=''
case ${ended[0]} in
    0)
        status=0 id=$kit_id
        # Only a run that registers hands credentials on.
        if [ -z "$kit_keys" ] && [[ " $* " != *' --require-existing '* ]]; then
            pick_up "$number" "$folder" "$id" || status=1
        fi
        finish "$new" "$number" "$folder" || status=1
        exit "$status"
        ;;
    3)
        rm -f -- "$new"
        fail "nothing was registered for trust $number"
        ;;
esac
if [ -n "$kit_keys" ]; then
    say "ERROR the run ended (exit status ${ended[1]}) without a verdict: it is not known whether trust $number is registered"
    say "ERROR its kit stays in $new; keep it"
    fail "next: 'make check-kit-$at' tells whether it is valid; 'make register-trust-$at' picks it up if it is"
fi
# Without a kit there was no acknowledgement, and without that no registration.
rm -f -- "$new"
say "ERROR the run ended (exit status ${ended[1]}) without a kit; nothing was registered for trust $number"
if [ "${ended[1]}" = 2 ] &&
    grep -qF "invalid option '--await-ack'" <<<"$("${program[@]}" --await-ack --version </dev/null 2>&1)"; then
    say "ERROR next: ${program[*]} is too old to wait for an acknowledgement; put this version there (for compose see deploy/compose.yaml)"
elif [ "${HUB-}" = compose ] && [[ ${ended[1]} =~ ^(1|126|127)$ ]]; then
    say "ERROR next: see the lines above; if there are none, compose found no container: check COMPOSE_FILE, COMPOSE_PROJECT_NAME and SERVICE, and that 'docker compose up -d' ran with deploy/compose.yaml"
fi
exit 1
