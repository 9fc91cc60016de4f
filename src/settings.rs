//! The environment, read once, into types (README, "Environment"). An empty variable is unset.

use std::env;
use std::ffi::OsString;

use log::LevelFilter;

use crate::error::Failure;
use crate::kit::HubShared;
use crate::secret::Secret;

/// The whitelist of what leaves the hub in a kit, in the kit's order.
const HUB_SHARED: &str = "AES_KEY_BASE64 CENTRAL_HUB_API_URL TRUST_API_KEY_HEADER FL_BACKEND \
    FLOWER_KIT_DATE FLARE_KIT_DATE DOCKER_TAG DOCKER_REGISTRY DOCKER_FL_TAG DOCKER_FL_REGISTRY \
    NLB_SUBDOMAIN FL_SERVER_PORT";

const TLS_MODES: &[(&str, TlsMode)] = &[
    ("disable", TlsMode::Disable),
    ("prefer", TlsMode::Prefer),
    ("require", TlsMode::Require),
    ("verify-ca", TlsMode::VerifyCa),
    ("verify-full", TlsMode::VerifyFull),
];

/// There is no level above an error here: `CRITICAL` shows errors, too.
const LOG_LEVELS: &[(&str, LevelFilter)] = &[
    ("DEBUG", LevelFilter::Debug),
    ("INFO", LevelFilter::Info),
    ("WARNING", LevelFilter::Warn),
    ("ERROR", LevelFilter::Error),
    ("CRITICAL", LevelFilter::Error),
];

/// What a registration needs to know of its surroundings.
pub struct Settings {
    /// The hub's database.
    pub hub: HubSettings,
    /// The hub-shared values.
    pub hub_shared: HubShared,
    /// Where the pool's slot names are configured.
    pub slot_names: SlotSource,
}

/// Where the pool's slot names are configured.
pub enum SlotSource {
    /// `FL_KIT_SLOT_NAMES`, with its JSON; read only on a pool miss.
    Variable(Option<OsString>),
    /// SSM's parameter `/flip/fl_kit_slot_names`, in production.
    Parameter(AwsSettings),
}

/// How to reach the hub's database.
pub struct HubSettings {
    /// A host name, an address, or the directory of a Unix socket.
    pub host: String,
    /// Its port, its role and its database.
    pub port: u16,
    pub user: String,
    pub database: String,
    /// How the role proves itself.
    pub login: Login,
    /// How much TLS is asked for.
    pub tls: TlsMode,
    /// The file of authorities that are trusted instead of the system's.
    pub root_certificates: Option<String>,
}

/// How a role proves itself to the hub's database.
pub enum Login {
    /// By its password, if it has one.
    Password(Option<Secret>),
    /// By an RDS IAM token, made for each connection: in production.
    IamToken(AwsSettings),
}

/// libpq's `sslmode`: <https://www.postgresql.org/docs/current/libpq-ssl.html>.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// How to reach SSM.
#[derive(Clone)]
pub struct AwsSettings {
    /// The region's name.
    pub region: String,
    /// `http(s)://HOST[:PORT]`, if it is not AWS's own.
    pub endpoint: Option<String>,
    /// Whether an EC2 instance's metadata may be asked for credentials.
    pub instance_metadata: bool,
}

