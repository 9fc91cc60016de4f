//! The environment, read once, into types (README, "Environment"). An empty variable is unset.

use std::env;
use std::ffi::OsString;

use hyper::http::uri::Authority;
use log::LevelFilter;
use postgres::config::SslMode;

use crate::aws::Aws;
use crate::error::Failure;
use crate::kit::HubShared;
use crate::secret::Secret;
use crate::tls::{Tls, Verify};

/// The whitelist of what leaves the hub in a kit, in the kit's order.
const HUB_SHARED: &str = "AES_KEY_BASE64 CENTRAL_HUB_API_URL TRUST_API_KEY_HEADER FL_BACKEND \
    FLOWER_KIT_DATE FLARE_KIT_DATE DOCKER_TAG DOCKER_REGISTRY DOCKER_FL_TAG DOCKER_FL_REGISTRY \
    NLB_SUBDOMAIN FL_SERVER_PORT";

/// What a registration needs to know of its surroundings.
pub struct Settings {
    /// The hub's database: a host name, an address, or the directory of a Unix socket.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub database: String,
    pub ssl_mode: SslMode,
    pub tls: Tls,
    pub stage: Stage,
    pub hub_shared: HubShared,
}

/// What `ENV` decides: how the role proves itself, and who configures the pool's slot names.
pub enum Stage {
    /// By a password, if it has one; `FL_KIT_SLOT_NAMES`, looked at only on a pool miss.
    Development { password: Option<Secret>, slot_names: Option<OsString> },
    /// By an RDS IAM token made for each connection; an SSM parameter.
    Production(Aws),
}

impl Settings {
    /// Reads everything but the log level and, in development, [`Aws`].
    /// Errors: the first variable that is missing or invalid.
    pub fn read() -> Result<Settings, Failure> {
        let production = [("development", false), ("production", true)];
        let production = one_of("ENV", &production, str::to_owned)?.unwrap_or(false);
        let host = optional("DB_HOST")?.unwrap_or_else(|| "localhost".to_owned());
        let on_socket = host.starts_with('/');
        if on_socket && production {
            return Err(invalid("DB_HOST", &host, "not a host that can be reached over TLS"));
        }
        let port = optional("DB_PORT")?.unwrap_or_else(|| "5432".to_owned());
        let number = port.parse().ok().filter(|number| *number > 0);
        let (mut ssl_mode, tls) = tls(&host, production)?;
        if on_socket {
            // libpq, too, knows no TLS there.
            ssl_mode = SslMode::Disable;
        }
        let mut hub_shared = Vec::new();
        for key in HUB_SHARED.split_whitespace() {
            hub_shared.extend(optional(key)?.map(|value| (key, Secret::new(value))));
        }
        Ok(Settings {
            host,
            port: number.ok_or_else(|| invalid("DB_PORT", &port, "not a port number"))?,
            user: required("POSTGRES_USER")?,
            database: required("POSTGRES_DB")?,
            ssl_mode,
            tls,
            stage: if production {
                Stage::Production(aws()?)
            } else {
                let password = optional("POSTGRES_PASSWORD")?.map(Secret::new);
                let slot_names = raw("FL_KIT_SLOT_NAMES");
                Stage::Development { password: password.and_then(Secret::trimmed), slot_names }
            },
            hub_shared: HubShared(hub_shared),
        })
    }
}

/// Reads where AWS is.
/// Errors: the first variable that is missing or invalid.
pub fn aws() -> Result<Aws, Failure> {
    let region = required("AWS_REGION")?;
    if !region.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Err(invalid("AWS_REGION", &region, "not a region's name"));
    }
    let endpoint = match endpoint("AWS_ENDPOINT_URL_SSM")? {
        None => endpoint("AWS_ENDPOINT_URL")?,
        own => own,
    };
    let disabled = optional("AWS_EC2_METADATA_DISABLED")?;
    let instance_metadata = !disabled.is_some_and(|value| value.eq_ignore_ascii_case("true"));
    Ok(Aws { region, endpoint, instance_metadata })
}

