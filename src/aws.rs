//! SSM Parameter Store. The only file that knows rusoto: it signs, sends and describes the
//! requests; limits, retries and words are ours.

use std::time::Duration;

use log::warn;
use rusoto_core::credential::{
    AwsCredentials, ContainerProvider, EnvironmentProvider, InstanceMetadataProvider,
    ProfileProvider, ProvideAwsCredentials, StaticProvider,
};
use rusoto_core::signature::SignedRequest;
use rusoto_core::{Client, HttpClient, Region};
use rusoto_ssm::{PutParameterRequest, PutParameterResult};
use serde::Deserialize;
use tokio::runtime;
use tokio::time::{Instant, sleep, timeout};
use zeroize::{Zeroize, Zeroizing};

use crate::bounded::within;
use crate::cli::ParameterName;
use crate::error::Failure;
use crate::secret::Secret;
use crate::settings::AwsSettings;

/// Longest wait for one attempt, credentials included.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Longest wait for all attempts of one call.
const ALL_ATTEMPTS: Duration = Duration::from_secs(30);

/// The pauses between attempts; each doubles the one before. With them six attempts that fail
/// at once take about six seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const MOST_ATTEMPTS: u32 = 6;

/// Longest wait for credentials from a metadata endpoint: it is on the same host.
const METADATA: Duration = Duration::from_secs(3);

/// Most characters of a standard parameter.
/// <https://docs.aws.amazon.com/general/latest/gr/ssm.html>
const LONGEST_VALUE: usize = 4096;

const DESCRIPTION: &str =
    "Ephemeral trust-kit hand-off of register-trust, to be deleted after reading";

/// The parameter store of a region.
pub struct Ssm(AwsSettings);

/// Why SSM did not do it.
struct AwsError {
    /// AWS's or the system's words.
    cause: String,
    /// The next move.
    next: &'static str,
    /// Worth another attempt.
    transient: bool,
}

impl Ssm {
    /// A store; no call is made yet.
    pub fn new(settings: AwsSettings) -> Ssm {
        Ssm(settings)
    }

    /// Writes the value as a `SecureString` under the account's default key, over whatever is
    /// there, and gives its version: 1 if nothing was.
    ///
    /// # Errors
    /// [`Failure::TooLong`] before anything is sent; [`Failure::Ssm`], after which the value may
    /// have been stored all the same.
    pub fn put(&self, name: &ParameterName, value: &Secret) -> Result<i64, Failure> {
        let length = value.expose().len();
        if length > LONGEST_VALUE {
            return Err(Failure::TooLong(length));
        }
        let failure = |error: AwsError| Failure::Ssm {
            action: format!("put {} into SSM", name.as_str()),
            cause: withhold_echo(error.cause, value),
            next: error.next,
        };
        let mut request = PutParameterRequest {
            name: name.as_str().to_owned(),
            value: value.expose().to_owned(),
            type_: Some("SecureString".to_owned()),
            overwrite: Some(true),
            description: Some(DESCRIPTION.to_owned()),
            ..PutParameterRequest::default()
        };
        let body = serde_json::to_vec(&request).map(Zeroizing::new);
        request.value.zeroize();
        let answer: PutParameterResult = body
            .map_err(AwsError::garbled)
            .and_then(|body| self.call("AmazonSSM.PutParameter", body))
            .and_then(|answer| serde_json::from_slice(&answer).map_err(AwsError::garbled))
            .map_err(failure)?;
        Ok(answer.version.unwrap_or(1))
    }

    /// One API call with all its attempts; gives the answer's body.
    fn call(&self, target: &'static str, body: Zeroizing<Vec<u8>>) -> Result<Vec<u8>, AwsError> {
        let settings = self.0.clone();
        let attempts = async move {
            let deadline = Instant::now() + ALL_ATTEMPTS;
            let mut pause = FIRST_PAUSE;
            for attempts_left in (0..MOST_ATTEMPTS).rev() {
                let limit = ATTEMPT.min(deadline.saturating_duration_since(Instant::now()));
                let error = match timeout(limit, attempt(&settings, target, &body)).await {
                    Ok(Ok(answer)) => return Ok(answer),
                    Ok(Err(error)) => error,
                    Err(_) => {
                        AwsError::transient(format!("no answer within {} s", limit.as_secs()))
                    }
                };
                if !error.transient || attempts_left == 0 || Instant::now() + pause >= deadline {
                    return Err(error);
                }
                warn!(
                    "SSM: {}; trying again in {} ms",
                    AwsError::kind(&error.cause),
                    pause.as_millis()
                );
                sleep(pause).await;
                pause *= 2;
            }
            Err(AwsError::transient("no attempt was made".to_owned()))
        };
        // The limit is for the resolver, which no timeout interrupts.
        within(ALL_ATTEMPTS + Duration::from_secs(1), move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| AwsError::transient(error.to_string()))?;
            let answer = runtime.block_on(attempts);
            runtime.shutdown_background();
            answer
        })
        .unwrap_or_else(|cause| Err(AwsError::transient(cause)))
    }
}

