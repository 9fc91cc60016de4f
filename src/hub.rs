//! A connection to the hub's database: address, TLS, password, and no wait without an end.

use std::error::Error;
use std::fs;
use std::time::Duration;

use log::debug;
use native_tls::{Certificate, TlsConnector};
use postgres::config::SslMode;
use postgres::error::SqlState;
use postgres::{Client, Config, NoTls};
use postgres_native_tls::MakeTlsConnector;

use crate::bounded::within;
use crate::error::Failure;
use crate::settings::{HubSettings, TlsMode};

/// Longest wait for a connection that is ready for statements.
pub const CONNECT: Duration = Duration::from_secs(10);

/// Longest wait for a statement's answer. The server's own limit of 30 s comes first, and
/// explains itself better.
pub const STATEMENT: Duration = Duration::from_secs(32);

/// A connection. Dropping it ends the session, and with it an open transaction.
pub struct Hub {
    client: Option<Client>,
}

/// Why the hub gave no answer.
pub struct HubError {
    /// In the server's or the system's words. No `DETAIL`: it can hold a whole row.
    pub cause: String,
    /// The SQLSTATE, if the server answered.
    pub code: Option<SqlState>,
}

impl Hub {
    /// Connects and logs in, within `limit`.
    ///
    /// # Errors
    /// [`Failure::Connect`], or [`Failure::Setting`] for certificates that cannot be read.
    pub fn connect(settings: &HubSettings, limit: Duration) -> Result<Hub, Failure> {
        let on_socket = settings.host.starts_with('/');
        // libpq, too, knows no TLS on a Unix socket.
        let mode = if on_socket { TlsMode::Disable } else { settings.tls };
        let mut config = Config::new();
        config
            .port(settings.port)
            .user(&settings.user)
            .dbname(&settings.database)
            .application_name("register-trust")
            .connect_timeout(limit)
            // A server's notice can hold anything; ours hold nothing.
            .notice_callback(|_| {});
        if on_socket {
            config.host_path(&settings.host);
        } else {
            config.host(&settings.host);
        }
        if let Some(password) = &settings.password {
            config.password(password.expose());
        }
        let attempt = |config: &Config, tls: Option<MakeTlsConnector>| {
            let config = config.clone();
            within(limit, move || match tls {
                Some(connector) => config.connect(connector),
                None => config.connect(NoTls),
            })
        };
        let mut connected = match mode {
            TlsMode::Disable => attempt(config.ssl_mode(SslMode::Disable), None),
            TlsMode::Prefer => attempt(config.ssl_mode(SslMode::Prefer), Some(tls(settings)?)),
            _ => attempt(config.ssl_mode(SslMode::Require), Some(tls(settings)?)),
        };
        if let (TlsMode::Prefer, Ok(Err(error))) = (mode, &connected)
            && error.source().is_some_and(|cause| cause.is::<native_tls::Error>())
        {
            debug!("no TLS with the hub: {}", describe(error).cause);
            connected = attempt(config.ssl_mode(SslMode::Disable), None);
        }
        let error = match connected {
            Ok(Ok(client)) => {
                return Ok(Hub { client: Some(client) });
            }
            Ok(Err(error)) => describe(&error),
            Err(cause) => HubError { cause, code: None },
        };
        let HubSettings { user, host, port, database, .. } = settings;
        Err(Failure::Connect {
            hub: format!("{user}@{host}:{port}/{database}"),
            next: login_advice(&error),
            cause: error.cause,
        })
    }

    /// Asks the server and waits for the answer, for at most `limit`.
    ///
    /// # Errors
    /// [`HubError`]. Where no answer came in time the connection is not used again.
    pub fn ask<T: Send + 'static>(
        &mut self,
        limit: Duration,
        question: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, HubError> {
        let lost = |cause| HubError { cause, code: None };
        let mut client =
            self.client.take().ok_or_else(|| lost("the connection is gone".to_owned()))?;
        let (client, answer) = within(limit, move || {
            let answer = question(&mut client);
            (client, answer)
        })
        .map_err(lost)?;
        self.client = Some(client);
        answer.map_err(|error| describe(&error))
    }
}

/// The connector for a TLS mode that is not `disable`, with libpq's meanings.
fn tls(settings: &HubSettings) -> Result<MakeTlsConnector, Failure> {
    let setting = |problem| Failure::Setting { variable: "PGSSLROOTCERT", problem };
    let mut builder = TlsConnector::builder();
    let verify = match settings.tls {
        TlsMode::Disable | TlsMode::Prefer => false,
        // libpq: with authorities given, `require` verifies like `verify-ca`.
        TlsMode::Require => settings.root_certificates.is_some(),
        TlsMode::VerifyCa | TlsMode::VerifyFull => true,
    };
    if !verify {
        // No authority is asked, so the system's need not be loaded.
        builder.danger_accept_invalid_certs(true).disable_built_in_roots(true);
    } else if let Some(path) = &settings.root_certificates {
        let unusable = |why: String| setting(format!("is {path:?}, which cannot be used: {why}"));
        let pem = fs::read(path).map_err(|error| unusable(error.to_string()))?;
        let authorities =
            Certificate::stack_from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
        if authorities.is_empty() {
            return Err(unusable("it holds no certificate".to_owned()));
        }
        builder.disable_built_in_roots(true);
        for authority in authorities {
            builder.add_root_certificate(authority);
        }
    }
    builder.danger_accept_invalid_hostnames(settings.tls != TlsMode::VerifyFull);
    let connector = builder.build().map_err(|error| setting(format!("cannot be used: {error}")))?;
    Ok(MakeTlsConnector::new(connector))
}

/// An error in words, on one line, its causes included.
fn describe(error: &postgres::Error) -> HubError {
    if let Some(server) = error.as_db_error() {
        let message = server.message().replace(char::is_control, " ");
        let cause = format!("{message} (SQLSTATE {})", server.code().code());
        return HubError { cause, code: Some(server.code().clone()) };
    }
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        cause = format!("{cause}: {inner}");
        source = inner.source();
    }
    HubError { cause: cause.replace(char::is_control, " "), code: None }
}

fn login_advice(error: &HubError) -> &'static str {
    match error.code.as_ref().map(SqlState::code) {
        Some("28P01") => "check POSTGRES_USER and POSTGRES_PASSWORD",
        Some("28000") => "let the hub's pg_hba.conf admit this host, user and TLS mode (PGSSLMODE)",
        Some("3D000") => "check POSTGRES_DB",
        Some("53300") => "wait until the hub has connections to spare, and run again",
        Some("57P03") => "wait until the hub's database is up, and run again",
        Some(_) => "look into the hub's database log",
        None if error.cause.contains("password") => "set POSTGRES_PASSWORD",
        None => "check DB_HOST, DB_PORT and PGSSLMODE, and that the hub's database is up",
    }
}
