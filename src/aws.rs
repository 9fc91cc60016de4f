//! SSM Parameter Store, and tokens for RDS. The only file that knows rusoto: it signs, sends and
//! describes the requests; limits, retries and words are ours.

use std::panic::{self, AssertUnwindSafe};
use std::time::Duration;

use hyper::client::HttpConnector;
use log::warn;
use rusoto_core::credential::{
    AwsCredentials, ContainerProvider, EnvironmentProvider, InstanceMetadataProvider,
    ProfileProvider, ProvideAwsCredentials,
};
use rusoto_core::signature::SignedRequest;
use rusoto_core::{DispatchSignedRequest, HttpClient, Region};
use rusoto_ssm::{GetParameterRequest, GetParameterResult};
use rusoto_ssm::{PutParameterRequest, PutParameterResult};
use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime;
use tokio::time::{Instant, sleep, timeout};
use zeroize::{Zeroize, Zeroizing};

use crate::aws_error::AwsError;
use crate::error::Failure;
use crate::secret::Secret;
use crate::wait::{self, Stop};

/// Longest wait for one attempt, credentials included; and for all attempts of one call.
const ATTEMPT: Duration = Duration::from_secs(10);
const ALL_ATTEMPTS: Duration = Duration::from_secs(30);
/// The pauses between the attempts, in ms: attempts that fail at once take six seconds together.
const PAUSES: [u64; 5] = [200, 400, 800, 1600, 3200];
/// Longest wait for a metadata endpoint: it is on the same host.
const METADATA: Duration = Duration::from_secs(3);
/// Most characters of a standard parameter: <https://docs.aws.amazon.com/general/latest/gr/ssm.html>.
const LONGEST_VALUE: usize = 4096;

const DESCRIPTION: &str = "Ephemeral trust-kit hand-off, to be deleted after reading";

/// AWS in one region.
#[derive(Clone)]
pub struct Aws {
    /// The region's name.
    pub region: String,
    /// SSM's `http(s)://HOST[:PORT]`, if it is not AWS's own.
    pub endpoint: Option<String>,
    /// Whether an EC2 instance's metadata may be asked for credentials.
    pub instance_metadata: bool,
}

/// What a put left behind.
pub struct Put {
    /// The parameter's version: 1 if nothing was there before.
    pub version: Result<i64, Failure>,
    /// An attempt got no answer: it may have been stored, or may be stored later.
    pub doubt: bool,
}

impl Aws {
    /// Writes the value as a `SecureString` under the account's default key, over whatever is
    /// there.
    /// Errors: a value that is too long is not sent. After any other error it may have been stored.
    pub fn put(&self, name: &str, value: &Secret) -> Put {
        let length = value.expose().len();
        if length > LONGEST_VALUE {
            let what = format!(
                "the kit has {length} characters, an SSM parameter holds {LONGEST_VALUE}; it was \
                 not sent"
            );
            let failure = Failure::new(what, "shorten the hub-shared values, and run again");
            return Put { version: Err(failure), doubt: false };
        }
        let mut request = PutParameterRequest {
            name: name.to_owned(),
            value: value.expose().to_owned(),
            type_: Some("SecureString".to_owned()),
            overwrite: Some(true),
            description: Some(DESCRIPTION.to_owned()),
            ..PutParameterRequest::default()
        };
        let (answer, mut doubt) =
            self.call::<PutParameterResult>("AmazonSSM.PutParameter", &request);
        request.value.zeroize();
        // Without a version nothing says that it was stored.
        let version = answer.and_then(|answer| match answer.version {
            Some(version) if version > 0 => Ok(version),
            _ => Err(AwsError::not_ssm()),
        });
        doubt |= version.as_ref().is_err_and(|error| error.unanswered);
        let step = format!("put {name} into SSM");
        let version =
            version.map_err(|error| error.withholding(value).into_failure().during(&step));
        Put { version, doubt }
    }

    /// The text of a parameter, decrypted if it is encrypted.
    pub fn get(&self, name: &str) -> Result<String, Failure> {
        let request = GetParameterRequest { name: name.to_owned(), with_decryption: Some(true) };
        let answer = self.call::<GetParameterResult>("AmazonSSM.GetParameter", &request);
        let value = answer.0.and_then(|answer| {
            answer.parameter.and_then(|it| it.value).ok_or_else(AwsError::not_ssm)
        });
        value.map_err(AwsError::into_failure)
    }

    /// A login token for RDS: a presigned URL without its scheme, valid for 15 minutes.
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.Connecting.html>
    /// Errors: there are no credentials to sign with.
    pub fn rds_token(&self, address: &str, user: &str, limit: Duration) -> Result<Secret, Failure> {
        let credentials = block_on(within(limit, self.credentials()));
        let credentials = credentials
            .map_err(|error| error.into_failure().during("sign the login to the hub"))?;
        let region = self.region_at(format!("https://{address}"));
        let mut request = SignedRequest::new("GET", "rds-db", &region, "/");
        request.add_param("Action", "connect");
        request.add_param("DBUser", user);
        let minutes = Duration::from_secs(900);
        let url = Secret::new(request.generate_presigned_url(&credentials, &minutes, true));
        Ok(Secret::new(url.expose().trim_start_matches("https://").to_owned()))
    }

