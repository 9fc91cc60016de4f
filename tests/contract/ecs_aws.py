"""An `aws` that is fast and obeys the test: ECS, SSM, the logs, the task and the hub in one file.

The environment: ACCOUNT is the file that holds their state; FAULTS says, as JSON, what goes wrong:

  "task"       how the tasks of this run end: see TASKS
  "<verb>"     what becomes of this run's calls of the verb, one word for each; after the last it
               works again, unless the last ends with '*', which goes for all that follow
  "kill"       [n, "before" or "after", signal]: the script is killed at its n-th call

A task goes one step further with every call of `aws`: it puts the kit, it commits, it prints the
receipt and stops. A task that 'is told' what to do goes by `aws - world STEP` instead.

With GATE every call waits, and is told by the test what becomes of it: see tests/model/scripts_ecs.rs.
"""
import atexit, fcntl, json, os, resource, signal, sys, time, uuid

# What a task does, in order. 'put' puts a new kit, 'commit' registers its trust, 'empty' puts [],
# 'receipt' prints the receipt, 'error' an ERROR; 'later' waits for the next run.
TASKS = {
    'works': ['put', 'commit', 'receipt'],
    'loses its receipt': ['put', 'commit'],
    'dies before its commit': ['put'],
    'dies before its put': [],
    'fails': ['error', 'empty', 'receipt'],
    'fails in doubt': ['error', 'empty'],
    'fails, and its kit comes late': ['error', 'empty', 'receipt', 'put'],
    'fails, and its kit comes in the next run': ['error', 'empty', 'later', 'put'],
    'works until the next run': ['put', 'later', *['wait'] * 5, 'commit', 'receipt'],
    'leaves rubbish': ['rubbish', 'receipt'],
    'never starts': ['never'],
    'hangs': ['put', 'hang'],
    'is told': ['hang'],
    'warns': ['warning', 'put', 'commit', 'receipt'],
}


def fail(message, status=254):
    print(message, file=sys.stderr)
    sys.exit(status)


def refuse(code, operation, message='no'):
    fail(f'\naws: [ERROR]: An error occurred ({code}) when calling the {operation} operation: {message}')


def advance(state, task):
    if task['steps'] == ['hang']:
        return
    if task['steps'][:1] == ['later']:
        # A task that has only a put left has stopped: that put is on its way.
        if task['run'] == os.environ['RUN']:
            task['status'] = 'STOPPED' if 'commit' not in task['steps'] else 'RUNNING'
            return
        task['steps'].pop(0)
    task['status'] = 'RUNNING' if task['steps'] else 'STOPPED'
    if not task['steps']:
        return
    step, option = task['steps'].pop(0), task['options']
    name = option.get('--out-ssm-parameter')
    if step == 'never':
        task.update(status='STOPPED', started='None\tNone')
    elif step == 'stop':
        task['status'] = 'STOPPED'
    elif step in ('put', 'empty'):
        kit = {'trust_id': state['hub'].get(option['--name'], {}).get('id') or task['id'], 'trust_name': option['--name']}
        if option['--name'] not in state['hub'] and '--require-existing' not in option:
            kit |= {'trust_api_key': task['key'], 'trust_internal_service_key': 'i' + task['key']}
        kit |= {'fl_kit_slot': 'slot_1', 'fl_kit_slot_number': 1, 'hub_shared': {}}
        state['before'] = state['parameters'].copy()
        state['parameters'][name] = '[]' if step == 'empty' else json.dumps([kit], separators=(',', ':'))
        state['puts'].setdefault(name, []).append(task['arn'])
    elif step == 'commit':
        state['hub'].setdefault(option['--name'], {'id': task['id'], 'key': task['key']})
    elif step == 'receipt':
        task['log'].append(name)
    elif step == 'check':
        known = [trust['id'] for trust in state['hub'].values()]
        task['log'].append('valid' if option['--check-kit'] in known else 'worthless')
    elif step == 'word':
        task['log'].append(task['word'])
    elif step == 'wait':
        pass
    elif step == 'rubbish':
        state['parameters'][name] = 'rubbish'
    elif step == 'warning':
        task['log'].append(f'WARNING an attempt timed out; {name} can reappear after it was deleted')
    else:
        task['log'].append('ERROR something broke; nothing was registered')
    if not task['steps']:
        task['status'] = 'STOPPED'


def document(text):
    """A parameter's text, or that of the file that it names."""
    if not text.startswith('file://'):
        return json.loads(text)
    with open(text.removeprefix('file://')) as file:
        return json.load(file)


def run_task(state, argument, fault):
    assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 0, 'core dumps are on'
    token = argument['--client-token']
    task = state['tasks'].get(token)
    if fault in ('throttle', 'refuse'):
        refuse({'throttle': 'ThrottlingException', 'refuse': 'AccessDeniedException'}[fault], 'RunTask')
    if not task:
        if fault == 'no capacity':
            return 'None\tRESOURCE:FARGATE'
        override, = document(argument['--overrides'])['containerOverrides']
        assert document(argument['--network-configuration'])['awsvpcConfiguration']['subnets'] == ['subnet-1']
        assert override['name'] == 'register-trust' and argument['--launch-type'] == 'FARGATE'
        command = override['command']
        options = dict(word.partition('=')[::2] for word in command)
        how = FAULTS.get('task', 'works')
        steps = ['check'] if '--check-kit' in options else list(TASKS[how]) if how in TASKS else ['word']
        if '--check-kit' in options and how not in TASKS:
            steps = ['word'] if how != 'silent' else []
        if '--require-existing' in options and options['--name'] not in state['hub'] and how == 'works':
            steps = list(TASKS['fails'])
        arn = f'arn:aws:ecs:eu-west-2:{state["account"]}:task/flip-cluster/{len(state["tasks"]) + 1:032x}'
        state['tasks'][token] = task = {
            'arn': arn, 'id': str(uuid.uuid4()), 'key': 'k' + uuid.uuid4().hex, 'status': 'PENDING', 'word': how,
            'started': '2026-01-01T00:00:00Z\tab-12', 'log': [], 'steps': steps, 'options': options, 'run': os.environ['RUN'],
            'started-by': argument['--started-by'], 'command': command}
    else:
        override, = document(argument['--overrides'])['containerOverrides']
        assert task['command'] == override['command'], 'the token is that of another request'
    if fault == 'lose':
        fail('Read timeout on endpoint URL: "https://ecs.eu-west-2.amazonaws.com/"', 255)
    if fault == 'break':
        refuse('ServerException', 'RunTask')
    return f'{task["arn"]}\tNone'