async fn attempt(settings: &AwsSettings, target: &str, body: &[u8]) -> Result<Vec<u8>, AwsError> {
    let region = &settings.region;
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let region = Region::Custom {
        name: region.clone(),
        endpoint: settings
            .endpoint
            .clone()
            .unwrap_or_else(|| format!("https://ssm.{region}.{domain}")),
    };
    let mut request = SignedRequest::new("POST", "ssm", &region, "/");
    request.set_content_type("application/x-amz-json-1.1".to_owned());
    request.add_header("x-amz-target", target);
    request.set_payload(Some(body.to_vec()));

    let credentials = StaticProvider::from(credentials(settings).await?);
    let http = HttpClient::new().map_err(|error| AwsError::unreachable(error.to_string()))?;
    let mut response =
        Client::new_with(credentials, http).sign_and_dispatch(request).await.map_err(|error| {
            AwsError::unreachable(
                rusoto_core::RusotoError::<std::fmt::Error>::from(error).to_string(),
            )
        })?;
    let answer =
        response.buffer().await.map_err(|error| AwsError::unreachable(error.to_string()))?;
    if answer.status.is_success() {
        return Ok(answer.body.to_vec());
    }
    let id = answer.headers.get("x-amzn-requestid").map_or("none", String::as_str);
    Err(AwsError::refused(answer.status.as_u16(), &answer.body, id))
}

/// The standard chain: environment, profile, ECS container endpoint, instance metadata.
async fn credentials(settings: &AwsSettings) -> Result<AwsCredentials, AwsError> {
    let mut tried = Vec::new();
    match EnvironmentProvider::default().credentials().await {
        Ok(credentials) => return Ok(credentials),
        Err(error) => tried.push(format!("environment: {error}")),
    }
    match ProfileProvider::new() {
        Ok(profile) => match profile.credentials().await {
            Ok(credentials) => return Ok(credentials),
            Err(error) => tried.push(format!("profile: {error}")),
        },
        Err(error) => tried.push(format!("profile: {error}")),
    }
    let mut container = ContainerProvider::new();
    container.set_timeout(METADATA);
    match container.credentials().await {
        Ok(credentials) => return Ok(credentials),
        Err(error) => tried.push(format!("container: {error}")),
    }
    if settings.instance_metadata {
        let mut instance = InstanceMetadataProvider::new();
        instance.set_timeout(METADATA);
        match instance.credentials().await {
            Ok(credentials) => return Ok(credentials),
            Err(error) => tried.push(format!("instance: {error}")),
        }
    }
    Err(AwsError {
        cause: format!("no AWS credentials ({})", tried.join("; ")),
        next: "give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        transient: false,
    })
}

/// An error as the JSON protocol carries it.
#[derive(Deserialize, Default)]
struct ErrorBody {
    #[serde(rename = "__type", default)]
    code: String,
    #[serde(alias = "Message", default)]
    message: String,
}

impl AwsError {
    fn transient(cause: String) -> AwsError {
        AwsError {
            cause,
            next: "check AWS_REGION, the endpoint and the network, and run again",
            transient: true,
        }
    }

    fn unreachable(cause: String) -> AwsError {
        let error = AwsError::transient(cause.replace(char::is_control, " "));
        if error.cause.contains("certificate") {
            let next = "check the CA bundle (SSL_CERT_FILE) and the endpoint's certificate";
            return AwsError { next, transient: false, ..error };
        }
        error
    }

    fn garbled(error: serde_json::Error) -> AwsError {
        AwsError {
            cause: format!("the answer is not SSM's: {error}"),
            next: "check AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_SSM",
            transient: false,
        }
    }

    fn refused(status: u16, body: &[u8], request_id: &str) -> AwsError {
        let body: ErrorBody = serde_json::from_slice(body).unwrap_or_default();
        // Some services put a namespace before the code.
        let code = body.code.rsplit('#').next().unwrap_or_default();
        let cause = format!("{code} (HTTP {status}, request {request_id}): {}", body.message);
        let throttled = status == 429
            || ["Throttl", "TooMany", "LimitExceededException", "SlowDown"].iter().any(|part| {
                code.contains(part) && !code.contains("Hierarchy") && !code.contains("Policies")
            });
        AwsError {
            cause: cause.replace(char::is_control, " "),
            next: match code {
                "AccessDeniedException" => {
                    "allow the role ssm:PutParameter on this name, and kms:Encrypt with the default key"
                }
                "ExpiredTokenException"
                | "UnrecognizedClientException"
                | "InvalidSignatureException"
                | "IncompleteSignatureException"
                | "InvalidClientTokenId" => "renew the AWS credentials",
                "ParameterMaxVersionLimitExceeded" | "HierarchyTypeMismatchException" => {
                    "delete the parameter or choose another name, and run again"
                }
                _ if throttled || status >= 500 => "wait a minute, and run again",
                _ => "correct what AWS names, and run again",
            },
            transient: throttled || status >= 500,
        }
    }

    /// A cause's first words: they carry no text of the request.
    fn kind(cause: &str) -> &str {
        cause.split_once("): ").map_or(cause, |(kind, _)| kind)
    }
}

/// AWS may quote a value that it refuses. A message that shares a text of the kit is withheld.
fn withhold_echo(cause: String, value: &Secret) -> String {
    if value.expose().split('"').any(|part| part.len() >= 8 && cause.contains(part)) {
        let kind = AwsError::kind(&cause);
        return format!("{kind}): the message is withheld, for it quotes the kit");
    }
    cause
}
