#!/usr/bin/env bash
# Registers trust N on a hub in ECS: by a one-off task, whose kit comes through a parameter.
#
#   deploy/ecs.sh N FOLDER register-trust's options...
#
# deploy/register.sh calls it, under the number's lock. Every process inherits the lock, so that no
# other run starts while an 'aws' of a killed one is still at work.
#
#   ECS_CLUSTER          the cluster (flip-cluster)
#   ECS_SERVICE          the running service whose network the task gets (flip-api)
#   ECS_TASK_DEFINITION  the task to run (register-trust)
#   ECS_CONTAINER        its container (register-trust)
#   ECS_LAUNCH_TYPE      FARGATE
#   KIT_SINK             a command that takes the kit instead of a file in FOLDER
#   AWS_REGION, AWS_PROFILE, ... as for the AWS CLI, version 1 or 2
#
# With --check-kit it registers nothing and prints the program's word.
#
# Why no kit gets lost:
#
# 1. The parameter's name is random. It is said, and stored in a note in FOLDER, before the task is
#    started. The next run of this number reads the note, and settles what the parameter holds
#    before it starts a task of its own.
# 2. A parameter belongs to one task: every try to start it carries the same token.
# 3. A trust counts as registered only if the task's log has the receipt (the parameter's name on a
#    line of its own) and no ERROR, and the parameter holds a kit. The exit code that ECS reports
#    can be wrong and decides nothing.
# 4. The parameter is deleted only when its kit is stored durably, or is worthless.
# 5. The kit is never in a temporary file or an argument: it goes from aws through this shell's
#    memory into the file that lib.sh hands on.
set -euo pipefail
# An inherited 'set -x' would print the kit, and a core dump would hold it.
set +x
ulimit -c 0
umask 077
exec </dev/null
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

number=$1 folder=$2
shift 2
cluster=${ECS_CLUSTER:-flip-cluster} service=${ECS_SERVICE:-flip-api}
definition=${ECS_TASK_DEFINITION:-register-trust} container=${ECS_CONTAINER:-register-trust}

# Version 1 of the AWS CLI reads only the second, and version 2 prefers the first.
region=${AWS_REGION:-${AWS_DEFAULT_REGION-}}
[ -z "$region" ] || export AWS_REGION=$region AWS_DEFAULT_REGION=$region
export AWS_PAGER='' AWS_CLI_AUTO_PROMPT=off

kind=register
for argument in "$@"; do
    case $argument in
        *[[:cntrl:]]*) fail "an argument holds a control character; nothing was started" ;;
        --require-existing) kind=sync ;;
        --check-kit*) kind=check ;;
    esac
done
stage="PROD=${PROD-}"
case $kind in
    sync) again="make sync-trust-kit-$number $stage" ;;
    *) again="make register-trust-$number $stage" ;;
esac

# What is said whenever the script ends without success.
state="nothing was started" next="run '$again' again"
# shellcheck disable=SC2317 # called by the trap
leave() { # status
    trap '' INT TERM HUP
    trap - EXIT
    if [ "$1" != 0 ] && [ -n "$state" ]; then
        say "ERROR state: $state"
        say "ERROR next: $next"
    fi
    exit "$1"
}
# No 'exit' here: a signal can come while the script is already leaving.
interruptible() { trap 'say "ERROR interrupted"; leave 130' INT TERM HUP; }
trap 'leave $?' EXIT
trap '' PIPE
interruptible

# --- AWS -------------------------------------------------------------------------------------

# Runs aws. What it prints goes into 'answer', and what it complains of into 'error'.
ask() { # aws-arguments...
    local both status=0
    both=$({ aws "$@" 2>&1 >&3 3>&- | sed 's/^/aws: /' >&3; exit "${PIPESTATUS[0]}"; } 3>&1) || status=$?
    answer=$(printf '%s\n' "$both" | sed '/^aws: /d')
    error=$(printf '%s\n' "$both" | sed -n 's/^aws: *//p' | tr '[:cntrl:]' ' ')
    [ "$status" = 0 ] || : "${error:=it ended with status $status and without a word}"
    return "$status"
}

