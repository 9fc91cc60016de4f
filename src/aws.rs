//! SSM Parameter Store, and tokens for RDS. The only file that knows rusoto: it describes and signs
//! the requests; sending, limits, retries and words are ours.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use log::warn;
use rusoto_core::Region;
use rusoto_core::credential::AwsCredentials;
use rusoto_core::signature::SignedRequest;
use rusoto_ssm::{GetParameterRequest, PutParameterRequest};
use serde::Serialize;
use serde_json::Value;
use tokio::runtime;
use tokio::time::{Instant, sleep, timeout};
use zeroize::{Zeroize, Zeroizing};

use crate::aws_error::AwsError;
use crate::credentials;
use crate::error::Failure;
use crate::http::{self, Sent};
use crate::secret::Secret;
use crate::tls::Authorities;
use crate::wait;

/// Longest wait for one attempt, credentials included; and for all attempts of one call.
const ATTEMPT: Duration = Duration::from_secs(10);
const ALL_ATTEMPTS: Duration = Duration::from_secs(30);
/// The pauses between the attempts, in ms: attempts that fail at once take six seconds together.
const PAUSES: [u64; 5] = [200, 400, 800, 1600, 3200];
/// Work that overruns its own limits is given up this much later.
const GRACE: Duration = Duration::from_secs(1);
/// Most characters of a standard parameter: <https://docs.aws.amazon.com/general/latest/gr/ssm.html>.
const LONGEST_VALUE: usize = 4096;

const DESCRIPTION: &str = "Ephemeral trust-kit hand-off, to be deleted after reading";

/// AWS in one region.
#[derive(Clone)]
pub struct Aws {
    /// The region's name.
    pub region: String,
    /// SSM's `http(s)://HOST[:PORT]`.
    pub endpoint: String,
    /// Who is trusted to sign its certificate.
    pub authorities: Authorities,
}

/// What a put left behind.
pub struct Put {
    /// The parameter's version: 1 if nothing was there before.
    pub version: Result<u64, Failure>,
    /// An attempt got no answer: it may have been stored, or may be stored later.
    pub doubt: bool,
}

/// What an answer of SSM's holds; nothing if it is not SSM's.
type Read<T> = fn(&Value) -> Option<T>;

impl Aws {
    /// Writes the value as a `SecureString` under the account's default key, over whatever is
    /// there. A value that is too long is not sent. No answer that quotes `kit` is repeated.
    pub fn put(&self, name: &str, value: &Secret, kit: &Secret) -> Put {
        let length = value.expose().len();
        if length > LONGEST_VALUE {
            let what = format!(
                "the kit has {length} characters, but an SSM parameter holds at most \
                 {LONGEST_VALUE}; it was not sent"
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
        let read: Read<u64> = |answer| answer.get("Version")?.as_u64().filter(|it| *it > 0);
        let (version, doubt) = self.call("AmazonSSM.PutParameter", &request, Some(kit), read);
        request.value.zeroize();
        let step = format!("put {name} into SSM");
        Put { version: version.map_err(|error| error.failure.during(&step)), doubt }
    }

    /// The text of a parameter, decrypted if it is encrypted.
    pub fn get(&self, name: &str) -> Result<String, Failure> {
        let request = GetParameterRequest { name: name.to_owned(), with_decryption: Some(true) };
        let read: Read<String> =
            |answer| answer.pointer("/Parameter/Value")?.as_str().map(str::to_owned);
        self.call("AmazonSSM.GetParameter", &request, None, read).0.map_err(|error| error.failure)
    }

    /// A login token for RDS: a presigned URL without its scheme, valid for 15 minutes.
    /// <https://docs.aws.amazon.com/AmazonRDS/latest/UserGuide/UsingWithRDS.IAMDBAuth.Connecting.html>
    /// Errors: there are no credentials to sign with.
    pub fn rds_token(&self, address: &str, user: &str, limit: Duration) -> Result<Secret, Failure> {
        let found = run(limit, async move { within(limit, credentials::find()).await });
        let credentials =
            found.map_err(|error| error.failure.during("sign the login to the hub"))?;
        let region = self.region_at(format!("https://{address}"));
        let mut request = SignedRequest::new("GET", "rds-db", &region, "/");
        request.add_param("Action", "connect");
        request.add_param("DBUser", user);
        let minutes = Duration::from_secs(900);
        let url = request.generate_presigned_url(&rusotos(&credentials), &minutes, true);
        let url = Secret::new(url);
        Ok(Secret::new(url.expose().trim_start_matches("https://").to_owned()))
    }

    /// One API call with all its attempts, and whether one of them got no answer.
    fn call<T: Send + 'static>(
        &self,
        target: &'static str,
        request: &impl Serialize,
        secret: Option<&Secret>,
        read: Read<T>,
    ) -> (Result<T, AwsError>, bool) {
        // A buffer that need not grow: growing leaves unwiped copies behind.
        let mut body = Zeroizing::new(Vec::with_capacity(4 * LONGEST_VALUE));
        // Strings into memory: nothing can fail, and SSM would refuse what is cut short.
        let _ = serde_json::to_writer(&mut *body, request);
        let (aws, sent) = (self.clone(), Arc::<Sent>::default());
        let ours = sent.clone();
        let secret = secret.map(|it| Secret::new(it.expose().to_owned()));
        let limit = wait::patience(ALL_ATTEMPTS);
        let answer = run(limit, async move {
            let deadline = Instant::now() + limit;
            let mut pauses = PAUSES.into_iter().map(Duration::from_millis);
            loop {
                let limit = ATTEMPT.min(deadline - Instant::now());
                let attempt = aws.attempt(target, &body, read, &ours);
                let error = match within(limit, attempt).await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => secret.iter().fold(error, AwsError::withholding),
                };
                match pauses.next() {
                    Some(pause) if error.transient && Instant::now() + pause < deadline => {
                        let (what, ms) = (error.failure.what, pause.as_millis());
                        warn!("SSM: {what}; trying again in {ms} ms");
                        sleep(pause).await;
                    }
                    _ => return Err(error),
                }
            }
        });
        sent.given_up.store(true, SeqCst);
        (answer, sent.unanswered.load(SeqCst) > 0)
    }

