//! AWS credentials by the standard chain: environment, profile, container endpoint, instance
//! metadata version 2.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>
//!
//! A source that is set up is used or the run fails: passing over it would bring the credentials of
//! another account, and a kit into its parameters.

use std::collections::HashMap;
use std::fs;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use hyper::{Body, Request};
use serde::Deserialize;
use tokio::time::timeout;

use crate::aws_error::AwsError;
use crate::environment::text as variable;
use crate::error::words;
use crate::http::{self, HttpError};
use crate::net::is_loopback;
use crate::secret::Secret;
use crate::tls::Authorities;

/// Longest wait for a metadata endpoint: it is on the same host.
const METADATA: Duration = Duration::from_secs(3);

/// What requests are signed with.
pub struct Credentials {
    pub key_id: String,
    pub secret_key: Secret,
    pub token: Option<Secret>,
}

/// What both metadata endpoints answer.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
}

/// The first source of the chain that is set up.
/// Errors: it gives no credentials, or there is none.
pub async fn find() -> Result<Credentials, AwsError> {
    let (id, key) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"));
    if let (Some(key_id), Some(key)) = (&id, key) {
        let token = variable("AWS_SESSION_TOKEN").map(Secret::new);
        return Ok(Credentials { key_id: key_id.clone(), secret_key: Secret::new(key), token });
    }
    if id.is_some() {
        return Err(none("AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"));
    }
    if variable("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() {
        return Err(none("AWS_WEB_IDENTITY_TOKEN_FILE is set, and web identity is not supported"));
    }
    if let Some(credentials) = profile()? {
        return Ok(credentials);
    }
    if let Some(request) = container()? {
        let answer = ask("the container endpoint", request).await?;
        return credentials("the container endpoint", &answer);
    }
    if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|it| it.eq_ignore_ascii_case("true")) {
        return Err(none(
            "none are set, there is no profile and no container endpoint, and \
             AWS_EC2_METADATA_DISABLED is true",
        ));
    }
    instance().await
}

/// Static keys out of `~/.aws/credentials` or `~/.aws/config`.
fn profile() -> Result<Option<Credentials>, AwsError> {
    let named = variable("AWS_PROFILE");
    let profile = named.clone().unwrap_or_else(|| "default".to_owned());
    let mut keys = HashMap::new();
    let (mut files, mut found) = (0, false);
    for (variable_name, file, section) in [
        ("AWS_CONFIG_FILE", "config", format!("profile {profile}")),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile.clone()),
    ] {
        // Never the user's entry in the system's list: looking that up crashes a static binary.
        let home = || variable("HOME").map(|home| format!("{home}/.aws/{file}"));
        let Some(path) = variable(variable_name).or_else(home) else { continue };
        let Ok(text) = fs::read_to_string(&path) else { continue };
        files += 1;
        let mut ours = false;
        for line in text.lines().map(str::trim_end) {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                ours = name.trim() == section || (name.trim() == "default" && profile == "default");
                found |= ours;
            } else if let (true, Some((key, value))) = (ours, line.split_once('=')) {
                // The credentials file comes last and wins. An indented line belongs to another key.
                if !line.starts_with([' ', '\t', '#', ';']) {
                    keys.insert(key.trim().to_owned(), Secret::new(value.trim().to_owned()));
                }
            }
        }
    }
    let mut take = |key: &str| keys.remove(key).filter(|value| !value.expose().is_empty());
    if let (Some(id), Some(secret_key)) = (take("aws_access_key_id"), take("aws_secret_access_key"))
    {
        let (key_id, token) = (id.expose().to_owned(), take("aws_session_token"));
        return Ok(Some(Credentials { key_id, secret_key, token }));
    }
    let unsupported = ["sso_session", "sso_start_url", "role_arn", "credential_process"];
    if let Some(key) = unsupported.iter().find(|key| take(key).is_some()) {
        let why = format!("the profile {profile:?} has {key}, which is not supported");
        return Err(none(&why));
    }
    match named {
        Some(named) if found => Err(none(&format!("the profile {named:?} has no static keys"))),
        Some(named) => Err(none(&format!("AWS_PROFILE is {named:?}, in none of {files} files"))),
        None => Ok(None),
    }
}

/// The endpoint that ECS gives a task.
/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>
fn container() -> Result<Option<Request<Body>>, AwsError> {
    let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let full = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let Some(uri) = relative.map(|path| format!("http://169.254.170.2{path}")).or(full) else {
        return Ok(None);
    };
    if variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").is_some() {
        return Err(none("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE is set, and is not supported"));
    }
    let mut request = Request::get(&uri);
    if let Some(token) = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN") {
        request = request.header("authorization", token);
    }
    let request = request.body(Body::empty()).ok().filter(|request| {
        let host = request.uri().host().unwrap_or_default();
        let task = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"].contains(&host);
        request.uri().scheme_str() == Some("https") || task || is_loopback(host)
    });
    let wrong = "the container endpoint is no https address, and none of this host";
    request.map(Some).ok_or_else(|| none(wrong))
}

/// The role of an EC2 instance, by metadata version 2.
/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-v2-how-it-works.html>
async fn instance() -> Result<Credentials, AwsError> {
    let source = "the instance metadata";
    let endpoint = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let endpoint = endpoint.unwrap_or_else(|| "http://169.254.169.254".to_owned());
    let roles =
        format!("{}/latest/meta-data/iam/security-credentials/", endpoint.trim_end_matches('/'));
    let token = Request::put(format!("{}/latest/api/token", endpoint.trim_end_matches('/')))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "60")
        .body(Body::empty());
    let token =
        ask(source, token.map_err(|_| none("AWS_EC2_METADATA_SERVICE_ENDPOINT is no URL"))?)
            .await?;
    let get = |url: String| {
        let request = Request::get(url).header("x-aws-ec2-metadata-token", token.expose());
        request
            .body(Body::empty())
            .map_err(|_| none("the instance metadata answers what is no token"))
    };
    let role = ask(source, get(roles.clone())?).await?;
    let role = role.expose().lines().next().unwrap_or_default().to_owned();
    let answer = ask(source, get(format!("{roles}{role}"))?).await?;
    credentials(source, &answer)
}

async fn ask(source: &str, request: Request<Body>) -> Result<Secret, AwsError> {
    let sent = AtomicUsize::new(0);
    let answer = http::send(request, &Authorities::System, &sent);
    let why = match timeout(METADATA, answer).await {
        Ok(Ok(answer)) if answer.status == 200 => match String::from_utf8(answer.body.to_vec()) {
            Ok(text) => return Ok(Secret::new(text)),
            Err(_) => "its answer is not UTF-8".to_owned(),
        },
        Ok(Ok(answer)) => format!("it answers HTTP {}", answer.status),
        Ok(Err(HttpError::Tls(error))) => error.to_string(),
        Ok(Err(HttpError::Other(why))) => why,
        Err(_) => format!("no answer within {} s", METADATA.as_secs()),
    };
    Err(none(&format!("{source}: {why}")))
}

fn credentials(source: &str, answer: &Secret) -> Result<Credentials, AwsError> {
    let answer: Answer = serde_json::from_str(answer.expose())
        .map_err(|_| none(&format!("{source} answers what are no credentials")))?;
    Ok(Credentials {
        key_id: answer.access_key_id,
        secret_key: Secret::new(answer.secret_access_key),
        token: answer.token.map(Secret::new),
    })
}

fn none(why: &str) -> AwsError {
    AwsError::without_credentials(&words(why, 33))
}