json() { # text: as a JSON string
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

# Starts the task, once, and sets 'task'. Returns 1 if it certainly was not started, and 2 if nobody
# knows; 'error' says why.
start() { # token program-arguments...
    local token=$1 argument command='' pause why='' doubt=''
    shift
    for argument in "$@"; do
        command+=${command:+,}$(json "$argument")
    done
    for pause in 0 1 2 4 8 16; do
        sleep "$pause"
        # The CLI's own tries would hide an answer that was lost behind one that was not.
        if AWS_MAX_ATTEMPTS=1 ask ecs run-task --cluster "$cluster" --task-definition "$definition" --count 1 \
            --launch-type "${ECS_LAUNCH_TYPE:-FARGATE}" --network-configuration "file://"<(printf '%s' "$network") \
            --client-token "$token" --started-by "register-trust/$token" \
            --overrides "file://"<(printf '{"containerOverrides":[{"name":%s,"command":[%s]}]}' "$(json "$container")" "$command") \
            --output text --query '[tasks[0].taskArn, failures[0].reason]'; then
            task=${answer%%$'\t'*}
            [[ $task != arn:* ]] || return 0
            error="ECS did not start it: ${answer#*$'\t'}"
            break
        fi
        why=$error
        case $error in
            *'(Throttl'* | *'Rate exceeded'* | *'(TooManyRequests'* | *'(RequestLimitExceeded'*) ;;
            *'An error occurred ('*Server* | *'An error occurred (5'* | *'An error occurred (Internal'* | \
                *'An error occurred (ServiceUnavailable'* | *'An error occurred (RequestTimeout'*) doubt=yes ;;
            *'An error occurred ('*) break ;;
            *) doubt=yes ;;
        esac
    done
    [ -n "$doubt" ] || return 1
    # A try whose answer was lost may have started it.
    ! running "$token" || return 0
    error=$why
    return 2
}

running() { # token: sets 'task' if ECS lists one that was started with it and is to run
    ask ecs list-tasks --cluster "$cluster" --started-by "register-trust/$1" \
        --output text --query 'taskArns[0]' || return 2
    task=$answer
    [[ $task == arn:* ]]
}

# Waits until the task has stopped, ten minutes at most. 'started' is empty if its container never ran;
# 'reason' is ECS's word for why it stopped.
wait_for() { # task
    local tries=0 failures=0 stopped=''
    ! ask ecs wait tasks-stopped --cluster "$cluster" --tasks "$1" || stopped=yes
    started=unknown reason=unknown
    # The waiter gives up at the first error, and does not tell the reason.
    while [ "$tries" -lt 120 ] && [ "$failures" -lt 12 ]; do
        if ask ecs describe-tasks --cluster "$cluster" --tasks "$1" --output text \
            --query 'tasks[0].[lastStatus, startedAt, containers[0].runtimeId, stoppedReason]'; then
            if [[ $answer == STOPPED$'\t'* ]]; then
                reason=${answer##*$'\t'} started=${answer#*$'\t'}
                started=${started%$'\t'*}
                [ "$started" != None$'\t'None ] || started=
                return 0
            fi
            error="after ten minutes ECS called it ${answer%%$'\t'*}" failures=0
        else
            failures=$((failures + 1))
        fi
        [ -z "$stopped" ] || return 0
        tries=$((tries + 1))
        sleep 5
    done
    return 1
}

# Reads the task's log into 'log', until it has a line that is one of these. Sets 'found' to it.
read_log() { # task line...
    local pause line stream="$log_prefix/$container/${1##*/}"
    shift
    log='' found=''
    for pause in 0 1 2 4 8; do
        sleep "$pause"
        ask logs get-log-events --log-group-name "$log_group" --log-stream-name "$stream" --start-from-head \
            --output text --query 'events[].[message]' || continue
        log=$answer
        for line in "$@"; do
            [[ $'\n'$log$'\n' != *$'\n'"$line"$'\n'* ]] || found=$line
        done
        [ -z "$found" ] || break
    done
}

show_log() { # task
    if [ -n "$log" ]; then
        printf '%s\n' "$log" | grep -vxF -- "$found" >&2 2>/dev/null || :
    else
        say "WARNING the task left no log in $log_group, $log_prefix/$container/${1##*/}${error:+: $error}"
    fi
}

# Reads the parameter into 'kit'. 'holds' is then one of: credentials, metadata, nothing (the
# verdict []), other, absent. Fails if it cannot be read.
read_parameter() {
    local pause
    # What was just written may not be seen at once.
    for pause in 0 1 2 4 8; do
        sleep "$pause"
        if ask ssm get-parameter --with-decryption --name "$parameter" --output text --query Parameter.Value; then
            kit=$answer holds=other
            if [ "$kit" = '[]' ]; then
                holds=nothing
            elif is_kit "$kit"; then
                id=$kit_id holds=metadata
                [ -z "$kit_keys" ] || holds=credentials
            fi
            return 0
        fi
        [[ $error == *ParameterNotFound* ]] || return 1
    done
    holds=absent
}

# --- The note, the kit's file, the parameter -------------------------------------------------

# Stores the kit in a file of its own, 'file', unless it is stored already.
keep() {
    local line=''
    for file in "$folder/trust-$number.json" "$folder/.trust-$number.$token"; do
        if [ -f "$file" ] && IFS= read -r line <"$file" && [ "$line" = "$kit" ] && durable "$file" "$folder"; then
            return
        fi
    done
    if ! store_line "$file" "$kit"; then
        say "ERROR the kit cannot be stored in $file"
        state="the kit is in $parameter, which $note names"
        next="make room in $folder, and run '$again' again: it takes the kit from there"
        return 1
    fi
}

# Deletes the parameter, and then the note that names it.
forget() {
    if ! ask ssm delete-parameter --name "$parameter" && [[ $error != *ParameterNotFound* ]]; then
        say "ERROR cannot delete $parameter: $error"
        say "ERROR what it holds is stored or worthless; allow ssm:DeleteParameter, and '$again' tries again"
        return 1
    fi
    rm -f -- "$note"
}

# Settles what a run that did not end has left.
settle() { # note
    local where what taken pause
    note=$1 token=${1##*.}
    { read -r parameter where what || what=''; read -r taken || taken=''; } <"$note"
    if [ -z "$what" ]; then
        # The note is not whole, so nothing was started.
        rm -f -- "$note"
        return
    fi
    if [ -n "$taken" ]; then
        forget
        return
    fi
    say "WARNING an earlier run did not end; settling what $parameter holds"
    state="an earlier run may have left a kit in $parameter ($note)"
    next="run '$again' again"
    if [ "$kind" = sync ] && [ "$what" != sync ]; then
        next="run 'make register-trust-$number $stage', which settles it"
        fail "$parameter may hold credentials, which are not for a sync"
    fi
    if [ "$where" != "$cluster" ]; then
        next="set AWS_PROFILE, AWS_REGION and ECS_CLUSTER as they were, and run '$again' again"
        fail "that run was in $where, and this one is in $cluster"
    fi
    # A task that was just started may not be listed at once.
    for pause in 0 2 4 8 16; do
        sleep "$pause"
        if running "$token"; then
            say "its task $task is running; waiting for its end"
            wait_for "$task" || fail "waiting for the task $task: $error"
            break
        elif [ "$answer" != None ]; then
            fail "cannot see whether its task is still running: $error"
        fi
    done
    read_parameter || fail "cannot read $parameter: $error"
    case $holds in
        credentials)
            keep || return
            say "WARNING $parameter held a kit with credentials, which is now in $file" ;;
        metadata | nothing) say "$parameter held no credentials" ;;
        absent) say "WARNING $parameter does not exist; if it appears later, it holds a kit that was never registered: delete it" ;;
        other) next="look at it, and delete it and $note"; fail "what $parameter holds is not a kit" ;;
    esac
    state="what $parameter held is stored or worthless; it has to be deleted"
    forget
}

