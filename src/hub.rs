//! A connection to the hub's database: address, TLS, password, and no wait without an end.

use std::error::Error;
use std::time::{Duration, Instant};

use log::debug;
use postgres::config::SslMode;
use postgres::error::SqlState;
use postgres::{Client, Config};

use crate::aws::rds_token;
use crate::bounded::within;
use crate::error::{Failure, one_line};
use crate::settings::{HubSettings, Login, TlsMode};
use crate::tls::Tls;

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
    /// Why there is none, and what to look at.
    pub fn connect(settings: &HubSettings, limit: Duration) -> Result<Hub, Failure> {
        let deadline = Instant::now() + limit;
        let on_socket = settings.host.starts_with('/');
        // libpq, too, knows no TLS on a Unix socket.
        let mode = if on_socket { TlsMode::Disable } else { settings.tls };
        let mut config = Config::new();
        config
            .port(settings.port)
            .user(&settings.user)
            .dbname(&settings.database)
            .application_name("register-trust")
            // One dead address of a host leaves time for its others.
            .connect_timeout(limit / 3)
            // A server's notice can hold anything; ours hold nothing.
            .notice_callback(|_| {});
        if on_socket {
            config.host_path(&settings.host);
        } else {
            config.host(&settings.host);
        }
        match &settings.login {
            Login::Password(None) => {}
            Login::Password(Some(password)) => {
                config.password(password.expose());
            }
            Login::IamToken(aws) => {
                let address = format!("{}:{}", settings.host, settings.port);
                config.password(rds_token(aws, &address, &settings.user, limit)?.expose());
            }
        }
        let tls = Tls {
            mode,
            root_certificates: settings.root_certificates.clone(),
            host: settings.host.clone(),
        };
        let attempt = |config: &Config| {
            let (config, tls) = (config.clone(), tls.clone());
            within(deadline.saturating_duration_since(Instant::now()), move || config.connect(tls))
        };
        let mut connected = attempt(config.ssl_mode(match mode {
            TlsMode::Disable => SslMode::Disable,
            TlsMode::Prefer => SslMode::Prefer,
            TlsMode::Require | TlsMode::VerifyCa | TlsMode::VerifyFull => SslMode::Require,
        }));
        // libpq: where TLS is only preferred, a failed handshake is no reason to give up, and
        // neither is a pg_hba.conf that wants none.
        if let (TlsMode::Prefer, Ok(Err(error))) = (mode, &connected)
            && (error.to_string().contains("TLS handshake")
                || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION))
        {
            debug!("{}; going on without TLS", describe(error).cause);
            connected = attempt(config.ssl_mode(SslMode::Disable));
        }
        let error = match connected {
            Ok(Ok(client)) => {
                return Ok(Hub { client: Some(client) });
            }
            Ok(Err(error)) => describe(&error),
            Err(cause) => HubError { cause, code: None },
        };
        let HubSettings { user, host, port, database, .. } = settings;
        let address = format!("{user}@{host}:{port}/{database}");
        let what = format!("cannot connect to the hub at {address:?}: {}", error.cause);
        Err(Failure::new(what, login_advice(&error, settings)))
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

/// An error in words, on one line, its causes included.
fn describe(error: &postgres::Error) -> HubError {
    if let Some(server) = error.as_db_error() {
        let message = one_line(server.message());
        let cause = format!("{message} (SQLSTATE {})", server.code().code());
        return HubError { cause, code: Some(server.code().clone()) };
    }
    let mut cause = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        cause = format!("{cause}: {inner}");
        source = inner.source();
    }
    HubError { cause: one_line(&cause), code: None }
}

fn login_advice(error: &HubError, settings: &HubSettings) -> &'static str {
    let says = |text| error.cause.contains(text);
    let production = matches!(settings.login, Login::IamToken(_));
    match error.code.as_ref().map(SqlState::code) {
        Some("28P01" | "28000") if production => {
            "grant rds_iam to POSTGRES_USER, and allow the task's role rds-db:connect as that user"
        }
        Some("28P01") => "check POSTGRES_USER and POSTGRES_PASSWORD",
        Some("28000") => "let the hub's pg_hba.conf admit this host, user and TLS mode (PGSSLMODE)",
        Some("3D000") => "check POSTGRES_DB",
        Some("53300") => "wait until the hub has connections to spare, and run again",
        Some("57P03") => "wait until the hub's database is up, and run again",
        Some(_) => "look into the hub's database log",
        None if says("mismatch") => "set DB_HOST to a name that the hub's certificate holds",
        None if says("PGSSLROOTCERT") => {
            "set PGSSLROOTCERT to a PEM file of the authorities that signed the hub's certificate"
        }
        None if says("certificate") => {
            "set PGSSLROOTCERT to the authorities that signed the hub's certificate (RDS: AWS's global-bundle.pem), \
             or install the system's CA bundle"
        }
        None if says("does not support TLS") => "turn on TLS at the hub's database (ssl = on)",
        None if says("password") => "set POSTGRES_PASSWORD",
        None => "check DB_HOST, DB_PORT and PGSSLMODE, and that the hub's database is up",
    }
}
