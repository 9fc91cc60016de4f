//! doc/deploy.md, "ECS": deploy/ecs.sh with the real AWS CLI and the real program against moto's
//! SSM, ECS and logs. Moto runs no tasks: behind `ecs run-task` stands something that runs the
//! program with the task's overrides and writes its output to the log stream.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::end_to_end::{Moto, boto3};
use crate::support::not_run::{mounts, not_run};
use crate::support::relay::{Strike, When};
use crate::support::{Hub, Relay, python, root, run::PROGRAM};

/// The stand-in for `aws`: the real one, and a task behind `run-task`. The real one is version 1,
/// or what the variable `AWS_CLI` names.
const AWS: &str = r#"#!/bin/sh
case "$1 $2" in
    "ecs run-task") exec "$PYTHON" "$STANDIN" "$@" ;;
    *) exec $AWS_CLI "$@" ;;
esac
"#;

/// A task: runs the program as the overrides say, in the environment of the task's role.
const TASK: &str = r#"
import boto3, json, os, subprocess, sys, time
arguments = dict(zip(sys.argv[3::2], sys.argv[4::2]))
# Read once: a pipe gives them once, and the real one gets the words instead.
for option in '--overrides', '--network-configuration':
    with open(arguments[option].removeprefix('file://')) as file:
        arguments[option] = sys.argv[sys.argv.index(option) + 1] = file.read()
override, = json.loads(arguments['--overrides'])['containerOverrides']
network = json.loads(arguments['--network-configuration'])
assert network['awsvpcConfiguration']['subnets'] and network['awsvpcConfiguration']['assignPublicIp'] == 'ENABLED', network
assert override['name'] == 'register-trust' and arguments['--launch-type'] == 'FARGATE'
assert arguments['--started-by'] == 'register-trust/' + arguments['--client-token']
mode = os.environ['MODE']
ecs, ssm, logs = boto3.client('ecs'), boto3.client('ssm'), boto3.client('logs')
if mode == 'no capacity':
    print('None\tRESOURCE:FARGATE')
    sys.exit()
answer = subprocess.run([*os.environ['AWS_CLI'].split(), *sys.argv[1:]], stdout=subprocess.PIPE, text=True)
if answer.returncode:
    sys.exit(answer.returncode)
