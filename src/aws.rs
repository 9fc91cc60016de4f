//! SSM Parameter Store, and tokens for RDS. The only file that knows rusoto: it signs, sends and
//! describes the requests; limits, retries and words are ours.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::warn;
use rusoto_core::credential::{
    AwsCredentials, ContainerProvider, EnvironmentProvider, InstanceMetadataProvider,
    ProfileProvider, ProvideAwsCredentials, StaticProvider,
};
use rusoto_core::signature::SignedRequest;
use rusoto_core::{Client, HttpClient, Region, RusotoError};
use rusoto_ssm::{
    GetParameterRequest, GetParameterResult, PutParameterRequest, PutParameterResult,
};
use serde_json::Value;
use tokio::runtime;
use tokio::time::{Instant, sleep, timeout};
use zeroize::{Zeroize, Zeroizing};

use crate::bounded::within;
use crate::cli::ParameterName;
use crate::error::{Failure, one_line};
use crate::secret::Secret;
use crate::settings::AwsSettings;

/// Longest wait for one attempt, credentials included.
const ATTEMPT: Duration = Duration::from_secs(10);

/// Longest wait for all attempts of one call.
const ALL_ATTEMPTS: Duration = Duration::from_secs(30);

/// The pauses between the attempts, in ms: attempts that fail at once take six seconds together.
const PAUSES: [u64; 5] = [200, 400, 800, 1600, 3200];

/// Longest wait for a metadata endpoint: it is on the same host.
const METADATA: Duration = Duration::from_secs(3);

/// Most characters of a standard parameter: <https://docs.aws.amazon.com/general/latest/gr/ssm.html>.
const LONGEST_VALUE: usize = 4096;

const DESCRIPTION: &str =
    "Ephemeral trust-kit hand-off of register-trust, to be deleted after reading";

/// The parameter store of a region.
pub struct Ssm(AwsSettings);

/// What a put left behind.
pub struct Stored {
    /// The parameter's version: 1 if nothing was there before.
    pub version: i64,
    /// Attempts before the last one may have been stored, too.
    pub retried: bool,
}

/// Why AWS did not do it.
struct AwsError {
    /// The kind of error, in our words or as a plain code: no text of the request.
    kind: String,
    /// AWS's own words, if it answered.
    message: String,
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
    /// there.
    ///
    /// # Errors
    /// A value that is too long is not sent. After any other error it may have been stored.
    pub fn put(&self, name: &ParameterName, value: &Secret) -> Result<Stored, Failure> {
        let length = value.expose().len();
        if length > LONGEST_VALUE {
            return Err(Failure::new(
                format!(
                    "the kit has {length} characters, an SSM parameter holds {LONGEST_VALUE}; it was not sent"
                ),
                "shorten the hub-shared values, and run again",
            ));
        }
        let mut request = PutParameterRequest {
            name: name.as_str().to_owned(),
            value: value.expose().to_owned(),
            type_: Some("SecureString".to_owned()),
            overwrite: Some(true),
            description: Some(DESCRIPTION.to_owned()),
            ..PutParameterRequest::default()
        };
        let body = to_body(&request);
        request.value.zeroize();
        let retried = Arc::new(AtomicBool::new(false));
        let answer = self.call("AmazonSSM.PutParameter", body, &retried).and_then(|answer| {
            // Without a version nothing says that it was stored.
            let answer: PutParameterResult =
                serde_json::from_slice(&answer).map_err(|_| not_ssm())?;
            answer.version.filter(|version| *version > 0).ok_or_else(not_ssm)
        });
        let retried = retried.load(Ordering::Relaxed);
        answer.map(|version| Stored { version, retried }).map_err(|mut error| {
            if quotes(&error.message, value) {
                error.message = ": the message is withheld, for it quotes the kit".to_owned();
            }
            let AwsError { kind, message, next, .. } = error;
            Failure::new(format!("cannot put {name} into SSM: {kind}{message}"), next)
        })
    }

    /// The text of a parameter, decrypted if it is encrypted.
    ///
    /// # Errors
    /// Why it cannot be read, and what to do about it.
    pub fn get(&self, name: &str) -> Result<String, String> {
        let request = GetParameterRequest { name: name.to_owned(), with_decryption: Some(true) };
        let answer = self.call("AmazonSSM.GetParameter", to_body(&request), &Arc::default());
        let value = answer.and_then(|answer| {
            let answer: GetParameterResult =
                serde_json::from_slice(&answer).map_err(|_| not_ssm())?;
            answer.parameter.and_then(|parameter| parameter.value).ok_or_else(not_ssm)
        });
        value.map_err(|AwsError { kind, message, next, .. }| match kind.split(' ').next() {
            Some("AccessDeniedException") => format!("{kind}{message}; allow the role ssm:GetParameter on it"),
            Some("ParameterNotFound") => format!(
                "{kind}; create it: aws ssm put-parameter --name {name} --type String --value '[\"Trust_1\"]'"
            ),
            _ => format!("{kind}{message}; {next}"),
        })
    }

