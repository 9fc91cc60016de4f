//! Why AWS did not do it, in words that hold no secret: AWS may quote what it refuses.

use std::env;
use std::time::Duration;

use serde_json::Value;

use crate::error::{Failure, words};
use crate::http::{Answer, HttpError};
use crate::secret::Secret;
use crate::tls::TlsError;
use crate::wait;

/// A call that failed.
pub struct AwsError {
    /// The kind of error, in our words or as AWS's code.
    pub kind: String,
    /// AWS's own words, if it answered.
    message: String,
    /// What to do about it.
    next: String,
    /// Worth another attempt.
    pub transient: bool,
    /// SSM itself refused: the request is not carried out, now or later.
    pub from_ssm: bool,
}

impl AwsError {
    fn ours(kind: impl Into<String>, next: &str, transient: bool) -> AwsError {
        let (kind, next, message) = (kind.into(), next.to_owned(), String::new());
        AwsError { kind, message, next, transient, from_ssm: false }
    }

    /// An answer, but none that SSM gives.
    pub fn not_ssm() -> AwsError {
        let next = "check AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_SSM, and run again";
        AwsError::ours("the answer is not SSM's", next, false)
    }

    /// What the settings hold cannot stand in a request.
    pub fn unusable() -> AwsError {
        let next = "check AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_SSM and the AWS credentials";
        AwsError::ours("the request cannot be built", next, false)
    }

    /// Nothing to sign with, and why.
    pub fn without_credentials(why: &str) -> AwsError {
        let next = "give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        AwsError::ours(format!("no AWS credentials ({why})"), next, false)
    }

    /// A signal came.
    pub fn interrupted() -> AwsError {
        let failure = wait::interrupted();
        AwsError::ours(failure.what, &failure.next, false)
    }

    /// No fault of AWS's.
    pub fn internal(why: &str) -> AwsError {
        AwsError::ours(why, "report this message", false)
    }

    /// No answer in time.
    pub fn late(limit: Duration) -> AwsError {
        AwsError::unreachable(HttpError::Other(format!(
            "no answer within {:.0} s",
            limit.as_secs_f32().ceil()
        )))
    }

    /// No answer, or a broken one.
    pub fn unreachable(error: HttpError) -> AwsError {
        let proxy = ["HTTPS_PROXY", "https_proxy"].iter().find(|it| env::var_os(it).is_some());
        let proxy = proxy.map(|it| format!("; {it} is set, and no proxy is used"));
        let (kind, next, transient) = match error {
            HttpError::Tls(error @ (TlsError::Certificate(_) | TlsError::Authorities(_))) => {
                let next = "check the authorities (AWS_CA_BUNDLE, SSL_CERT_FILE) and the \
                            endpoint's certificate";
                (error.to_string(), next, false)
            }
            HttpError::Tls(error) => (error.to_string(), "check the endpoint, and run again", true),
            HttpError::Other(why) => {
                (why, "check AWS_REGION, the endpoint and the network, and run again", true)
            }
        };
        let kind = words(&kind, 64) + &proxy.unwrap_or_default();
        AwsError::ours(kind, next, transient)
    }

    /// An answer that is no success, in the JSON protocol's form:
    /// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/CommonErrors.html>.
    pub fn refused(answer: &Answer, body: &Value) -> AwsError {
        let status = answer.status;
        let text = |key| body.get(key).and_then(Value::as_str);
        // Some services put a namespace before the code.
        let code = text("__type").and_then(|code| code.rsplit('#').next());
        let message = text("message").or_else(|| text("Message")).unwrap_or_default();
        let id = answer.headers.get("x-amzn-requestid").and_then(|id| id.to_str().ok());
        let transient = status >= 500
            || [408, 429].contains(&status)
            || ["Throttl", "TooMany", "RequestLimit"]
                .iter()
                .any(|word| code.is_some_and(|code| code.contains(word)));
        let skewed = ["Signature expired", "not yet current"].iter().any(|it| message.contains(it));
        let next = match code.unwrap_or_default() {
            "AccessDeniedException" => {
                "allow the role ssm:PutParameter on this name (ssm:GetParameter on the slot names), \
                 and the default key; then run again"
            }
            "ParameterNotFound" => {
                "create it: aws ssm put-parameter --type String --value '[\"Trust_1\"]' --name \
                 /flip/fl_kit_slot_names"
            }
            "RequestExpired" | "InvalidSignatureException" if skewed => {
                "set the clock of this host, and run again"
            }
            "ExpiredTokenException"
            | "UnrecognizedClientException"
            | "InvalidSignatureException" => "renew the AWS credentials, and run again",
            "ParameterMaxVersionLimitExceeded" | "HierarchyTypeMismatchException" => {
                "delete the parameter or choose another name, and run again"
            }
            _ if transient => "wait a minute, and run again",
            _ => "correct what AWS names, and run again",
        };
        let (plain, id) = (code.map_or("error", plain), id.map_or("none", plain));
        AwsError {
            kind: format!("{plain} (HTTP {status}, request {id})"),
            message: words(message, 64),
            next: next.to_owned(),
            transient,
            from_ssm: code.is_some(),
        }
    }

    /// What failed, in AWS's words and ours. The step is the caller's to name.
    pub fn into_failure(self) -> Failure {
        let AwsError { kind, message, next, .. } = self;
        let message = if message.is_empty() { message } else { format!(": {message}") };
        Failure::new(kind + &message, next)
    }

    /// Without AWS's words, if they repeat a part of this: a value of the kit, or eight characters of
    /// what looks random.
    pub fn withholding(mut self, secret: &Secret) -> AwsError {
        let words = [&self.kind, &self.message].map(|words| words.as_bytes());
        let repeats = |part: &str| {
            let random = part.len() >= 20 && !part.contains(['.', ' ']);
            let shortest = if random { 8 } else { part.len().max(4) };
            let mut ours = part.as_bytes().windows(shortest);
            ours.any(|own| words.iter().any(|it| it.windows(own.len()).any(|theirs| theirs == own)))
        };
        if secret.expose().split('"').any(repeats) {
            self.kind = "AWS refused".to_owned();
            self.message = "its answer is withheld, for it quotes a secret".to_owned();
        }
        self
    }
}

/// A code or an id, if it is short and plain. Anything else may quote a secret.
fn plain(text: &str) -> &str {
    let fits = text.len() <= 60 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits && words(text, 33) == text { text } else { "unreadable" }
}
