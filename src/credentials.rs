//! AWS credentials by the standard chain: environment, profile, container endpoint, instance
//! metadata version 2.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>
//!
//! The first source that is set up is used, or the run fails: the next one could belong to another
//! account, whose parameter would get the kit.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use hyper::http::request::Builder;
use hyper::{Body, Request};
use serde_json::Value;
use tokio::time::timeout;

use crate::aws_error::AwsError;
use crate::environment::{is_true, text};
use crate::error::words;
use crate::http::{self, HttpError, Sent};
use crate::net::is_loopback;
use crate::secret::Secret;
use crate::tls::Authorities;

/// Longest wait for a metadata endpoint: it is on the same host.
const METADATA: Duration = Duration::from_secs(3);
/// The endpoint that ECS gives a task.
const CONTAINER: &str = "the container endpoint";
/// The endpoint that EC2 gives an instance.
const INSTANCE: &str = "the instance metadata";

/// What requests are signed with.
pub struct Credentials {
    pub key_id: String,
    pub secret_key: Secret,
    pub token: Option<Secret>,
}

/// The first source of the chain that is set up.
/// Errors: it gives no credentials, or there is none.
pub async fn find() -> Result<Credentials, AwsError> {
    let (id, key) = (text("AWS_ACCESS_KEY_ID"), text("AWS_SECRET_ACCESS_KEY"));
    if let (Some(key_id), Some(key)) = (&id, key) {
        let token = text("AWS_SESSION_TOKEN").map(Secret::new);
        return Ok(Credentials { key_id: key_id.clone(), secret_key: Secret::new(key), token });
    }
    if id.is_some() {
        return Err(none("AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY"));
    }
    if text("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() {
        return Err(none("AWS_WEB_IDENTITY_TOKEN_FILE is set, but web identity is not supported"));
    }
    if let Some(credentials) = profile()? {
        return Ok(credentials);
    }
    if let Some(request) = container()? {
        return parsed(CONTAINER, &ask(CONTAINER, request).await?);
    }
    if is_true("AWS_EC2_METADATA_DISABLED") {
        return Err(none(
            "no variables, no profile and no container endpoint are set, and \
             AWS_EC2_METADATA_DISABLED is true",
        ));
    }
    instance().await
}

/// Static keys out of `~/.aws/credentials` or `~/.aws/config`.
fn profile() -> Result<Option<Credentials>, AwsError> {
    let named = text("AWS_PROFILE");
    let profile = named.as_deref().unwrap_or("default");
    let mut keys = HashMap::new();
    for (variable, file, section) in [
        ("AWS_CONFIG_FILE", "config", format!("profile {profile}")),
        // The last one wins.
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", profile.to_owned()),
    ] {
        // Without HOME there is none: a look-up of the user would crash a static binary (net.rs).
        let home = || text("HOME").map(|home| format!("{home}/.aws/{file}"));
        let path = text(variable).or_else(home).unwrap_or_default();
        let mut ours = false;
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            if let Some((name, _)) = line.strip_prefix('[').and_then(|it| it.split_once(']')) {
                ours = name.trim() == section || name.trim() == "default" && profile == "default";
            } else if let (true, Some((key, value))) = (ours, line.split_once('=')) {
                // An indented line belongs to the key before; a comment's key is never asked for.
                let value = Secret::new(value.to_owned()).trimmed();
                keys.extend(value.map(|value| (key.trim_end().to_owned(), value)));
            }
        }
    }
    // First, for these lead the SDKs to another identity or another host, even if there are keys.
    let others = "sso_session sso_start_url role_arn credential_process endpoint_url services \
                  use_fips_endpoint use_dualstack_endpoint ca_bundle";
    if let Some(key) = others.split(' ').find(|key| keys.contains_key(*key)) {
        return Err(none(&format!("the profile {profile:?} has {key}, which is not supported")));
    }
    let (id, key) = (keys.remove("aws_access_key_id"), keys.remove("aws_secret_access_key"));
    if let (Some(id), Some(secret_key)) = (id, key) {
        let token = keys.remove("aws_session_token");
        return Ok(Some(Credentials { key_id: id.expose().to_owned(), secret_key, token }));
    }
    named.map_or(Ok(None), |named| {
        Err(none(&format!(
            "AWS_PROFILE is {named:?}, and neither ~/.aws/credentials nor ~/.aws/config has keys \
             for it"
        )))
    })
}

/// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>
fn container() -> Result<Option<Request<Body>>, AwsError> {
    let relative = text("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let relative = relative.map(|path| format!("http://169.254.170.2{path}"));
    let Some(uri) = relative.or_else(|| text("AWS_CONTAINER_CREDENTIALS_FULL_URI")) else {
        return Ok(None);
    };
    if text("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").is_some() {
        return Err(none("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE is set, but is not supported"));
    }
    let mut request = Request::get(&uri);
    if let Some(token) = text("AWS_CONTAINER_AUTHORIZATION_TOKEN") {
        request = request.header("authorization", token);
    }
    let request = empty(CONTAINER, request)?;
    let host = request.uri().host().unwrap_or_default();
    let task = ["169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"].contains(&host);
    if request.uri().scheme_str() == Some("https") || task || is_loopback(host) {
        return Ok(Some(request));
    }
    Err(none("AWS_CONTAINER_CREDENTIALS_FULL_URI is neither https nor an address of this host"))
}

/// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-v2-how-it-works.html>
async fn instance() -> Result<Credentials, AwsError> {
    let endpoint = text("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    let endpoint = endpoint.unwrap_or_else(|| "http://169.254.169.254".to_owned());
    let url = |path: &str| format!("{}/latest/{path}", endpoint.trim_end_matches('/'));
    let token = Request::put(url("api/token")).header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    let token = ask(INSTANCE, empty(INSTANCE, token)?).await?;
    let get = |path: &str| {
        let request = Request::get(url(path)).header("x-aws-ec2-metadata-token", token.expose());
        empty(INSTANCE, request)
    };
    let roles = "meta-data/iam/security-credentials/";
    let role = ask(INSTANCE, get(roles)?).await?;
    let role = role.expose().lines().next().unwrap_or_default();
    parsed(INSTANCE, &ask(INSTANCE, get(&format!("{roles}{role}"))?).await?)
}

fn empty(source: &str, request: Builder) -> Result<Request<Body>, AwsError> {
    request
        .body(Body::empty())
        .map_err(|_| none(&format!("{source} has no valid address or token")))
}

async fn ask(source: &str, request: Request<Body>) -> Result<Secret, AwsError> {
    let sent = Sent::default();
    let why = match timeout(METADATA, http::send(request, &Authorities::System, &sent)).await {
        Ok(Ok(answer)) if answer.status == 200 => {
            return Ok(Secret::new(String::from_utf8_lossy(&answer.body).into_owned()));
        }
        Ok(Ok(answer)) => format!("it answers HTTP {}", answer.status),
        Ok(Err(HttpError::Tls(error))) => error.to_string(),
        Ok(Err(HttpError::Other(why))) => why,
        Err(_) => format!("no answer within {} s", METADATA.as_secs()),
    };
    Err(none(&format!("{source}: {why}")))
}

fn parsed(source: &str, answer: &Secret) -> Result<Credentials, AwsError> {
    let answer: Value = serde_json::from_str(answer.expose()).unwrap_or_default();
    let field = |key| answer.get(key).and_then(Value::as_str).map(str::to_owned);
    match (field("AccessKeyId"), field("SecretAccessKey").map(Secret::new)) {
        (Some(key_id), Some(secret_key)) => {
            Ok(Credentials { key_id, secret_key, token: field("Token").map(Secret::new) })
        }
        _ => Err(none(&format!("{source} gave an answer without credentials"))),
    }
}

fn none(why: &str) -> AwsError {
    AwsError::without_credentials(&words(why, 33))
}