    /// One API call with all its attempts; gives the answer's body.
    fn call(
        &self,
        target: &'static str,
        body: Zeroizing<Vec<u8>>,
        retried: &Arc<AtomicBool>,
    ) -> Result<Vec<u8>, AwsError> {
        let (settings, retried) = (self.0.clone(), retried.clone());
        run(ALL_ATTEMPTS, async move {
            let deadline = Instant::now() + ALL_ATTEMPTS;
            let mut pauses = PAUSES.map(Duration::from_millis).into_iter();
            loop {
                let limit = ATTEMPT.min(deadline.saturating_duration_since(Instant::now()));
                let late =
                    || unreachable(&format!("no answer within {:.0} s", limit.as_secs_f32()));
                let answer = timeout(limit, attempt(&settings, target, &body)).await;
                let error = match answer.unwrap_or_else(|_| Err(late())) {
                    Ok(answer) => return Ok(answer),
                    Err(error) => error,
                };
                match pauses.next() {
                    Some(pause) if error.transient && Instant::now() + pause < deadline => {
                        warn!("SSM: {}; trying again in {} ms", error.kind, pause.as_millis());
                        retried.store(true, Ordering::Relaxed);
                        sleep(pause).await;
                    }
                    _ => return Err(error),
                }
            }
        })
    }
}

/// A login token for RDS: a presigned URL without its scheme, valid for 15 minutes.
/// <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.Connecting.html>
///
/// # Errors
/// There are no credentials to sign with.
pub fn rds_token(
    settings: &AwsSettings,
    address: &str,
    user: &str,
    limit: Duration,
) -> Result<Secret, Failure> {
    let own = settings.clone();
    let credentials = run(limit, async move {
        let late = |_| Err(unreachable("AWS credentials: no answer in time"));
        timeout(limit, credentials(&own)).await.unwrap_or_else(late)
    });
    let credentials = credentials.map_err(|AwsError { kind, next, .. }| {
        Failure::new(format!("cannot sign the login to the hub: {kind}"), next)
    })?;
    let region =
        Region::Custom { name: settings.region.clone(), endpoint: format!("https://{address}") };
    let mut request = SignedRequest::new("GET", "rds-db", &region, "/");
    request.add_param("Action", "connect");
    request.add_param("DBUser", user);
    let url =
        Secret::new(request.generate_presigned_url(&credentials, &Duration::from_secs(900), true));
    Ok(Secret::new(url.expose().trim_start_matches("https://").to_owned()))
}

/// Runs AWS's side of things. The limit here is for the resolver, which no timeout interrupts.
fn run<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = Result<T, AwsError>> + Send + 'static,
) -> Result<T, AwsError> {
    let answer = within(limit + Duration::from_millis(500), move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| unreachable(&error.to_string()))?;
        let answer = runtime.block_on(work);
        runtime.shutdown_background();
        answer
    });
    answer.unwrap_or_else(|cause| Err(unreachable(&cause)))
}

async fn attempt(settings: &AwsSettings, target: &str, body: &[u8]) -> Result<Vec<u8>, AwsError> {
    let name = settings.region.clone();
    let domain = if name.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let endpoint =
        settings.endpoint.clone().unwrap_or_else(|| format!("https://ssm.{name}.{domain}"));
    let mut request = SignedRequest::new("POST", "ssm", &Region::Custom { name, endpoint }, "/");
    request.set_content_type("application/x-amz-json-1.1".to_owned());
    request.add_header("x-amz-target", target);
    request.set_payload(Some(body.to_vec()));

    let credentials = StaticProvider::from(credentials(settings).await?);
    let http = HttpClient::new().map_err(|error| unreachable(&error.to_string()))?;
    let answer = Client::new_with(credentials, http).sign_and_dispatch(request).await;
    let words = |error| RusotoError::<std::fmt::Error>::from(error).to_string();
    let mut answer = answer.map_err(|error| unreachable(&words(error)))?;
    let answer = answer.buffer().await.map_err(|error| unreachable(&error.to_string()))?;
    if answer.status.is_success() {
        return Ok(answer.body.to_vec());
    }
    let id = answer.headers.get("x-amzn-requestid").map_or("none", String::as_str);
    Err(refused(answer.status.as_u16(), &answer.body, id))
}

