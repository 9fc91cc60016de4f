//! Why AWS did not do it, in words that hold no secret: AWS may quote what it refuses.

use std::env;
use std::time::Duration;

use serde_json::Value;

use crate::error::{Failure, repeats, words};
use crate::http::{Answer, HttpError};
use crate::secret::Secret;
use crate::tls::TlsError;
use crate::wait;

/// A call that failed.
pub struct AwsError {
    pub failure: Failure,
    /// Worth another attempt.
    pub transient: bool,
    /// SSM itself refused: the request is not carried out, now or later.
    pub from_ssm: bool,
}

impl From<Failure> for AwsError {
    fn from(failure: Failure) -> AwsError {
        AwsError { failure, transient: false, from_ssm: false }
    }
}

impl AwsError {
    /// An answer, but none that SSM gives.
    pub fn not_ssm() -> AwsError {
        let next = "check AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_SSM, and run again";
        Failure::new("the answer does not come from SSM", next).into()
    }

    /// What the settings hold cannot stand in a request.
    pub fn unusable() -> AwsError {
        let next = "check AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_SSM and the AWS credentials";
        Failure::new("the request cannot be built", next).into()
    }

    /// Nothing to sign with, and why.
    pub fn without_credentials(why: &str) -> AwsError {
        let next = "give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        Failure::new(format!("no AWS credentials ({why})"), next).into()
    }

    /// No answer in time.
    pub fn late(limit: Duration) -> AwsError {
        AwsError::unreachable(HttpError::Other(wait::no_answer(limit)))
    }

    /// No answer, or a broken one.
    pub fn unreachable(error: HttpError) -> AwsError {
        let proxy = ["HTTPS_PROXY", "https_proxy"].iter().find(|it| env::var_os(it).is_some());
        let proxy = proxy.map(|it| format!("; {it} is set, but proxies are not supported"));
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
        AwsError { failure: Failure::new(kind, next), transient, from_ssm: false }
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
                "correct the clock of this host, and run again"
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
        let colon = if message.is_empty() { "" } else { ": " };
        // A task's session has a name of 32 hexadecimal digits.
        let message = words(message, 33);
        let what = format!("{plain} (HTTP {status}, request {id}){colon}{message}");
        AwsError { failure: Failure::new(what, next), transient, from_ssm: code.is_some() }
    }

    /// Without AWS's words, if they repeat a part of this: a value of the kit, or eight characters of
    /// what looks random.
    pub fn withholding(mut self, secret: &Secret) -> AwsError {
        let is_repeated = |part: &str| {
            let random = part.len() >= 20 && !part.contains(['.', ' ']);
            let shortest = if random { 8 } else { part.len().max(4) };
            part.as_bytes().windows(shortest).any(|own| repeats(&self.failure.what, own))
        };
        if secret.expose().split('"').any(is_repeated) {
            let what = "AWS refused: its answer is not shown, because it quotes a secret";
            self.failure.what = what.to_owned();
        }
        self
    }
}

/// A code or an id, if it is short and plain. Anything else may quote a secret.
fn plain(text: &str) -> &str {
    let fits = text.len() <= 60 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits && words(text, 33) == text { text } else { "unreadable" }
}
