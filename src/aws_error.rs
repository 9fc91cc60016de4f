//! Why AWS did not do it, in words that hold no secret: AWS may quote what it refuses.

use std::fmt::Display;

use serde_json::Value;

use crate::error::{Failure, one_line};
use crate::secret::Secret;
use crate::wait;

/// A call that failed.
pub struct AwsError {
    /// The kind of error, in our words or as a plain code: no text of the request.
    pub kind: String,
    /// AWS's own words, if it answered.
    pub message: String,
    /// What to do about it.
    pub next: &'static str,
    /// Worth another attempt.
    pub transient: bool,
    /// The request may have been carried out, or may be carried out later.
    pub unanswered: bool,
}

impl AwsError {
    fn ours(kind: &str, next: &'static str, transient: bool) -> AwsError {
        AwsError {
            kind: one_line(kind),
            message: String::new(),
            next,
            transient,
            unanswered: false,
        }
    }

    /// An answer, but none that SSM gives.
    pub fn not_ssm() -> AwsError {
        let next = "check AWS_ENDPOINT_URL and AWS_ENDPOINT_URL_SSM, and run again";
        AwsError { unanswered: true, ..AwsError::ours("the answer is not SSM's", next, false) }
    }

    /// Nothing to sign with, and why.
    pub fn without_credentials(tried: &str) -> AwsError {
        let next = "give the task a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
        AwsError::ours(&format!("no AWS credentials ({tried})"), next, false)
    }

    /// No answer, or a broken one.
    pub fn unreachable(cause: impl Display) -> AwsError {
        let cause = cause.to_string();
        let (next, transient) = if cause.contains("certificate") {
            ("check the CA bundle (SSL_CERT_FILE) and the endpoint's certificate", false)
        } else if cause.contains("error building request") || cause.contains("error parsing header")
        {
            ("check AWS_ENDPOINT_URL, AWS_ENDPOINT_URL_SSM and the AWS credentials", false)
        } else {
            ("check AWS_REGION, the endpoint and the network, and run again", true)
        };
        let unanswered = transient && !cause.contains("error trying to connect");
        AwsError { unanswered, ..AwsError::ours(&cause, next, transient) }
    }

    /// A signal came.
    pub fn interrupted() -> AwsError {
        let failure = wait::interrupted();
        AwsError::ours(&failure.what, "run again when you are ready", false)
    }

    /// An answer that is no success, in the JSON protocol's form:
    /// <https://docs.aws.amazon.com/systems-manager/latest/APIReference/CommonErrors.html>.
    pub fn refused(status: u16, body: &[u8], request_id: &str) -> AwsError {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |key| body.get(key).and_then(Value::as_str);
        // Some services put a namespace before the code.
        let code = text("__type").and_then(|code| code.rsplit('#').next()).unwrap_or("error");
        let code = plain(code);
        let message = text("message").or_else(|| text("Message")).unwrap_or_default();
        let transient = status >= 500
            || [408, 429].contains(&status)
            || ["Throttl", "TooMany", "RequestLimit"].iter().any(|word| code.contains(word));
        let next = match code {
            "AccessDeniedException" => {
                "allow the role ssm:PutParameter on this name (ssm:GetParameter on the slot names), \
                 and the default key; then run again"
            }
            "ParameterNotFound" => {
                "create it: aws ssm put-parameter --type String --value '[\"Trust_1\"]' --name \
                 /flip/fl_kit_slot_names"
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
        AwsError {
            kind: format!("{code} (HTTP {status}, request {})", plain(request_id)),
            message: one_line(&format!(": {message}")),
            next,
            transient,
            unanswered: false,
        }
    }

    /// What failed, in AWS's words and ours. The step is the caller's to name.
    pub fn into_failure(self) -> Failure {
        Failure::new(format!("{}{}", self.kind, self.message), self.next)
    }

    /// Without AWS's words, if they repeat a value of the kit, or eight characters of one that
    /// looks random, or a signed request.
    pub fn withholding(mut self, kit: &Secret) -> AwsError {
        let message = self.message.as_bytes();
        let repeats = |part: &str| {
            let random = part.len() >= 20 && !part.contains(['.', ' ']);
            let shortest = if random { 8 } else { part.len().max(4) };
            let mut ours = part.as_bytes().windows(shortest);
            ours.any(|own| message.windows(own.len()).any(|theirs| theirs == own))
        };
        if self.message.to_ascii_lowercase().contains("x-amz-security-token")
            || kit.expose().split('"').any(repeats)
        {
            self.message = ": the message is withheld, for it quotes the kit".to_owned();
        }
        self
    }
}

/// Whatever is no plain word is not shown: it could be a quote of the request.
fn plain(text: &str) -> &str {
    let fits = text.len() <= 40 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if fits { text } else { "unreadable" }
}
