//! README, "In production": deploy/ecs.sh with the real AWS CLI against moto's SSM, ECS and logs. Only
//! `ecs run-task` and its wait are stood in for, by something that runs the real program with the
//! task's overrides and writes its output to the log stream.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::end_to_end::{Moto, boto3};
use crate::support::not_run::{mounts, not_run};
use crate::support::relay::{Strike, When};
use crate::support::{Hub, Relay, python, root, run::PROGRAM};

/// The stand-in for `aws`: everything but the task goes to the real one.
const AWS: &str = r#"#!/bin/sh
case "$1 $2" in
    "ecs run-task") exec "$PYTHON" "$STANDIN" "$@" ;;
    "ecs wait") exit 0 ;;
    *) exec "$PYTHON" -m awscli "$@" ;;
esac
"#;

/// A task: runs the program as the overrides say, in the environment of the task's role.
const TASK: &str = r#"
import boto3, json, os, subprocess, sys, time
arguments = dict(zip(sys.argv[3::2], sys.argv[4::2]))
overrides = json.load(open(arguments['--overrides'].removeprefix('file://')))
network = json.load(open(arguments['--network-configuration'].removeprefix('file://')))
assert network['awsvpcConfiguration']['subnets'] and network['awsvpcConfiguration']['assignPublicIp'] == 'ENABLED', network
override, = overrides['containerOverrides']
assert override['name'] == 'register-trust' and arguments['--launch-type'] == 'FARGATE'
mode = os.environ['MODE']
ecs, ssm, logs = boto3.client('ecs'), boto3.client('ssm'), boto3.client('logs')
if mode == 'no capacity':
    print('None\tRESOURCE:FARGATE')
    sys.exit()
task = ecs.run_task(cluster=arguments['--cluster'], taskDefinition=arguments['--task-definition'],
                    launchType='FARGATE', networkConfiguration=network)['tasks'][0]['taskArn']