impl Settings {
    /// Reads everything but [`AwsSettings`] and the log level.
    ///
    /// # Errors
    /// The first variable that is missing or invalid.
    pub fn read() -> Result<Settings, Failure> {
        let production =
            one_of("ENV", &[("development", false), ("production", true)], str::to_owned)?;
        let production = production.unwrap_or(false);
        let host = optional("DB_HOST")?.unwrap_or_else(|| "localhost".to_owned());
        let port = optional("DB_PORT")?.unwrap_or_else(|| "5432".to_owned());
        let number = port.parse().ok().filter(|number| *number > 0);
        let tls = match one_of("PGSSLMODE", TLS_MODES, str::to_owned)? {
            Some(TlsMode::Disable | TlsMode::Prefer) if production => {
                let why = "which production refuses: use verify-full, verify-ca or require";
                let mode = required("PGSSLMODE")?;
                return Err(invalid("PGSSLMODE", format!("is {mode:?}, {why}")));
            }
            None if production => TlsMode::VerifyFull,
            None => TlsMode::Prefer,
            Some(mode) => mode,
        };
        if production && host.starts_with('/') {
            return Err(invalid(
                "DB_HOST",
                format!("is {host:?}, a socket, and production needs TLS"),
            ));
        }
        let mut root_certificates = optional("PGSSLROOTCERT")?;
        if root_certificates.as_deref() == Some("system") {
            if tls != TlsMode::VerifyFull {
                return Err(invalid(
                    "PGSSLMODE",
                    "is too weak for PGSSLROOTCERT=system: use verify-full",
                ));
            }
            root_certificates = None;
        }
        let (login, slot_names) = if production {
            let aws = AwsSettings::read()?;
            (Login::IamToken(aws.clone()), SlotSource::Parameter(aws))
        } else {
            let password = secret("POSTGRES_PASSWORD")?
                .map(|text| Secret::new(text.expose().trim().to_owned()));
            let password = password.filter(|password| !password.expose().is_empty());
            (Login::Password(password), SlotSource::Variable(raw("FL_KIT_SLOT_NAMES")))
        };
        let mut hub_shared = Vec::new();
        for key in HUB_SHARED.split_whitespace() {
            hub_shared.extend(secret(key)?.map(|value| (key, value)));
        }
        Ok(Settings {
            hub: HubSettings {
                host,
                port: number
                    .ok_or_else(|| invalid("DB_PORT", format!("is {port:?}, not a port number")))?,
                user: required("POSTGRES_USER")?,
                database: required("POSTGRES_DB")?,
                login,
                tls,
                root_certificates,
            },
            hub_shared: HubShared(hub_shared),
            slot_names,
        })
    }
}

impl AwsSettings {
    /// Reads where SSM is.
    ///
    /// # Errors
    /// The first variable that is missing or invalid.
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

/// Reads `LOG_LEVEL`.
///
/// # Errors
/// It names no level.
pub fn log_level() -> Result<LevelFilter, Failure> {
    Ok(one_of("LOG_LEVEL", LOG_LEVELS, str::to_ascii_uppercase)?.unwrap_or(LevelFilter::Info))
}

fn endpoint(variable: &str) -> Result<Option<String>, Failure> {
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

fn one_of<T: Copy>(
    variable: &str,
    words: &[(&str, T)],
    fold: fn(&str) -> String,
) -> Result<Option<T>, Failure> {
    let Some(value) = optional(variable)? else {
        return Ok(None);
    };
    let known = words.iter().find(|(word, _)| fold(&value) == *word);
    let unknown = || {
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        invalid(variable, format!("is {value:?}, not one of {}", words.join(", ")))
    };
    known.map(|(_, meaning)| Some(*meaning)).ok_or_else(unknown)
}

fn raw(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

fn optional(variable: &str) -> Result<Option<String>, Failure> {
    let value = raw(variable);
    // The value is not named: this serves secrets, too.
    value
        .map(|value| value.into_string().map_err(|_| invalid(variable, "is not UTF-8")))
        .transpose()
}

fn secret(variable: &str) -> Result<Option<Secret>, Failure> {
    Ok(optional(variable)?.map(Secret::new))
}

fn required(variable: &str) -> Result<String, Failure> {
    optional(variable)?.ok_or_else(|| invalid(variable, "is not set"))
}

fn invalid(variable: &str, problem: impl AsRef<str>) -> Failure {
    Failure::new(
        format!("{variable} {}", problem.as_ref()),
        format!("set {variable} and run again"),
    )
}