def answer(state, verb, argument, fault):
    tasks = state['tasks'].values()
    if fault == 'deny':
        refuse('AccessDeniedException', verb)
    if verb == 'describe-services':
        network = {'awsvpcConfiguration': {'subnets': ['subnet-1'], 'securityGroups': ['sg-1'], 'assignPublicIp': 'DISABLED'}}
        return json.dumps([f'arn:aws:ecs:eu-west-2:{state["account"]}:cluster/{argument["--cluster"]}', network], indent=4)
    if verb == 'describe-task-definition':
        return f'arn:aws:ecs:eu-west-2:1:task-definition/{argument["--task-definition"]}:7\t/ecs/register-trust\tregister-trust'
    if verb == 'run-task':
        return run_task(state, argument, fault)
    if verb == 'list-tasks':
        alive = [task['arn'] for task in tasks if task['started-by'] == argument['--started-by'] and task['status'] != 'STOPPED']
        return alive[0] if alive and fault != 'stale' else 'None'
    if verb == 'wait':
        task, = (task for task in tasks if task['arn'] == argument['--tasks'])
        for _ in range(20):
            if task['status'] == 'STOPPED' or FAULTS.get('describe-tasks'):
                break
            advance(state, task)
        if task['status'] != 'STOPPED' or FAULTS.get('describe-tasks'):
            fail('Waiter TasksStopped failed: Max attempts exceeded', 255)
        return ''
    if verb == 'describe-tasks':
        task, = (task for task in tasks if task['arn'] == argument['--tasks'])
        return 'None' if fault == 'stale' else f'{task["status"]}\t{task["started"]}\tEssential container in task exited'
    if verb == 'get-log-events':
        task, = (task for task in tasks if argument['--log-stream-name'] == 'register-trust/register-trust/' + task['arn'].split('/')[-1])
        if task['started'].startswith('None') or fault == 'stale':
            refuse('ResourceNotFoundException', 'GetLogEvents', 'The specified log stream does not exist.')
        return '\n'.join(task['log'])
    if verb == 'get-parameter':
        if fault == 'before':
            state = state | {'parameters': state['before']}
        if argument['--name'] not in state['parameters'] or fault == 'stale':
            refuse('ParameterNotFound', 'GetParameter')
        return state['parameters'][argument['--name']]
    if verb == 'delete-parameter':
        if state['parameters'].pop(argument['--name'], None) is None:
            refuse('ParameterNotFound', 'DeleteParameter')
        return ''
    raise AssertionError(verb)


def kill(number, when):
    if FAULTS.get('kill', [])[:2] == [number, when]:
        how = FAULTS['kill'][2]
        if how == 'INT':
            os.killpg(0, signal.SIGINT)
        else:
            os.kill(int(os.environ['SCRIPT']), getattr(signal, 'SIG' + how))
        sys.exit(137)


def gate():
    with open('at', 'a') as at:
        at.write(verb + '\n')
    with open('at') as at:
        mine = f'go-{len(at.readlines())}'
    while True:
        for name in (mine, 'go-all'):
            if os.path.exists(name):
                if name == mine:
                    # The test sees that the call is over.
                    atexit.register(os.unlink, mine)
                with open(name) as go:
                    return go.read()
        time.sleep(0.02)


verb, words = sys.argv[2], sys.argv[3:]
told = gate() if 'GATE' in os.environ else None
if sys.argv[1:3] == ['configure', 'get']:
    print(os.environ.get('HISTORY', ''))
    sys.exit()
FAULTS = json.loads(os.environ.get('FAULTS') or '{}')
assert os.environ.get('AWS_REGION') == os.environ.get('AWS_DEFAULT_REGION') == 'eu-west-2', 'a version of the CLI has no region'
argument = {words[at]: words[at + 1] for at in range(len(words) - 1) if words[at].startswith('--')}
account = os.environ['ACCOUNT']
with open(account + '.lock', 'w') as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with open(account) as file:
        state = json.load(file)

    # Whole or not at all: a storm may kill this process, too.
    def save():
        with open(account + '.new', 'w') as file:
            json.dump(state, file)
        os.replace(account + '.new', account)

    if verb == 'world':
        for task in state['tasks'].values():
            task['steps'] = [*words, 'hang']
            advance(state, task)
        save()
        sys.exit()
    run = state['calls'].setdefault(os.environ['RUN'], [])
    run.append(verb)
    save()
    kill(len(run), 'before')
    for task in state['tasks'].values():
        advance(state, task)
    faults = FAULTS.get(verb, [])
    turn = run.count(verb) - 1
    fault = told or faults[turn] if told or turn < len(faults) else faults[-1] if faults and faults[-1].endswith('*') else 'none'
    try:
        said = answer(state, verb, argument, fault.rstrip('*'))
    finally:
        save()
    kill(len(run), 'after')
print(said)