task = answer.stdout.split()[0]
run = subprocess.Popen([os.environ['PROGRAM'], *override['command']], env=json.loads(os.environ['TASK_ENV']),
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
name = override['command'][-1].removeprefix('--out-ssm-parameter=')
if mode == 'killed':
    while not ssm.describe_parameters()['Parameters']:
        time.sleep(0.05)
    run.kill()
out, err = run.communicate()
lines = err.splitlines() + ([] if mode == 'no receipt' else out.splitlines())
stream = 'register-trust/register-trust/' + task.rsplit('/')[-1]
logs.create_log_stream(logGroupName='/ecs/register-trust', logStreamName=stream)
if lines:
    now = int(time.time() * 1000)
    logs.put_log_events(logGroupName='/ecs/register-trust', logStreamName=stream,
                        logEvents=[{'timestamp': now, 'message': line} for line in lines])
if mode == 'no kit':
    ssm.delete_parameter(Name=name)
ecs.stop_task(cluster=arguments['--cluster'], task=task, reason='Essential container in task exited')
print(answer.stdout, end='')
"#;

/// A file of deploy/ecs with all its placeholders replaced.
fn filled(name: &str) -> String {
    let mut text = fs::read_to_string(root().join("deploy/ecs").join(name)).unwrap();
    for (placeholder, value) in [
        ("<ACCOUNT>", "123456789012"),
        ("<REGION>", "eu-west-2"),
        ("<IMAGE>", "registry.example/register-trust:1"),
        ("<RDS_PROXY_ENDPOINT>", "flip-database-proxy.proxy-1.eu-west-2.rds.amazonaws.com"),
        ("<RDS_PROXY_RESOURCE_ID>", "prx-1"),
        ("<POSTGRES_USER>", "flip"),
        ("<POSTGRES_DB>", "flip"),
        ("<CENTRAL_HUB_API_URL>", "https://hub.example.nhs.uk/api"),
        ("<FL_BACKEND>", "flower"),
        (
            "<FLIP_API_SECRET_ARN>",
            "arn:aws:secretsmanager:eu-west-2:123456789012:secret:FLIP_API-abcdef",
        ),
    ] {
        text = text.replace(placeholder, value);
    }
    assert!(!text.contains('<') && !text.contains('>'), "a placeholder nobody knows: {text}");
    text
}

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
        // The script's pauses are ECS's, and moto needs none.
        fs::write(dir.join("bin/sleep"), "#!/bin/sh\n").unwrap();
        for name in ["aws", "sleep"] {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(dir.join("bin").join(name), mode).unwrap();
        }
        let definition = filled("task-definition.json");
        let code = format!(
            "import json
def client(name): return boto3.client(name, region_name='eu-west-2', endpoint_url='{}')
ecs, ec2, logs = client('ecs'), client('ec2'), client('logs')
logs.create_log_group(logGroupName='/ecs/register-trust')
ecs.create_cluster(clusterName='flip-cluster')
definition = json.loads('''{definition}''')
# Moto wants a container's memory, which ECS takes from the task.
definition['containerDefinitions'][0]['memory'] = 512
ecs.register_task_definition(**definition)
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
            "ecs.create_service(cluster='flip-cluster', serviceName='flip-api', taskDefinition='register-trust',
    desiredCount=1, launchType='FARGATE', networkConfiguration=network)",
        )
    }

    fn kits(&self) -> PathBuf {
        self.dir.join("kits/stag")
    }

    /// Runs `deploy/register.sh 1` with PROD=stag in a folder of its own.
    fn register(&self, mode: &str, options: &[&str], env: &[(&str, &str)]) -> Output {
        let cluster = &Hub::cluster().env;
        let aws = [
            ("AWS_ACCESS_KEY_ID", "x"),
            ("AWS_SECRET_ACCESS_KEY", "x"),
            ("AWS_REGION", "eu-west-2"),
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
        let file = "TRUST_1_NAME=St \"Q\" O'Neil $HOME \\ n#1 \u{e9}\nTRUST_1_CODE='Q 1'\n";
        fs::write(self.dir.join(".env.stag"), file).unwrap();
        let aws_cli = format!("{} -m awscli", python().display());
        let aws_cli = std::env::var("AWS_CLI").unwrap_or(aws_cli);
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
            .env("AWS_CLI", aws_cli)
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

    /// The kit that the run left to be looked at.
    fn left(&self) -> serde_json::Value {
        let mut left = fs::read_dir(self.kits()).unwrap().map(|entry| entry.unwrap().file_name());
        let left = left.find(|name| name.to_str().unwrap().starts_with(".trust-1.")).unwrap();
        self.kit(left.to_str().unwrap())
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
        &[
            "the kit of trust 1 will come through /flip/trust-kits/ephemeral/1-",
            "runs arn:aws:ecs:eu-west-2:123456789012:task-definition/register-trust:1",
            "the kit is in kits/stag/trust-1.json",
        ],
    );
    let kit = account.kit("trust-1.json");
    assert_eq!(kit[0]["trust_name"], "St \"Q\" O'Neil $HOME \\ n#1 \u{e9}");
    assert_eq!(account.hub.value::<String>("SELECT code FROM trust"), "Q 1");
    account.hub.assert_registered(&kit);
    assert_eq!(account.parameters(), "");
    assert!(!said.contains(kit[0]["trust_api_key"].as_str().unwrap()));

    // Again: the skip. The kit with the credentials stays.
    let metadata = ["the kit without credentials is in kits/stag/trust-1.metadata.json"];
    ends(&account.register("", &[], &[]), true, &metadata);
    assert_eq!(account.kit("trust-1.json"), kit);
    ends(&account.register("", &["--require-existing"], &[]), true, &metadata);
    assert_eq!(account.kit("trust-1.json"), kit);
    assert_eq!(account.parameters(), "");
}

#[test]
fn a_sink_takes_the_kit_instead_of_a_file() {
    let mut account = Account::ready();
    let sink = "cat > sunk && test -s sunk && echo \"$TRUST_NUMBER $TRUST_CODE\" > whose";
    let output = account.register("", &[], &[("KIT_SINK", sink)]);
    ends(&output, true, &["KIT_SINK has taken the kit of trust 1"]);
    let kit = fs::read_to_string(account.dir.join("sunk")).unwrap();
    account.hub.assert_registered(&serde_json::from_str(&kit).unwrap());
    assert_eq!(fs::read_to_string(account.dir.join("whose")).unwrap(), "1 Q 1\n");
    assert_eq!(account.parameters(), "");
}

#[test]
fn a_sink_that_fails_leaves_the_kit_in_its_file() {
    let mut account = Account::ready();
    let output = account.register("", &[], &[("KIT_SINK", "cat >/dev/null; false")]);
    ends(&output, false, &["KIT_SINK failed; the kit stays in kits/stag/.trust-1."]);
    account.hub.assert_registered(&account.left());
    assert_eq!(account.parameters(), "");
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
            "ERROR state: this run registered nothing",
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
        &[
            "the task left a kit without its receipt",
            "nobody knows whether that kit, now in kits/stag/.trust-1.",
            "'make check-kit-1 PROD=stag' tells",
        ],
    );
    assert_eq!(account.left()[0]["fl_kit_slot_number"], 1);
    assert_eq!(account.parameters(), "");
    assert_eq!(account.hub.count("trust"), 0);
    assert!(!account.kits().join("trust-1.json").exists());
}

