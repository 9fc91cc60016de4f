//! A connection to the hub's database: address, TLS, password, and no wait without an end.

use std::error::Error as _;
use std::time::{Duration, Instant};

use log::debug;
use postgres::config::{SslMode, SslNegotiation};
use postgres::error::SqlState;
use postgres::{Client, Config, Error};

use crate::error::{Failure, words};
use crate::net;
use crate::settings::{Settings, Stage};
use crate::tls::{self, TlsError};
use crate::wait::{self, Stop};
use crate::wire::{Need, Wire};

/// Longest wait for a connection that is ready for statements.
pub const CONNECT: Duration = Duration::from_secs(10);

/// Longest wait for a statement's answer. The server's own limit of 30 s (`sql/open.sql`) comes
/// first, and explains itself better.
pub const STATEMENT: Duration = Duration::from_secs(32);

/// A connection. Dropping it ends the session, and with it an open transaction.
pub struct Hub {
    client: Option<Client>,
    config: Config,
}

impl Hub {
    /// Connects and logs in, within `limit`.
    pub fn connect(settings: &Settings, limit: Duration) -> Result<Hub, Failure> {
        let Settings { host, port, user, database, .. } = settings;
        connected(settings, limit).map_err(|failure| {
            let address = format!("{user}@{host}:{port}/{database}");
            failure.during(&format!("connect to the hub at {address:?}"))
        })
    }

    /// Asks the server and waits for the answer, for at most `limit`.
    /// Errors: Where no answer came in time the connection is not used again.
    pub fn ask<T: Send + 'static>(
        &mut self,
        limit: Duration,
        question: impl FnOnce(&mut Client) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let mut client = self.client.take().ok_or_else(|| lost("the connection is gone"))?;
        let (client, answer) = within(limit, move || {
            let answer = question(&mut client);
            (client, answer)
        })?;
        self.client = Some(client);
        answer.map_err(|error| described(&error, &self.config))
    }
}

fn connected(settings: &Settings, limit: Duration) -> Result<Hub, Failure> {
    let deadline = Instant::now() + limit;
    let left = || deadline.saturating_duration_since(Instant::now());
    let Settings { host, port, user, database, wire, .. } = settings;
    let mut config = Config::new();
    config.host(host).port(*port).user(user).dbname(database);
    config.application_name("register-trust");
    // A server's notice can hold anything; ours hold nothing.
    config.notice_callback(|_| {});
    let token;
    let password = match &settings.stage {
        Stage::Development { password, .. } => password.as_ref(),
        Stage::Production(aws) => {
            token = aws.rds_token(&format!("{host}:{port}"), user, limit)?;
            Some(&token)
        }
    };
    if let Some(password) = password {
        config.password(password.expose());
    }
    if host.starts_with('/') {
        config.ssl_mode(SslMode::Disable);
        return attempt(&config, wire, Need::None, left())?
            .map_err(|error| described(&error, &config));
    }
    // The wire asks for TLS itself.
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    let name = host.clone();
    let addresses = within(left(), move || net::addresses(&name)).map_err(|failure| Failure {
        what: format!("the look-up of the name {host}: {}", failure.what),
        next: "check DB_HOST and the resolver (/etc/resolv.conf), and run again".to_owned(),
        ..failure
    })?;
    let addresses = addresses.map_err(|error| {
        let next = "check DB_HOST and the resolver (/etc/resolv.conf), and run again";
        Failure::new(format!("the look-up of the name {host}: {error}"), next)
    })?;
    let mut last = lost("the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        config.hostaddr(*address);
        // One that accepts and stays silent leaves time for the others.
        let share = u32::try_from(addresses.len() - tried).unwrap_or(1);
        match try_address(&config, wire, left() / share) {
            Ok(hub) => return Ok(hub),
            Err((failure, true)) => return Err(failure),
            Err((failure, false)) => last = failure,
        }
    }
    Err(last)
}

/// One of the host's addresses.
/// Errors: why not, and whether the server itself said so: then no other address does better.
fn try_address(config: &Config, wire: &Wire, limit: Duration) -> Result<Hub, (Failure, bool)> {
    let deadline = Instant::now() + limit;
    let silent = |failure| (failure, false);
    let error = match attempt(config, wire, wire.need, limit).map_err(silent)? {
        Ok(hub) => return Ok(hub),
        Err(error) => error,
    };
    let mut failure = described(&error, config);
    // libpq: where TLS is only preferred, a failed handshake is no reason to give up, and
    // neither is a pg_hba.conf that wants none.
    let wants_none = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
    if wire.need == Need::IfOffered && (wants_none || tls_error(&error).is_some()) {
        debug!("{}; going on without TLS", failure.what);
        let left = deadline.saturating_duration_since(Instant::now());
        match attempt(config, wire, Need::None, left).map_err(silent)? {
            Ok(hub) => return Ok(hub),
            Err(without) => {
                let without = described(&without, config);
                failure = Failure {
                    what: format!("{}; with TLS: {}", without.what, failure.what),
                    ..without
                };
            }
        }
    }
    Err((failure, error.code().is_some()))
}

