#!/usr/bin/env bash
# Registers a trust on a hub in ECS: one one-off task, its kit through an ephemeral parameter.
#
#   deploy/ecs.sh N KITS register-trust's options...
#
#   ECS_CLUSTER          the cluster (flip)
#   ECS_SERVICE          the running service whose network the task gets (flip-api)
#   ECS_TASK_DEFINITION  the task to run (register-trust)
#   ECS_CONTAINER        its container (register-trust)
#   KIT_SINK             a command that takes the kit instead of a file in KITS
#   AWS_REGION, AWS_PROFILE, ... as for the AWS CLI
#
# A trust counts as registered only with both: the receipt, which is the parameter's name on the
# task's stdout, and a kit in the parameter. The exit code that ECS reports can be wrong and
# decides nothing. The parameter is deleted on every way out, except where it holds, or may come
# to hold, the only copy of a kit.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

number=$1 kits=$2
shift 2
cluster=${ECS_CLUSTER:-flip} service=${ECS_SERVICE:-flip-api}
definition=${ECS_TASK_DEFINITION:-register-trust} container=${ECS_CONTAINER:-register-trust}

umask 077
work=$(mktemp -d)
parameter=/flip/trust-kits/ephemeral/$number-$(cat /proc/sys/kernel/random/uuid)
# What the parameter is worth: 'nothing' (delete it), or why it stays.
worth=nothing

# shellcheck disable=SC2317 # called by the trap
clean_up() {
    local status=$?
    trap - EXIT INT TERM HUP
    if [ "$worth" != nothing ]; then
        say "ERROR $worth"
        say "ERROR next: read it (aws ssm get-parameter --with-decryption --name $parameter), then delete it"
        [ "$status" != 0 ] || status=1
    elif [ -n "${started-}" ] && ! aws ssm delete-parameter --name "$parameter" >/dev/null 2>"$work/error"; then
        if ! grep -q ParameterNotFound "$work/error"; then
            say "ERROR cannot delete $parameter: $(tail -n 1 "$work/error")"
            say "ERROR next: delete it by hand; the role that deploys needs ssm:DeleteParameter on it"
            status=1
        fi
    fi
    rm -rf "$work"
    exit "$status"
}
trap clean_up EXIT
trap 'say "ERROR interrupted"; exit 130' INT TERM HUP

# Asks AWS; what fails is said with AWS's own words and what to do.
ask() { # what-to-do-next aws-arguments...
    local next=$1
    shift
    if ! aws "$@" 2>"$work/error"; then
        say "ERROR aws $1 $2: $(grep -v '^$' "$work/error" | tail -n 1)"
        say "ERROR next: $next"
        return 1
    fi
}

json() { # text: as a JSON string
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

command -v aws >/dev/null || fail "there is no aws: install the AWS CLI"
for argument in "$@"; do
    [[ $argument != *[[:cntrl:]]* ]] || fail "an argument holds a control character"
done

network=$(ask "check AWS_PROFILE, AWS_REGION and ECS_CLUSTER, and allow ecs:DescribeServices" \
    ecs describe-services --cluster "$cluster" --services "$service" --output json \
    --query "services[?status=='ACTIVE'] | [0].networkConfiguration") || exit 1
case $network in
    *subnet-*) ;;
    null | '') fail "no active service $service with a network configuration in cluster $cluster; set ECS_SERVICE" ;;
    *) fail "the service $service has no subnets: $network" ;;
esac
logs=$(ask "check ECS_TASK_DEFINITION, and allow ecs:DescribeTaskDefinition" \
    ecs describe-task-definition --task-definition "$definition" --output text \
    --query "taskDefinition.containerDefinitions[?name=='$container'] | [0].logConfiguration.options.[\"awslogs-group\",\"awslogs-stream-prefix\"]") || exit 1
