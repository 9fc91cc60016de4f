//! A connection to the hub's database: address, TLS, password, and no wait without an end.

use std::time::{Duration, Instant};

use log::debug;
use postgres::config::{SslMode, SslNegotiation};
use postgres::error::SqlState;
use postgres::{Client, Config, Error};

use crate::error::Failure;
use crate::hub_error::{described, lost, tls_error};
use crate::net;
use crate::settings::{Settings, Stage};
use crate::wait;
use crate::wire::{Need, Wire};

/// Longest wait for a connection that is ready for statements.
pub const CONNECT: Duration = Duration::from_secs(10);

/// Longest wait for a statement's answer. The server's own limit of 30 s (`sql/open.sql`) comes
/// first, and its message explains more.
pub const STATEMENT: Duration = Duration::from_secs(32);

/// Longest wait for the end of a session.
const FAREWELL: Duration = Duration::from_secs(2);

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
    /// Errors: the server refuses, or gives no answer in time; then the connection is not used again.
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

impl Drop for Hub {
    /// The client waits for every answer that the hub owes, and has no limit.
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            let _ = within(FAREWELL, move || drop(client));
        }
    }
}

fn connected(settings: &Settings, limit: Duration) -> Result<Hub, Failure> {
    let deadline = Instant::now() + limit;
    let left = || deadline.saturating_duration_since(Instant::now());
    let Settings { host, port, user, database, wire, .. } = settings;
    let mut config = Config::new();
    config.host(host).port(*port).user(user).dbname(database);
    config.application_name("register-trust");
    // A server's notice can hold anything, so it is never logged.
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
    let unknown = |why: &str| {
        let next = "check DB_HOST and the resolver (/etc/resolv.conf), and run again";
        Failure::new(format!("cannot look up the name {host}: {why}"), next)
    };
    let late = |limit| unknown(&wait::no_answer(limit));
    let found = wait::within(left(), late, move || net::addresses(&name))?;
    let addresses = found.map_err(|error| unknown(&error.to_string()))?;
    let mut last = lost("the name has no address");
    for (tried, address) in addresses.iter().enumerate() {
        config.hostaddr(*address);
        // An address that accepts and stays silent must leave time for the others.
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
/// Errors: why not, and whether the server itself answered; then no other address would help.
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
    wait::within(limit, |limit| lost(&wait::no_answer(limit)), work)
}