task_env = json.loads(os.environ['TASK_ENV'])
run = subprocess.Popen([os.environ['PROGRAM'], *override['command']], env=task_env,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
name = override['command'][-1].removeprefix('--out-ssm-parameter=')
if mode == 'killed':
    while not ssm.describe_parameters()['Parameters']:
        time.sleep(0.05)
    run.kill()
out, err = run.communicate()
lines = err.splitlines() + ([] if mode == 'no receipt' else out.splitlines())
stream = 'ecs/register-trust/' + task.rsplit('/')[-1]
logs.create_log_stream(logGroupName='/ecs/register-trust', logStreamName=stream)
if lines:
    now = int(time.time() * 1000)
    logs.put_log_events(logGroupName='/ecs/register-trust', logStreamName=stream,
                        logEvents=[{'timestamp': now, 'message': line} for line in lines])
if mode == 'no kit':
    ssm.delete_parameter(Name=name)
print(task + '\tNone')
"#;

struct Account {
    moto: Moto,
    hub: Hub,
    dir: PathBuf,
}

impl Account {
    /// An account with a cluster, a running service and the task's definition.
    fn new(setup: &str) -> Account {
        let (moto, hub) = (Moto::start(), Hub::new());
        let dir = std::env::temp_dir().join(format!("ecs-{}-{}", std::process::id(), hub.database));
        fs::create_dir_all(dir.join("bin")).unwrap();
        fs::write(dir.join("task.py"), TASK).unwrap();
        fs::write(dir.join("bin/aws"), AWS).unwrap();
        fs::set_permissions(dir.join("bin/aws"), fs::Permissions::from_mode(0o755)).unwrap();
        let code = format!(
            "def client(name): return boto3.client(name, region_name='eu-west-2', endpoint_url='{}')
ecs, ec2, logs = client('ecs'), client('ec2'), client('logs')
logs.create_log_group(logGroupName='/ecs/register-trust')
ecs.create_cluster(clusterName='flip')
options = {{'awslogs-group': '/ecs/register-trust', 'awslogs-stream-prefix': 'ecs', 'awslogs-region': 'eu-west-2'}}
ecs.register_task_definition(family='register-trust', networkMode='awsvpc', requiresCompatibilities=['FARGATE'],
    cpu='256', memory='512', containerDefinitions=[{{'name': 'register-trust', 'image': 'x', 'memory': 512,
    'logConfiguration': {{'logDriver': 'awslogs', 'options': options}}}}])
subnets = [s['SubnetId'] for s in ec2.describe_subnets()['Subnets'][:2]]
group = ec2.describe_security_groups()['SecurityGroups'][0]['GroupId']
network = {{'awsvpcConfiguration': {{'subnets': subnets, 'securityGroups': [group], 'assignPublicIp': 'ENABLED'}}}}
{setup}",
            moto.1
        );
        boto3(&moto.1, &code);
        Account { moto, hub, dir }
    }

    fn ready() -> Account {
        Account::new(
            "ecs.create_service(cluster='flip', serviceName='flip-api', taskDefinition='register-trust',
    desiredCount=1, launchType='FARGATE', networkConfiguration=network)",
        )
    }

    fn kits(&self) -> PathBuf {
        self.dir.join("kits")
    }

    /// Runs `deploy/register.sh 1` with PROD=stag in a folder of its own.
    fn register(&self, mode: &str, options: &[&str], env: &[(&str, &str)]) -> Output {
        let cluster = &Hub::cluster().env;
        let aws = [
            ("AWS_ACCESS_KEY_ID", "x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_REGION", "eu-west-2"),
            ("AWS_DEFAULT_REGION", "eu-west-2"),
            ("AWS_ENDPOINT_URL", &self.moto.1),
        ];
        let mut task: std::collections::BTreeMap<&str, &str> = aws.into();
        task.extend(cluster.iter().map(|(key, value)| (key.as_str(), value.as_str())));
        task.insert("POSTGRES_DB", &self.hub.database);
        task.insert("FL_BACKEND", "flower");
        if let Some((_, port)) = env.iter().find(|(key, _)| *key == "TASK_DB_PORT") {
            task.insert("DB_PORT", port);
        }
        let path = std::env::var("PATH").unwrap();
        let file = "TRUST_1_NAME=St \"Q\" O'Neil $HOME \\ #1 \u{e9}\nTRUST_1_CODE='Q 1'\n";
        fs::write(self.dir.join(".env.stag"), file).unwrap();
        let wrapped = self.dir.join("bin/bash");
        Command::new(if wrapped.exists() { wrapped } else { "/bin/bash".into() })
            .arg(root().join("deploy/register.sh"))
            .arg("1")
            .args(options)
            .current_dir(&self.dir)
            .env_clear()
            .envs(aws)
            .env("PATH", format!("{}:{path}", self.dir.join("bin").display()))
            .env("PYTHON", python())
            .env("STANDIN", self.dir.join("task.py"))
            .env("TASK_ENV", serde_json::to_string(&task).unwrap())
            .env("PROGRAM", PROGRAM)
            .env("MODE", mode)
            .env("PROD", "stag")
            .env("HOME", &self.dir)
            .envs(env.iter().copied())
            .output()
            .unwrap()
    }

    /// The parameters that are left, one on a line.
    fn parameters(&self) -> String {
        boto3(
            &self.moto.1,
            "print('\\n'.join(p['Name'] for p in ssm.describe_parameters()['Parameters']), end='')",
        )
    }

    fn kit(&self, name: &str) -> serde_json::Value {
        let path = self.kits().join(name);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[track_caller]
fn ends(output: &Output, success: bool, said: &[&str]) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), success, "{stderr}");
    for text in said {
        assert!(stderr.contains(text), "lacks {text:?}:\n{stderr}");
    }
    assert!(output.stdout.is_empty(), "stdout: {}", String::from_utf8_lossy(&output.stdout));
    stderr
}