    async fn attempt<T>(
        &self,
        target: &str,
        body: &[u8],
        read: Read<T>,
        sent: &Sent,
    ) -> Result<T, AwsError> {
        let region = self.region_at(self.endpoint.clone());
        let mut request = SignedRequest::new("POST", "ssm", &region, "/");
        request.set_content_type("application/x-amz-json-1.1".to_owned());
        request.add_header("x-amz-target", target);
        request.set_payload(Some(body.to_vec()));
        let credentials = credentials::find().await?;
        request.sign(&rusotos(&credentials));
        let request = request.try_into().map_err(|_| AwsError::unusable())?;
        let answer = http::send(request, &self.authorities, sent).await;
        let answer = answer.map_err(AwsError::unreachable)?;
        let text: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let read = match (200..300).contains(&answer.status) {
            true => read(&text).ok_or_else(AwsError::not_ssm),
            false => Err(AwsError::refused(&answer, &text)),
        };
        if read.as_ref().map_or_else(|error| error.from_ssm, |_| true) {
            sent.unanswered.fetch_sub(1, SeqCst);
        }
        read.map_err(|error| credentials.token.iter().fold(error, AwsError::withholding))
    }

    fn region_at(&self, endpoint: String) -> Region {
        Region::Custom { name: self.region.clone(), endpoint }
    }
}

fn rusotos(credentials: &credentials::Credentials) -> AwsCredentials {
    let credentials::Credentials { key_id, secret_key, token } = credentials;
    let token = token.as_ref().map(|token| token.expose().to_owned());
    AwsCredentials::new(key_id, secret_key.expose(), token, None)
}

/// Does the work while the caller waits.
fn run<T: Send + 'static>(
    limit: Duration,
    work: impl Future<Output = Result<T, AwsError>> + Send + 'static,
) -> Result<T, AwsError> {
    wait::within(limit + GRACE, AwsError::late, move || {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::internal(error.to_string()))?;
        let done = runtime.block_on(work);
        // A resolver that was given up may still be at work: it is not waited for.
        runtime.shutdown_background();
        done
    })?
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, AwsError>>,
) -> Result<T, AwsError> {
    timeout(limit, work).await.unwrap_or_else(|_| Err(AwsError::late(limit)))
}