read -r log_group log_prefix <<<"$logs" || true
[[ -n ${log_prefix-} && $log_group != None && $log_prefix != None ]] ||
    fail "the container $container of $definition has no awslogs group and stream prefix: nothing would tell how the run went"

command=
for argument in "$@" "--out-ssm-parameter=$parameter"; do
    command+=${command:+,}$(json "$argument")
done
printf '{"containerOverrides":[{"name":%s,"command":[%s]}]}' "$(json "$container")" "$command" >"$work/overrides"
printf '%s' "$network" >"$work/network"
say "running $definition in $cluster for trust $number"
started=yes
worth="it is not known how far the task got; $parameter may hold, or come to hold, the only copy of a kit"
task=$(ask "check the task definition, and allow ecs:RunTask and iam:PassRole" \
    ecs run-task --cluster "$cluster" --task-definition "$definition" --count 1 \
    --launch-type "${ECS_LAUNCH_TYPE:-FARGATE}" --started-by register-trust \
    --network-configuration "file://$work/network" --overrides "file://$work/overrides" \
    --output text --query '[tasks[0].taskArn, failures[0].reason]') || {
    # Only a plain refusal means that no task was started.
    if grep -q 'An error occurred (' "$work/error" && ! grep -q 'Server' "$work/error"; then
        worth=nothing
    fi
    exit 1
}
read -r arn reason <<<"$task"
[ "$arn" != None ] || { worth=nothing; fail "ECS did not start the task: $reason"; }
ask "look at the task $arn in the console" ecs wait tasks-stopped --cluster "$cluster" --tasks "$arn" || exit 1

# The receipt can reach the log after the task is gone.
stream=$log_prefix/$container/${arn##*/}
receipt=
for pause in 0 1 2 4 8; do
    sleep "$pause"
    if aws logs get-log-events --log-group-name "$log_group" --log-stream-name "$stream" --start-from-head \
        --output text --query 'events[].[message]' >"$work/log" 2>"$work/error"; then
        if grep -qxF "$parameter" "$work/log"; then
            receipt=yes
            break
        fi
        ! grep -q '^ERROR' "$work/log" || break
    fi
done
[ -s "$work/log" ] || say "WARN no log in $log_group, $stream: $(tail -n 1 "$work/error")"
grep '^ERROR' "$work/log" >&2 || true
grep '^WARN' "$work/log" >&2 || true

if ! aws ssm get-parameter --with-decryption --name "$parameter" --output text --query Parameter.Value \
    >"$work/kit" 2>"$work/error"; then
    if grep -q ParameterNotFound "$work/error"; then
        worth=nothing
        reason=$(aws ecs describe-tasks --cluster "$cluster" --tasks "$arn" --output text \
            --query 'tasks[0].stoppedReason' 2>/dev/null) || reason=None
        fail "the task left no kit${receipt:+, though it printed the receipt} (ECS says why it stopped: $reason); run again"
    fi
    worth="$parameter cannot be read, and may hold the only copy of a kit: $(tail -n 1 "$work/error")"
    say "ERROR next: allow the deployer ssm:GetParameter on it, and kms:Decrypt"
    exit 1
fi
kit=$(cat "$work/kit")
case $kit in
    '[{'*'}]') ;;
    '[]') worth=nothing; fail "the trust was not registered; the reason is in the task's lines above" ;;
    *) fail "what the task left is no kit" ;;
esac
if [ -z "$receipt" ]; then
    if [[ $kit != *'"trust_api_key":'* ]]; then
        worth=nothing
        fail "the task left a kit without credentials and no receipt; run again"
    fi
    id=${kit#*\"trust_id\":\"}
    worth="no receipt: the kit in $parameter is valid only if the trust ${id%%\"*} is registered; run 'make sync-trust-kit-$number' to see"
    exit 1
fi

worth="the kit in $parameter is the only copy, for it could not be handed on"
hand_on "$work/kit" "$number" "$kits" || exit 1
worth=nothing