#[test]
fn a_new_trust_leaves_its_kit_in_a_file_of_its_owner_and_no_parameter() {
    let mut account = Account::ready();
    let output = account.register("", &[], &[]);
    let said = ends(
        &output,
        true,
        &["running register-trust in flip for trust 1", "the kit is in kits/trust-1.json"],
    );
    let kit = account.kit("trust-1.json");
    assert_eq!(kit[0]["trust_name"], "St \"Q\" O'Neil $HOME \\ #1 \u{e9}");
    assert_eq!(account.hub.value::<String>("SELECT code FROM trust"), "Q 1");
    account.hub.assert_registered(&kit);
    assert_eq!(account.parameters(), "");
    assert!(!said.contains(kit[0]["trust_api_key"].as_str().unwrap()));

    // Again: the skip. The kit with the credentials stays.
    ends(&account.register("", &[], &[]), true, &["the kit is in kits/trust-1.metadata.json"]);
    assert_eq!(account.kit("trust-1.json"), kit);
    ends(
        &account.register("", &["--require-existing"], &[]),
        true,
        &["the kit is in kits/trust-1.metadata.json"],
    );
    assert_eq!(account.parameters(), "");
}

#[test]
fn a_sink_takes_the_kit_instead_of_a_file() {
    let mut account = Account::ready();
    let output = account.register("", &[], &[("KIT_SINK", "cat > sunk && test -s sunk")]);
    ends(&output, true, &[]);
    let kit = fs::read_to_string(account.dir.join("sunk")).unwrap();
    account.hub.assert_registered(&serde_json::from_str(&kit).unwrap());
    assert_eq!(account.parameters(), "");
}

#[test]
fn a_sink_that_fails_leaves_the_kit_in_the_parameter() {
    let mut account = Account::ready();
    let output = account.register("", &[], &[("KIT_SINK", "cat >/dev/null; false")]);
    let said = ends(
        &output,
        false,
        &["is the only copy, for it could not be handed on", "aws ssm get-parameter"],
    );
    let left = account.parameters();
    assert!(left.starts_with("/flip/trust-kits/ephemeral/1-") && said.contains(&left), "{left}");
    let read = format!(
        "print(ssm.get_parameter(Name='{left}', WithDecryption=True)['Parameter']['Value'])"
    );
    account.hub.assert_registered(&serde_json::from_str(&boto3(&account.moto.1, &read)).unwrap());
}

#[test]
fn a_registration_that_fails_shows_the_tasks_errors_and_leaves_nothing() {
    let mut account = Account::ready();
    let output = account.register("", &["--require-existing"], &[]);
    ends(
        &output,
        false,
        &[
            "ERROR no trust \"St ",
            "is registered; nothing was registered",
            "the trust was not registered",
        ],
    );
    assert_eq!(account.parameters(), "");
    assert!(!account.kits().join("trust-1.json").exists());
    account.hub.assert_untouched();
}

#[test]
fn a_task_that_is_killed_before_its_commit_leaves_its_worthless_kit_and_says_how_to_tell() {
    let mut account = Account::ready();
    let relay = Relay::new().strike(When::Before("COMMIT"), Strike::Hold);
    let port = relay.port().to_string();
    let output = account.register("killed", &[], &[("TASK_DB_PORT", &port)]);
    ends(
        &output,
        false,
        &["no receipt: the kit in /flip/", "is valid only if the trust ", "make sync-trust-kit-1"],
    );
    assert!(account.parameters().starts_with("/flip/trust-kits/ephemeral/1-"));
    assert_eq!(account.hub.count("trust"), 0);
    assert!(!account.kits().join("trust-1.json").exists());
}

#[test]
fn a_kit_without_a_receipt_stays_where_it_is() {
    let mut account = Account::ready();
    let output = account.register("no receipt", &[], &[]);
    ends(&output, false, &["no receipt: the kit in /flip/"]);
    let left = account.parameters();
    let read = format!(
        "print(ssm.get_parameter(Name='{left}', WithDecryption=True)['Parameter']['Value'])"
    );
    account.hub.assert_registered(&serde_json::from_str(&boto3(&account.moto.1, &read)).unwrap());
    // One without credentials is worth nothing.
    let output = account.register("no receipt", &[], &[]);
    ends(&output, false, &["a kit without credentials and no receipt"]);
    assert_eq!(account.parameters(), left);
}

#[test]
fn a_receipt_without_a_kit_is_a_failure() {
    let account = Account::ready();
    let output = account.register("no kit", &[], &[]);
    ends(&output, false, &["the task left no kit, though it printed the receipt"]);
    assert_eq!(account.parameters(), "");
}