/// Reads `LOG_LEVEL`.
/// Errors: it names no level.
pub fn log_level() -> Result<LevelFilter, Failure> {
    let levels = [
        ("DEBUG", LevelFilter::Debug),
        ("INFO", LevelFilter::Info),
        ("WARNING", LevelFilter::Warn),
        ("ERROR", LevelFilter::Error),
        // There is no level above an error here.
        ("CRITICAL", LevelFilter::Error),
    ];
    Ok(one_of("LOG_LEVEL", &levels, str::to_ascii_uppercase)?.unwrap_or(LevelFilter::Info))
}

/// `PGSSLMODE` and `PGSSLROOTCERT` with libpq's meanings, and no weaker mode than production
/// allows: <https://www.postgresql.org/docs/current/libpq-ssl.html>.
fn tls(host: &str, production: bool) -> Result<(SslMode, Tls), Failure> {
    let modes = [
        ("disable", (SslMode::Disable, Verify::Nothing)),
        ("prefer", (SslMode::Prefer, Verify::Nothing)),
        ("require", (SslMode::Require, Verify::Nothing)),
        ("verify-ca", (SslMode::Require, Verify::Authority)),
        ("verify-full", (SslMode::Require, Verify::Host)),
    ];
    let [_, prefer, allowed @ ..] = &modes;
    let (default, modes) =
        if production { (modes[4].1, &allowed[..]) } else { (prefer.1, &modes[..]) };
    let (mode, verify) = one_of("PGSSLMODE", modes, str::to_owned)?.unwrap_or(default);
    let mut tls = Tls { host: host.to_owned(), verify, authorities: optional("PGSSLROOTCERT")? };
    match &tls.authorities {
        Some(file) if file == "system" && verify == Verify::Host => tls.authorities = None,
        Some(file) if file == "system" => {
            return Err(invalid("PGSSLROOTCERT", file, "not allowed below PGSSLMODE=verify-full"));
        }
        // With authorities given, `require` verifies like `verify-ca`.
        Some(_) if mode == SslMode::Require => tls.verify = verify.max(Verify::Authority),
        _ => {}
    }
    Ok((mode, tls))
}

fn endpoint(variable: &str) -> Result<Option<String>, Failure> {
    let Some(url) = optional(variable)? else {
        return Ok(None);
    };
    let url = url.trim_end_matches('/');
    let host = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    // HOST[:PORT] by hyper's rules; put together again it shows whether there was more, or less.
    let authority = host.and_then(|host| host.parse::<Authority>().ok()).filter(|it| {
        let port = it.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        !it.host().is_empty() && [it.host(), &port].concat() == it.as_str()
    });
    match authority {
        Some(_) => Ok(Some(url.to_owned())),
        None => Err(invalid(variable, url, "not http(s)://HOST[:PORT]")),
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
    match words.iter().find(|(word, _)| fold(&value) == *word) {
        Some((_, meaning)) => Ok(Some(*meaning)),
        None => {
            let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            Err(invalid(variable, &value, &format!("not one of {}", words.join(", "))))
        }
    }
}

fn raw(variable: &str) -> Option<OsString> {
    env::var_os(variable).filter(|value| !value.is_empty())
}

fn optional(variable: &str) -> Result<Option<String>, Failure> {
    // The value is not named: this serves secrets, too.
    let not_utf8 = |_| unusable(format!("{variable} is not UTF-8"), variable);
    raw(variable).map(|value| value.into_string().map_err(not_utf8)).transpose()
}

fn required(variable: &str) -> Result<String, Failure> {
    optional(variable)?.ok_or_else(|| unusable(format!("{variable} is not set"), variable))
}

fn invalid(variable: &str, value: &str, problem: &str) -> Failure {
    unusable(format!("{variable} is {value:?}, {problem}"), variable)
}

fn unusable(what: String, variable: &str) -> Failure {
    Failure::new(what, format!("set {variable} and run again"))
}
