//! A connection to the hub's database: address, TLS, password, and no wait without an end.

use std::error::Error;
use std::time::{Duration, Instant};

use log::debug;
use postgres::config::SslMode;
use postgres::error::SqlState;
use postgres::{Client, Config};

use crate::error::{Failure, one_line};
use crate::settings::{Settings, Stage};
use crate::wait::{self, Stop};

/// Longest wait for a connection that is ready for statements.
pub const CONNECT: Duration = Duration::from_secs(10);

/// Longest wait for a statement's answer. The server's own limit of 30 s (`sql/open.sql`) comes
/// first, and explains itself better.
pub const STATEMENT: Duration = Duration::from_secs(32);

/// A connection. Dropping it ends the session, and with it an open transaction.
pub struct Hub(Option<Client>);

impl Hub {
    /// Connects and logs in, within `limit`.
    pub fn connect(settings: &Settings, limit: Duration) -> Result<Hub, Failure> {
        let deadline = Instant::now() + limit;
        let Settings { host, port, user, database, .. } = settings;
        let mut config = Config::new();
        config.host(host).port(*port).user(user).dbname(database);
        // One dead address of a host leaves time for its others.
        config.application_name("register-trust").connect_timeout(limit / 3);
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
        let attempt = |mode| {
            let (mut config, tls) = (config.clone(), settings.tls.clone());
            config.ssl_mode(mode);
            let limit = deadline.saturating_duration_since(Instant::now());
            within(limit, move || config.connect(tls))
        };
        let mut connected = attempt(settings.ssl_mode);
        // libpq: where TLS is only preferred, a failed handshake is no reason to give up, and
        // neither is a pg_hba.conf that wants none.
        if let (SslMode::Prefer, Ok(Err(error))) = (settings.ssl_mode, &connected)
            && (error.to_string().contains("TLS handshake")
                || error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION))
        {
            debug!("{}; going on without TLS", described(error).what);
            connected = attempt(SslMode::Disable);
        }
        let client = connected.and_then(|answer| answer.map_err(|error| described(&error)));
        client.map(|client| Hub(Some(client))).map_err(|failure| {
            let address = format!("{user}@{host}:{port}/{database}");
            failure.during(&format!("connect to the hub at {address:?}"))
        })
    }

    /// Asks the server and waits for the answer, for at most `limit`.
    /// Errors: Where no answer came in time the connection is not used again.
    pub fn ask<T: Send + 'static>(
        &mut self,
        limit: Duration,
        question: impl FnOnce(&mut Client) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Failure> {
        let mut client = self.0.take().ok_or_else(|| lost("the connection is gone"))?;
        let (client, answer) = within(limit, move || {
            let answer = question(&mut client);
            (client, answer)
        })?;
        self.0 = Some(client);
        answer.map_err(|error| described(&error))
    }
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
/// their causes.
fn described(error: &postgres::Error) -> Failure {
    if let Some(server) = error.as_db_error() {
        let (mut message, code) = (server.message(), server.code().code());
        // A trigger's message can quote the row: so many digits are no UUID, but a key's hash.
        if message.split(|c: char| !c.is_ascii_hexdigit()).any(|digits| digits.len() > 32) {
            message = "the hub's message is withheld, for it quotes a key's hash";
        }
        return Failure::new(format!("{} (SQLSTATE {code})", one_line(message)), advice(code));
    }
    let (mut cause, mut source) = (error.to_string(), error.source());
    while let Some(inner) = source {
        cause = format!("{cause}: {inner}");
        source = inner.source();
    }
    lost(&cause)
}

/// No answer of the server.
fn lost(cause: &str) -> Failure {
    const AUTHORITIES: &str = "set PGSSLROOTCERT to a PEM file of the authorities that signed the \
        hub's certificate (RDS: AWS's global-bundle.pem), or install the system's CA bundle";
    let next = match cause {
        _ if cause.contains("mismatch") => "set DB_HOST to a name that the hub's certificate holds",
        _ if cause.contains("PGSSLROOTCERT") || cause.contains("certificate") => AUTHORITIES,
        _ if cause.contains("does not support TLS") => {
            "turn on TLS at the hub's database (ssl = on), and run again"
        }
        _ if cause.contains("password") => "set POSTGRES_PASSWORD, and run again",
        _ => "check that the hub's database is up, DB_HOST, DB_PORT and PGSSLMODE, and run again",
    };
    Failure::new(one_line(cause), next)
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
        "42501" => "grant POSTGRES_USER what the hub's own role may do, and run again",
        "42P01" | "42703" | "42704" => "run the hub's migrations, or check POSTGRES_DB",
        "25006" => "point DB_HOST to the hub's primary, and run again",
        _ => "look into the hub's database log, and run again",
    }
}