fn attempt(
    config: &Config,
    wire: &Wire,
    need: Need,
    limit: Duration,
) -> Result<Result<Hub, Error>, Failure> {
    let (config, wire) = (config.clone(), Wire { need, ..wire.clone() });
    within(limit, move || config.connect(wire).map(|client| Hub { client: Some(client), config }))
}

fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    wait::within(limit, work).map_err(|stop| match stop {
        Stop::Late(limit) => lost(&format!("no answer within {:.0} s", limit.as_secs_f32().ceil())),
        Stop::Interrupted => wait::interrupted(),
        Stop::Broken(why) => lost(&why),
    })
}

/// In the server's words, without their `DETAIL`: it can hold a whole row. Or in the system's, with
/// their causes. Without any, if they repeat the password, which is not the user's name.
fn described(error: &Error, config: &Config) -> Failure {
    let failure = in_words(error);
    let password = config.get_password().filter(|it| it.len() >= 4);
    let password = password.filter(|it| config.get_user().map(str::as_bytes) != Some(it));
    match password {
        Some(it) if failure.what.as_bytes().windows(it.len()).any(|part| part == it) => Failure {
            what: "the message is withheld, for it repeats the password".into(),
            ..failure
        },
        _ => failure,
    }
}

fn in_words(error: &Error) -> Failure {
    if let Some(server) = error.as_db_error() {
        let code = Some(server.code().code());
        let code = code.filter(|it| it.len() == 5 && it.bytes().all(|b| b.is_ascii_alphanumeric()));
        let code = code.unwrap_or("unreadable");
        // No UUID or number has so many digits in a row, but a key's hash, or half of it.
        let message = words(server.message(), 16);
        // A standby refuses to write in one of two ways.
        let code_of_advice = match code {
            "0A000" if message.contains("recovery") => "25006",
            code => code,
        };
        return Failure::new(format!("{message} (SQLSTATE {code})"), advice(code_of_advice));
    }
    if let Some(error) = tls_error(error) {
        return Failure::new(words(&error.to_string(), 64), tls_advice(error));
    }
    let (mut cause, mut source) = (error.to_string(), error.source());
    while let Some(inner) = source {
        cause = format!("{cause}: {inner}");
        source = inner.source();
    }
    lost(&words(&cause, 16))
}

fn tls_error(error: &Error) -> Option<&TlsError> {
    error.source()?.downcast_ref()
}

/// No answer of the server.
fn lost(cause: &str) -> Failure {
    let next = match cause {
        _ if cause.contains("password missing") => "set POSTGRES_PASSWORD, and run again",
        _ if cause.contains("SCRAM iteration count") => {
            "on the hub set scram_iterations to 100000 or less, then set the role's password again"
        }
        _ => "check that the hub's database is up, DB_HOST, DB_PORT and PGSSLMODE, and run again",
    };
    Failure::new(cause, next)
}

fn tls_advice(error: &TlsError) -> &'static str {
    match error {
        TlsError::NotOffered => "turn on TLS at the hub's database (ssl = on), and run again",
        TlsError::Certificate(refused) if tls::OTHER_HOST.contains(&refused.as_raw()) => {
            "set DB_HOST to a name that the hub's certificate holds"
        }
        TlsError::Certificate(refused) if tls::OUT_OF_DATE.contains(&refused.as_raw()) => {
            "renew the certificate of the hub's database, or set the clock of this host"
        }
        TlsError::Certificate(_) | TlsError::Authorities(_) => {
            "set PGSSLROOTCERT to a PEM file of the authorities that signed the hub's certificate \
             (RDS: AWS's global-bundle.pem), or install the system's CA bundle"
        }
        TlsError::Handshake(_) => "check TLS at the hub's database and OPENSSL_CONF, and run again",
    }
}

/// What to do about a SQLSTATE: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn advice(sqlstate: &str) -> &'static str {
    match sqlstate {
        "28P01" | "28000" => {
            "check POSTGRES_USER, POSTGRES_PASSWORD and whether the hub's pg_hba.conf admits this \
             host and TLS mode (PGSSLMODE); in production whether that role has rds_iam and the \
             task's role may rds-db:connect as it"
        }
        "3D000" => "check POSTGRES_DB, and run again",
        "53300" => "wait until the hub has connections to spare, and run again",
        "57P03" => "wait until the hub's database is up, and run again",
        "55P03" | "57014" => "find who holds the lock in the hub's pg_stat_activity, and run again",
        "42501" => "grant POSTGRES_USER what sql/grants.sql lists, and run again",
        "08P01" => {
            "if a pooler stands in front of the hub, set it to transaction pooling or go around \
             it, and run again"
        }
        "42P01" | "42703" | "42704" => "run the hub's migrations, or check POSTGRES_DB",
        "25006" => "point DB_HOST to the hub's primary, and run again",
        _ => "look into the hub's database log, and run again",
    }
}
