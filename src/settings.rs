//! The environment, read once, into types (README, "Environment"). An empty variable is unset.

use std::env;
use std::path::PathBuf;

use log::LevelFilter;

use crate::error::Failure;
use crate::kit::HubShared;
use crate::secret::Secret;

/// The whitelist of what leaves the hub in a kit, in the kit's order.
const HUB_SHARED: [&str; 12] = [
    "AES_KEY_BASE64",
    "CENTRAL_HUB_API_URL",
    "TRUST_API_KEY_HEADER",
    "FL_BACKEND",
    "FLOWER_KIT_DATE",
    "FLARE_KIT_DATE",
    "DOCKER_TAG",
    "DOCKER_REGISTRY",
    "DOCKER_FL_TAG",
    "DOCKER_FL_REGISTRY",
    "NLB_SUBDOMAIN",
    "FL_SERVER_PORT",
];

/// What a registration needs to know of its surroundings.
pub struct Settings {
    /// The hub's database.
    pub hub: HubSettings,
    /// The hub-shared values.
    pub hub_shared: HubShared,
    /// The pool's slot names, as configured: JSON.
    pub slot_names: Option<String>,
}

/// How to reach the hub's database.
pub struct HubSettings {
    /// A host name, an address, or the directory of a Unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
    /// The role.
    pub user: String,
    /// The database.
    pub database: String,
    /// The role's password, if it has one.
    pub password: Option<Secret>,
    /// How much TLS is asked for.
    pub tls: TlsMode,
    /// The authorities that are trusted, instead of the system's.
    pub root_certificates: Option<PathBuf>,
}

/// libpq's `sslmode`.
///
/// <https://www.postgresql.org/docs/current/libpq-ssl.html>
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    /// Never TLS.
    Disable,
    /// TLS if the server has it, unverified.
    Prefer,
    /// TLS, unverified unless authorities are given.
    Require,
    /// TLS with a certificate from a trusted authority.
    VerifyCa,
    /// The same, and for the host that was asked for.
    VerifyFull,
}

/// How to reach SSM.
#[derive(Clone)]
pub struct AwsSettings {
    /// The region's name.
    pub region: String,
    /// `http://` or `https://`, host and port, if it is not AWS's own.
    pub endpoint: Option<String>,
    /// Whether an EC2 instance's metadata may be asked for credentials.
    pub instance_metadata: bool,
}

impl Settings {
    /// Reads everything but [`AwsSettings`] and the log level.
    ///
    /// # Errors
    /// [`Failure::Setting`], for the first variable that is missing or invalid.
    pub fn read() -> Result<Settings, Failure> {
        match optional("ENV")?.as_deref() {
            None | Some("development") => {}
            Some("production") => {
                return Err(invalid("ENV", "is production, which this version cannot do yet"));
            }
            Some(other) => {
                return Err(invalid("ENV", format!("is {other:?}, not development or production")));
            }
        }
        let port = optional("DB_PORT")?.map_or(Ok(5432), |port| match port.parse() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(invalid("DB_PORT", format!("is {port:?}, not a port number"))),
        })?;
        let tls = match optional("PGSSLMODE")?.as_deref() {
            Some("disable") => TlsMode::Disable,
            None | Some("prefer") => TlsMode::Prefer,
            Some("require") => TlsMode::Require,
            Some("verify-ca") => TlsMode::VerifyCa,
            Some("verify-full") => TlsMode::VerifyFull,
            Some(other) => {
                let modes = "disable, prefer, require, verify-ca or verify-full";
                return Err(invalid("PGSSLMODE", format!("is {other:?}, not {modes}")));
            }
        };
        let mut hub_shared = Vec::new();
        for key in HUB_SHARED {
            if let Some(value) = secret(key)? {
                hub_shared.push((key, value));
            }
        }
        let password =
            secret("POSTGRES_PASSWORD")?.map(|p| Secret::new(p.expose().trim().to_owned()));
        Ok(Settings {
            hub: HubSettings {
                host: optional("DB_HOST")?.unwrap_or_else(|| "localhost".to_owned()),
                port,
                user: required("POSTGRES_USER")?,
                database: required("POSTGRES_DB")?,
                password: password.filter(|password| !password.expose().is_empty()),
                tls,
                root_certificates: optional("PGSSLROOTCERT")?.map(PathBuf::from),
            },
            hub_shared: HubShared(hub_shared),
            slot_names: optional("FL_KIT_SLOT_NAMES")?,
        })
    }
}

impl AwsSettings {
    /// Reads where SSM is.
    ///
    /// # Errors
    /// [`Failure::Setting`].
    pub fn read() -> Result<AwsSettings, Failure> {
        let region = required("AWS_REGION")?;
        if !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
            return Err(invalid("AWS_REGION", format!("is {region:?}, not a region's name")));
        }
        let endpoint = match endpoint("AWS_ENDPOINT_URL_SSM")? {
            None => endpoint("AWS_ENDPOINT_URL")?,
            own => own,
        };
        let disabled = optional("AWS_EC2_METADATA_DISABLED")?;
        let instance_metadata = !disabled.is_some_and(|value| value.eq_ignore_ascii_case("true"));
        Ok(AwsSettings { region, endpoint, instance_metadata })
    }
}

fn endpoint(variable: &'static str) -> Result<Option<String>, Failure> {
    let Some(url) = optional(variable)? else {
        return Ok(None);
    };
    let url = url.trim_end_matches('/');
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ']) => {
            Ok(Some(url.to_owned()))
        }
        _ => Err(invalid(variable, format!("is {url:?}, not http(s)://HOST[:PORT]"))),
    }
}

/// Reads `LOG_LEVEL`. There is no level above `ERROR` here: `CRITICAL` shows errors, too.
///
/// # Errors
/// [`Failure::Setting`].
pub fn log_level() -> Result<LevelFilter, Failure> {
    let Some(level) = optional("LOG_LEVEL")? else {
        return Ok(LevelFilter::Info);
    };
    match level.to_ascii_uppercase().as_str() {
        "DEBUG" => Ok(LevelFilter::Debug),
        "INFO" => Ok(LevelFilter::Info),
        "WARNING" => Ok(LevelFilter::Warn),
        "ERROR" | "CRITICAL" => Ok(LevelFilter::Error),
        _ => {
            let levels = "DEBUG, INFO, WARNING, ERROR or CRITICAL";
            Err(invalid("LOG_LEVEL", format!("is {level:?}, not {levels}")))
        }
    }
}

fn optional(variable: &'static str) -> Result<Option<String>, Failure> {
    let Some(value) = env::var_os(variable).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    // The value is not named: this serves secrets, too.
    let text = value.into_string().map_err(|_| invalid(variable, "is not UTF-8"))?;
    Ok(Some(text))
}

fn secret(variable: &'static str) -> Result<Option<Secret>, Failure> {
    Ok(optional(variable)?.map(Secret::new))
}

fn required(variable: &'static str) -> Result<String, Failure> {
    optional(variable)?.ok_or_else(|| invalid(variable, "is not set"))
}

fn invalid(variable: &'static str, problem: impl Into<String>) -> Failure {
    Failure::Setting { variable, problem: problem.into() }
}