/// The standard chain: environment, profile, ECS container endpoint, instance metadata.
async fn credentials(settings: &AwsSettings) -> Result<AwsCredentials, AwsError> {
    let mut container = ContainerProvider::new();
    container.set_timeout(METADATA);
    let mut sources: Vec<(_, Box<dyn ProvideAwsCredentials + Send + Sync>)> =
        vec![("environment", Box::new(EnvironmentProvider::default()))];
    if let Ok(profile) = ProfileProvider::new() {
        sources.push(("profile", Box::new(profile)));
    }
    sources.push(("container", Box::new(container)));
    if settings.instance_metadata {
        let mut instance = InstanceMetadataProvider::new();
        instance.set_timeout(METADATA);
        sources.push(("instance", Box::new(instance)));
    }
    let mut tried = Vec::new();
    for (source, provider) in sources {
        match provider.credentials().await {
            Ok(credentials) => return Ok(credentials),
            // A parser's message quotes what it read; what comes before the quote is enough.
            Err(error) => tried
                .push(format!("{source}: {}", error.message.split('"').next().unwrap_or_default())),
        }
    }
    let kind = one_line(&format!("no AWS credentials ({})", tried.join("; ")));
    let next = "give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    Err(AwsError { kind, message: String::new(), next, transient: false })
}

/// No answer, or a broken one.
fn unreachable(cause: &str) -> AwsError {
    let (next, transient) = if cause.contains("certificate") {
        ("check the CA bundle (SSL_CERT_FILE) and the endpoint's certificate", false)
    } else if cause.contains("error building request") || cause.contains("error parsing header") {
        ("check AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_SSM and the AWS credentials", false)
    } else {
        ("check AWS_REGION, the endpoint and the network, and run again", true)
    };
    AwsError { kind: one_line(cause), message: String::new(), next, transient }
}

/// An answer that is no success, in the JSON protocol's form.
fn refused(status: u16, body: &[u8], request_id: &str) -> AwsError {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |key| body.get(key).and_then(Value::as_str);
    // Whatever is no plain word is not shown: it could be a quote of the request.
    let plain = |text: &str| {
        let fits = text.len() <= 40 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if fits { text.to_owned() } else { "unreadable".to_owned() }
    };
    // Some services put a namespace before the code.
    let code = plain(text("__type").and_then(|code| code.rsplit('#').next()).unwrap_or("error"));
    let message = text("message").or_else(|| text("Message")).unwrap_or_default();
    let busy = status >= 500
        || [408, 429].contains(&status)
        || ["Throttl", "TooMany", "RequestLimit"].iter().any(|word| code.contains(word));
    AwsError {
        kind: format!("{code} (HTTP {status}, request {})", plain(request_id)),
        message: one_line(&format!(": {message}")),
        next: match code.as_str() {
            "AccessDeniedException" => {
                "allow the role ssm:PutParameter on this name, and kms:Encrypt with the default key"
            }
            "ExpiredTokenException"
            | "UnrecognizedClientException"
            | "InvalidSignatureException" => "renew the AWS credentials",
            "ParameterMaxVersionLimitExceeded" | "HierarchyTypeMismatchException" => {
                "delete the parameter or choose another name, and run again"
            }
            _ if busy => "wait a minute, and run again",
            _ => "correct what AWS names, and run again",
        },
        transient: busy,
    }
}

/// Whether a message repeats a value of the kit, or eight characters of one that looks random,
/// or a signed request: AWS may quote what it refuses.
fn quotes(message: &str, kit: &Secret) -> bool {
    let shares = |part: &str| {
        let random = part.len() >= 20 && !part.contains(['.', ' ']);
        part.len() >= 4
            && part
                .as_bytes()
                .windows(if random { 8 } else { part.len() })
                .any(|own| message.as_bytes().windows(own.len()).any(|theirs| theirs == own))
    };
    message.to_ascii_lowercase().contains("x-amz-security-token")
        || kit.expose().split('"').any(shares)
}

fn not_ssm() -> AwsError {
    let next = "check AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_SSM";
    AwsError {
        kind: "the answer is not SSM's".to_owned(),
        message: String::new(),
        next,
        transient: false,
    }
}

/// The request as JSON, in a buffer that need not grow: growing leaves unwiped copies behind.
fn to_body(request: &impl serde::Serialize) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(Vec::with_capacity(4 * LONGEST_VALUE));
    // Strings into memory: nothing can fail, and SSM would refuse what is cut short.
    let _ = serde_json::to_writer(&mut *body, request);
    body
}