# --- The run ---------------------------------------------------------------------------------

command -v aws >/dev/null || fail "there is no aws: install the AWS CLI"
# The history would hold the kit.
[ "$(aws configure get cli_history 2>/dev/null)" != enabled ] ||
    fail "cli_history is enabled in the AWS CLI's configuration, which would store the kit: disable it"

next="check AWS_PROFILE, AWS_REGION, ECS_CLUSTER and ECS_SERVICE, and allow ecs:DescribeServices"
ask ecs describe-services --cluster "$cluster" --services "$service" --output json \
    --query "services[?status=='ACTIVE'] | [0].[clusterArn, networkConfiguration]" ||
    fail "cannot look at the service $service in the cluster $cluster: $error"
pattern='"(arn:[^"]*:cluster/[^"]*)"'
[[ $answer =~ $pattern && $answer == *subnet-* ]] ||
    fail "no active service $service with a network configuration in the cluster $cluster"
cluster=${BASH_REMATCH[1]} open='{' close='}'
network=$open${answer#*"$open"} network=${network%"$close"*}$close

next="check ECS_TASK_DEFINITION and ECS_CONTAINER, and allow ecs:DescribeTaskDefinition"
ask ecs describe-task-definition --task-definition "$definition" --output text --query \
    "taskDefinition.[taskDefinitionArn, containerDefinitions[?name=='$container'] | [0].logConfiguration.options.\"awslogs-group\", containerDefinitions[?name=='$container'] | [0].logConfiguration.options.\"awslogs-stream-prefix\"]" ||
    fail "cannot look at the task definition $definition: $error"
log_prefix=${answer##*$'\t'} definition=${answer%%$'\t'*}
log_group=${answer#*$'\t'} log_group=${log_group%$'\t'*}
[[ $log_group != None && $log_prefix != None ]] ||
    fail "the container $container of $definition has no awslogs group and stream prefix: nothing would tell how the run went"
next="run '$again' again"
new_token() { cat /proc/sys/kernel/random/uuid 2>/dev/null || uuidgen; }

if [ "$kind" = check ]; then
    state="nothing was changed" next="run 'make check-kit-$number $stage' again"
    start "$(new_token)" "$@" || fail "the task was not started, or nobody knows: $error"
    say "the task $task asks the hub"
    wait_for "$task" || fail "waiting for the task $task: $error"
    read_log "$task" valid worthless unknown
    show_log "$task"
    printf '%s\n' "${found:-unknown}"
    state=''
    [ "$found" = valid ]
    exit
fi

for note in "$folder/.task-$number".*; do
    [ ! -e "$note" ] || settle "$note" || exit 1
done
state="nothing was started" next="run '$again' again"
left_kits "$number" "$folder"
for file in ${left[@]+"${left[@]}"}; do
    say "WARNING an earlier run left the kit $file; 'make check-kit-$number $stage' tells whether it is valid"
done

token=$(new_token)
parameter=/flip/trust-kits/ephemeral/$number-$token note=$folder/.task-$number.$token
say "the kit of trust $number will come through $parameter (noted in $note)"
store_line "$note" "$parameter $cluster $kind" || fail "the note $note cannot be stored"
state="nobody knows whether the trust is registered; $parameter may hold its kit, or come to hold it ($note)"
next="run '$again' again: it settles that first"

start "$token" "$@" "--out-ssm-parameter=$parameter" || {
    status=$?
    if [ "$status" = 1 ]; then
        rm -f -- "$note"
        state="no task was started; nothing was registered"
        next="check the task definition, allow ecs:RunTask and iam:PassRole, and run '$again' again"
    fi
    fail "cannot start the task: $error"
}
say "the task $task runs $definition"
wait_for "$task" || fail "waiting for the task $task: $error"
read_log "$task" "$parameter"
show_log "$task"
read_parameter || {
    next="allow ssm:GetParameter on it, and kms:Decrypt, and run '$again' again"
    fail "cannot read $parameter: $error"
}
# The log is read once more: stdout and stderr reach it separately, so a failed run's receipt can be
# there before its ERROR.
if [ "$holds" = credentials ] && [ -n "$found" ]; then
    seen=$log
    read_log "$task" "$parameter"
    [ "$log" = "$seen" ] || show_log "$task"
fi
wrong=''
[ -n "$found" ] || wrong="without its receipt"
[[ $'\n'$log != *$'\n'ERROR* ]] || wrong="beside an ERROR"

case $holds in
    absent)
        if [ -z "$started$log" ]; then
            rm -f -- "$note"
            state="the task ended before its container ran; nothing was registered" next="run '$again' again"
        fi
        fail "the task left no kit${found:+, though it printed the receipt}; ECS says why it stopped: $reason" ;;
    other) next="look at it, and delete it and $note"; fail "what $parameter holds is not a kit" ;;
    nothing)
        state="this run registered nothing"
        if [ -n "$found" ]; then
            forget || :
            next="correct what the task's lines above say, and run '$again' again"
        else
            state+="; $parameter may still come to hold a kit, which was never registered ($note)"
        fi
        fail "the trust was not registered" ;;
    metadata)
        if [ -n "$wrong" ]; then
            forget || :
            state="nothing is lost: the kit had no credentials" next="run '$again' again"
            fail "the task left a kit $wrong"
        fi ;;
esac

# From here on the kit is in this shell as well. A signal waits until it is stored.
trap '' INT TERM HUP
keep || exit 1
[ "$holds" != credentials ] || [ "$kind" != sync ] || wrong="with credentials"
if [ -n "$wrong" ]; then
    forget || :
    state="nobody knows whether that kit, now in $file, is valid"
    next="'make check-kit-$number $stage' tells; 'make register-trust-$number $stage' hands it on if it is"
    fail "the task left a kit $wrong"
fi
status=0
if finish "$file" "$number" "$folder"; then
    state="the kit is handed on; $parameter has to be deleted"
else
    status=1 state="the valid kit is in $file"
fi
next="correct what the line above says, and run '$again' again"
interruptible
echo taken >>"$note"
if forget; then state="the kit is handed on"; else status=1; fi
# Only a run that registers hands credentials on.
[ "$holds$kind" != metadataregister ] || pick_up "$number" "$folder" "$id" || status=1
trap '' INT TERM HUP
exit "$status"