    /// One API call with all its attempts, and whether one of them got no answer.
    fn call<T: DeserializeOwned>(
        &self,
        target: &str,
        request: &impl Serialize,
    ) -> (Result<T, AwsError>, bool) {
        // A buffer that need not grow: growing leaves unwiped copies behind.
        let mut body = Zeroizing::new(Vec::with_capacity(4 * LONGEST_VALUE));
        // Strings into memory: nothing can fail, and SSM would refuse what is cut short.
        let _ = serde_json::to_writer(&mut *body, request);
        let (aws, target) = (self.clone(), target.to_owned());
        let limit = wait::patience(ALL_ATTEMPTS);
        let called = wait::within(limit + METADATA, move || {
            let mut unanswered = false;
            let answer = block_on(aws.attempts(&target, &body, limit, &mut unanswered));
            (answer, unanswered)
        });
        let (answer, unanswered) = called.unwrap_or_else(|stop| match stop {
            Stop::Interrupted => (Err(AwsError::interrupted()), true),
            Stop::Late(_) | Stop::Broken(_) => (Err(AwsError::not_ssm()), true),
        });
        let answer = answer
            .and_then(|answer| serde_json::from_slice(&answer).map_err(|_| AwsError::not_ssm()));
        (answer, unanswered)
    }

    async fn attempts(
        &self,
        target: &str,
        body: &[u8],
        limit: Duration,
        unanswered: &mut bool,
    ) -> Result<Vec<u8>, AwsError> {
        let deadline = Instant::now() + limit;
        let mut pauses = PAUSES.into_iter().map(Duration::from_millis);
        loop {
            let limit = ATTEMPT.min(deadline - Instant::now());
            let error = match within(limit, self.attempt(target, body)).await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            *unanswered |= error.unanswered;
            match pauses.next() {
                Some(pause) if error.transient && Instant::now() + pause < deadline => {
                    warn!("SSM: {}; trying again in {} ms", error.kind, pause.as_millis());
                    sleep(pause).await;
                }
                _ => return Err(error),
            }
        }
    }

    async fn attempt(&self, target: &str, body: &[u8]) -> Result<Vec<u8>, AwsError> {
        let domain = if self.region.starts_with("cn-") { ".cn" } else { "" };
        let own = || format!("https://ssm.{}.amazonaws.com{domain}", self.region);
        let endpoint = self.endpoint.clone().unwrap_or_else(own);
        // rusoto's own client loads the system's authorities, which takes longer than a
        // registration; plain http (LocalStack, moto) has no use for them.
        let http: Box<dyn DispatchSignedRequest + Send + Sync> = match &endpoint {
            url if url.starts_with("http://") => {
                Box::new(HttpClient::from_connector(HttpConnector::new()))
            }
            _ => Box::new(HttpClient::new().map_err(AwsError::unreachable)?),
        };
        let mut request = SignedRequest::new("POST", "ssm", &self.region_at(endpoint), "/");
        request.set_content_type("application/x-amz-json-1.1".to_owned());
        request.add_header("x-amz-target", target);
        request.set_payload(Some(body.to_vec()));
        request.sign(&self.credentials().await?);

        let mut answer = http.dispatch(request, None).await.map_err(AwsError::unreachable)?;
        let body = answer.buffer().await.map_err(AwsError::unreachable)?.body;
        if answer.status.is_success() {
            return Ok(body.to_vec());
        }
        let id = answer.headers.get("x-amzn-requestid").map_or("none", String::as_str);
        Err(AwsError::refused(answer.status.as_u16(), &body, id))
    }

    fn region_at(&self, endpoint: String) -> Region {
        Region::Custom { name: self.region.clone(), endpoint }
    }

    /// The standard chain: environment, profile, ECS container endpoint, instance metadata.
    async fn credentials(&self) -> Result<AwsCredentials, AwsError> {
        let mut container = ContainerProvider::new();
        let mut instance = InstanceMetadataProvider::new();
        container.set_timeout(METADATA);
        instance.set_timeout(METADATA);
        let profile = ProfileProvider::new().ok();
        let environment = EnvironmentProvider::default();
        let chain: [(_, Option<&(dyn ProvideAwsCredentials + Sync)>); 4] = [
            ("environment", Some(&environment)),
            ("profile", profile.as_ref().map(|profile| profile as _)),
            ("container", Some(&container)),
            ("instance", self.instance_metadata.then_some(&instance as _)),
        ];
        let mut tried = Vec::new();
        for (source, provider) in chain {
            let Some(provider) = provider else { continue };
            match provider.credentials().await {
                Ok(credentials) => return Ok(credentials),
                // A parser's message quotes what it read; what comes before the quote is enough.
                Err(error) => {
                    let why = error.message.split(['"', '[']).next().unwrap_or_default().trim_end();
                    tried.push(format!("{source}: {why}"));
                }
            }
        }
        Err(AwsError::without_credentials(&tried.join("; ")))
    }
}

fn block_on<T>(work: impl Future<Output = Result<T, AwsError>>) -> Result<T, AwsError> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(AwsError::unreachable)?;
    // rusoto panics over an answer's header that is not ASCII.
    let answer = panic::catch_unwind(AssertUnwindSafe(|| runtime.block_on(work)));
    // A resolver that was given up may still be at work: it is not waited for.
    runtime.shutdown_background();
    answer.unwrap_or_else(|_| Err(AwsError::not_ssm()))
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, AwsError>>,
) -> Result<T, AwsError> {
    let late = || AwsError::unreachable(format!("no answer within {:.0} s", limit.as_secs_f32()));
    timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}