#[test]
fn a_kit_without_a_receipt_is_handed_on_by_the_next_run() {
    let mut account = Account::ready();
    let output = account.register("no receipt", &[], &[]);
    ends(&output, false, &["the task left a kit without its receipt"]);
    let kit = account.left();
    account.hub.assert_registered(&kit);
    // One without credentials is worth nothing.
    let output = account.register("no receipt", &[], &[]);
    ends(&output, false, &["without its receipt", "nothing is lost: the kit had no credentials"]);
    assert_eq!(account.left(), kit);
    ends(&account.register("", &[], &[]), true, &["is the valid kit of the trust"]);
    assert_eq!(account.kit("trust-1.json"), kit);
    assert_eq!(account.parameters(), "");
}

#[test]
fn a_check_asks_the_hub_by_a_task_for_each_kit() {
    let mut account = Account::ready();
    ends(&account.register("", &[], &[]), true, &[]);
    let check = |account: &Account| {
        let output = account.register("", &["--check-kits"], &[]);
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(check(&account), (true, "kits/stag/trust-1.json valid\n".to_owned()));
    account
        .hub
        .admin
        .batch_execute("UPDATE fl_kit_slot SET assigned_to_trust_id = NULL; DELETE FROM trust")
        .unwrap();
    assert_eq!(check(&account), (false, "kits/stag/trust-1.json worthless\n".to_owned()));
    assert_eq!(account.parameters(), "");
}

#[test]
fn a_receipt_without_a_kit_is_a_failure() {
    let account = Account::ready();
    let output = account.register("no kit", &[], &[]);
    ends(
        &output,
        false,
        &[
            "the task left no kit, though it printed the receipt",
            "ECS says why it stopped: Essential container in task exited",
            "nobody knows whether the trust is registered",
        ],
    );
    assert_eq!(account.parameters(), "");
}

#[test]
fn a_task_that_does_not_start_is_a_failure() {
    let mut account = Account::ready();
    ends(
        &account.register("no capacity", &[], &[]),
        false,
        &["ECS did not start it: RESOURCE:FARGATE", "no task was started"],
    );
    assert_eq!(account.parameters(), "");
    account.hub.assert_untouched();
}

#[test]
fn a_task_that_may_have_started_is_not_forgotten() {
    let account = Account::ready();
    let refused = account.register("", &[], &[("STANDIN", "/nonexistent")]);
    ends(
        &refused,
        false,
        &[
            "nobody knows whether the trust is registered; /flip/trust-kits/ephemeral/1-",
            "may hold its kit, or come to hold it (kits/stag/.task-1.",
        ],
    );
    let check = account.register("", &["--check-kits"], &[]);
    ends(
        &check,
        false,
        &["its kit may be where kits/stag/.task-1.", "no kit with credentials of trust 1"],
    );
    ends(&account.register("", &[], &[]), true, &["an earlier run did not end", "does not exist"]);
}

#[test]
fn a_disk_that_is_full_leaves_the_kit_in_the_parameter() {
    let mut account = Account::ready();
    fs::create_dir_all(account.dir.join("kits")).unwrap();
    // A folder of two pages, seen by the script alone: one is full, and the other is for the note.
    // Or a kit that cannot be synced.
    let script = root().join("deploy/register.sh");
    let full = format!(
        "mount -t tmpfs -o size=8k tmpfs kits && head -c 4096 /dev/zero >kits/full; exec /bin/bash {} \"$@\"",
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
        &[
            "No space left on device",
            "the kit cannot be stored",
            "ERROR state: the kit is in /flip/",
        ],
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
        &["no active service flip-api with a network configuration", "nothing was started"],
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
    let no_tools = [("PATH", "/nonexistent")];
    let output = account.register("", &[], &no_tools);
    assert!(!output.status.success());
    let account_without_network = Account::new(
        "ecs.create_service(cluster='flip-cluster', serviceName='flip-api', taskDefinition='register-trust', desiredCount=1, launchType='EC2')",
    );
    let output = account_without_network.register("", &[], &[]);
    ends(&output, false, &["no active service flip-api with a network configuration"]);
    let ready = Account::ready();
    let output = ready.register("", &[], &[("ECS_TASK_DEFINITION", "other")]);
    ends(&output, false, &["check ECS_TASK_DEFINITION"]);
    let output = ready.register("", &[], &[("ECS_CONTAINER", "other")]);
    ends(&output, false, &["the container other of arn:aws:ecs:", "has no awslogs group"]);
    account.hub.assert_untouched();
}

#[test]
fn the_policies_and_the_task_definition_are_json_and_mark_every_placeholder() {
    let parse = |name: &str| serde_json::from_str::<serde_json::Value>(&filled(name)).unwrap();
    let task = parse("task-definition.json");
    let container = &task["containerDefinitions"][0];
    assert_eq!(
        container["ulimits"],
        serde_json::json!([{"name": "core", "softLimit": 0, "hardLimit": 0}])
    );
    // The deployer may use what the script uses, and hand on the roles that the task has.
    let deployer = parse("deployer-policy.json");
    let script = fs::read_to_string(root().join("deploy/ecs.sh")).unwrap().replace('\n', " ");
    let calls = script.split(" ask ").skip(1).filter_map(|call| {
        let mut words = call.split_whitespace();
        let (service, verb) = (words.next()?, words.next()?);
        // `wait` describes.
        (["ecs", "ssm", "logs"].contains(&service) && verb != "wait").then(|| {
            let parts = verb.split('-').map(|part| part[..1].to_uppercase() + &part[1..]);
            format!("\"{service}:{}\"", parts.collect::<String>())
        })
    });
    let calls: std::collections::BTreeSet<_> = calls.collect();
    assert_eq!(calls.len(), 8, "{calls:?}");
    for call in calls {
        assert!(deployer.to_string().contains(&call), "the deployer may not use {call}");
    }
    for role in ["taskRoleArn", "executionRoleArn"] {
        assert!(deployer.to_string().contains(task[role].as_str().unwrap()), "{role}");
    }
    assert!(parse("task-role-policy.json").to_string().contains("ssm:PutParameter"));
    // The Terraform fragment says the same.
    let terraform = fs::read_to_string(root().join("deploy/ecs/register_trust.tf")).unwrap();
    for text in [
        "ulimits = [{ name = \"core\", softLimit = 0, hardLimit = 0 }]",
        "\"/ecs/register-trust\"",
        "awslogs-stream-prefix = \"register-trust\"",
    ] {
        assert!(terraform.contains(text), "{text}");
    }
    for variable in container["environment"].as_array().unwrap() {
        assert!(terraform.contains(variable["name"].as_str().unwrap()), "{variable}");
    }
}
