//! The environment, read once, into types (doc/reference.md, "Environment").

use std::ffi::OsString;
use std::net::IpAddr;

use log::LevelFilter;

use crate::aws::Aws;
use crate::endpoint;
use crate::environment::{invalid, one_of, optional, raw, required, wrong};
use crate::error::{Failure, repeats, words};
use crate::kit::HubShared;
use crate::secret::Secret;
use crate::tls::{Authorities, Tls, Verify};
use crate::wire::{Need, Wire};

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
    pub wire: Wire,
    pub stage: Stage,
    pub hub_shared: HubShared,
}

/// What `ENV` decides: how the role proves itself, and who configures the pool's slot names.
pub enum Stage {
    /// By a password, if it has one; `FL_KIT_SLOT_NAMES`, looked at only when no slot is free.
    Development { password: Option<Secret>, slot_names: Option<OsString> },
    /// By an RDS IAM token made for each connection; an SSM parameter.
    Production(Aws),
}

impl Settings {
    /// The hub's words for the log, unless they repeat the password.
    pub fn shown(&self, text: &str) -> String {
        match &self.stage {
            Stage::Development { password: Some(it), .. }
                if repeats(text, it.expose().as_bytes()) =>
            {
                "a name that is not shown, because it repeats the password".to_owned()
            }
            _ => words(text, 16),
        }
    }

    /// Reads everything but the log level and, in development, [`Aws`].
    /// Errors: the first variable that is missing or invalid.
    pub fn read() -> Result<Settings, Failure> {
        let production = [("development", false), ("production", true)];
        let production = one_of("ENV", &production, str::to_owned)?.unwrap_or(false);
        let host = optional("DB_HOST")?.unwrap_or_else(|| "localhost".to_owned());
        if !is_host(&host) {
            // A URL can hold a password.
            let what = "DB_HOST is not a host name, an address or the path of a directory";
            return Err(wrong(what.to_owned(), "DB_HOST"));
        }
        if host.starts_with('/') && production {
            return Err(invalid("DB_HOST", &host, "not a host that can be reached over TLS"));
        }
        let port = optional("DB_PORT")?.unwrap_or_else(|| "5432".to_owned());
        let number = port.parse().ok().filter(|number| *number > 0);
        let wire = wire(&host, production)?;
        let mut hub_shared = Vec::new();
        for key in HUB_SHARED.split_whitespace() {
            hub_shared.extend(optional(key)?.map(|value| (key, Secret::new(value))));
        }
        Ok(Settings {
            host,
            port: number.ok_or_else(|| invalid("DB_PORT", &port, "not a port number"))?,
            user: required(&["POSTGRES_USER"])?.1,
            database: required(&["POSTGRES_DB"])?.1,
            wire,
            stage: if production {
                let aws = endpoint::aws()?;
                endpoint::warn_of_plain_http(&aws.endpoint);
                Stage::Production(aws)
            } else {
                let password = optional("POSTGRES_PASSWORD")?.map(Secret::new);
                let slot_names = raw("FL_KIT_SLOT_NAMES");
                Stage::Development { password: password.and_then(Secret::trimmed), slot_names }
            },
            hub_shared: HubShared(hub_shared),
        })
    }
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
fn wire(host: &str, production: bool) -> Result<Wire, Failure> {
    let modes = [
        ("disable", (Need::None, Verify::Nothing)),
        ("prefer", (Need::IfOffered, Verify::Nothing)),
        ("require", (Need::Always, Verify::Nothing)),
        ("verify-ca", (Need::Always, Verify::Authority)),
        ("verify-full", (Need::Always, Verify::Host)),
    ];
    let [_, (_, prefer), strict @ ..] = &modes;
    let [.., (_, verify_full)] = &modes;
    let (default, modes) =
        if production { (verify_full, &strict[..]) } else { (prefer, &modes[..]) };
    let (need, mut verify) = one_of("PGSSLMODE", modes, str::to_owned)?.unwrap_or(*default);
    let variable = "PGSSLROOTCERT";
    let authorities = match optional(variable)? {
        Some(path) if path != "system" => {
            // With authorities given, `require` verifies like `verify-ca`.
            if need == Need::Always {
                verify = verify.max(Verify::Authority);
            }
            Authorities::File { variable, path }
        }
        Some(system) if verify != Verify::Host => {
            return Err(invalid(variable, &system, "not allowed below PGSSLMODE=verify-full"));
        }
        None if verify == Verify::Authority => {
            let what = "PGSSLMODE is verify-ca, and PGSSLROOTCERT names no file: with the system's \
                        authorities any host could show a certificate that passes";
            return Err(wrong(what.to_owned(), variable));
        }
        _ => Authorities::System,
    };
    Ok(Wire { need, tls: Tls { host: host.to_owned(), verify, authorities } })
}

/// A host name by RFC 1123, with the underscores that containers' names have; an address; a path.
fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    let is_name = host.len() <= 253 && host.trim_end_matches('.').split('.').all(is_label);
    host.starts_with('/') || host.parse::<IpAddr>().is_ok() || is_name
}