#[test]
fn a_task_that_does_not_start_is_a_failure() {
    let mut account = Account::ready();
    ends(
        &account.register("no capacity", &[], &[]),
        false,
        &["ECS did not start the task: RESOURCE:FARGATE"],
    );
    assert_eq!(account.parameters(), "");
    account.hub.assert_untouched();
}

#[test]
fn a_task_that_may_have_started_is_not_forgotten() {
    let account = Account::ready();
    let refused = account.register("", &[], &[("STANDIN", "/nonexistent")]);
    let said = ends(
        &refused,
        false,
        &["it is not known how far the task got", "may hold, or come to hold, the only copy"],
    );
    assert!(said.contains("/flip/trust-kits/ephemeral/1-"), "{said}");
}

#[test]
fn a_disk_that_is_full_leaves_the_kit_in_the_parameter() {
    let mut account = Account::ready();
    fs::create_dir_all(account.kits()).unwrap();
    // A folder of one page that is full, seen by the script alone; or a kit that cannot be synced.
    let script = root().join("deploy/register.sh");
    let full = format!(
        "mount -t tmpfs -o size=4k tmpfs {0} && head -c 4096 /dev/zero >{0}/full; exec /bin/bash {1} \"$@\"",
        account.kits().display(),
        script.display()
    );
    fs::write(account.dir.join("bin/full"), full).unwrap();
    let (stand_in, text) = if mounts() {
        (
            "bin/bash",
            "#!/bin/sh\nif [ \"$1\" = \"$SCRIPT\" ]; then shift; exec unshare $([ $(id -u) = 0 ] || echo -r) -m /bin/bash \"$FULL\" \"$@\"; fi\nexec /bin/bash \"$@\"\n",
        )
    } else {
        not_run("deploy/ecs.sh on a file system that is full (needs a mount namespace)");
        (
            "bin/sync",
            "#!/bin/sh\n! grep -qs trust_api_key \"$@\" || { echo sync: No space left on device >&2; exit 1; }\nexec /bin/sync \"$@\"\n",
        )
    };
    fs::write(account.dir.join(stand_in), text).unwrap();
    fs::set_permissions(account.dir.join(stand_in), fs::Permissions::from_mode(0o755)).unwrap();
    let full = account.dir.join("bin/full");
    let output = account.register(
        "",
        &[],
        &[("FULL", full.to_str().unwrap()), ("SCRIPT", script.to_str().unwrap())],
    );
    ends(
        &output,
        false,
        &["No space left on device", "is the only copy, for it could not be handed on"],
    );
    let left = account.parameters();
    let read = format!(
        "print(ssm.get_parameter(Name='{left}', WithDecryption=True)['Parameter']['Value'])"
    );
    account.hub.assert_registered(&serde_json::from_str(&boto3(&account.moto.1, &read)).unwrap());
}

#[test]
fn what_is_missing_is_named_before_a_task_runs() {
    let mut account = Account::new("");
    ends(
        &account.register("", &[], &[]),
        false,
        &["no active service flip-api with a network configuration"],
    );
    ends(
        &account.register("", &[], &[("ECS_CLUSTER", "none")]),
        false,
        &["ClusterNotFoundException", "ECS_CLUSTER"],
    );
    ends(
        &account.register("", &[], &[("AWS_PROFILE", "nobody")]),
        false,
        &["nobody", "check AWS_PROFILE"],
    );
    ends(
        &account.register("", &[], &[("PROD", "maybe")]),
        false,
        &["PROD is 'maybe', not stag or true"],
    );
    let no_tools = [("PATH", "/nonexistent")];
    let output = account.register("", &[], &no_tools);
    assert!(!output.status.success());
    let account_without_network = Account::new(
        "ecs.create_service(cluster='flip', serviceName='flip-api', taskDefinition='register-trust', desiredCount=1, launchType='EC2')",
    );
    let output = account_without_network.register("", &[], &[]);
    ends(&output, false, &["no active service flip-api with a network configuration"]);
    let ready = Account::ready();
    let output = ready.register("", &[], &[("ECS_TASK_DEFINITION", "other")]);
    ends(&output, false, &["check ECS_TASK_DEFINITION"]);
    let output = ready.register("", &[], &[("ECS_CONTAINER", "other")]);
    ends(&output, false, &["the container other of register-trust has no awslogs group"]);
    account.hub.assert_untouched();
}
