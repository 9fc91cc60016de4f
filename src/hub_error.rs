//! Why the hub did not do it, in words that hold no secret: a hub may quote what it refuses.

use std::error::Error as _;

use postgres::{Config, Error};

use crate::error::{self, Failure, words};
use crate::tls::{self, TlsError};

/// In the server's words, without their `DETAIL`, which can hold a whole row; or in the system's words,
/// with the causes. Words that repeat the password are not shown, unless it is also the user's name.
pub fn described(error: &Error, config: &Config) -> Failure {
    let user = config.get_user().map(str::as_bytes);
    let password = config.get_password().filter(|it| user != Some(it));
    let repeats = |text: &str| password.is_some_and(|it| error::repeats(text, it));
    // No UUID or number has so many digits in a row, but a key's hash, or half of it.
    let shown = |text: &str| match repeats(text) {
        true => "the message is not shown, because it repeats the password".to_owned(),
        false => words(text, 16),
    };
    if let Some(server) = error.as_db_error() {
        let code = Some(server.code().code()).filter(|it| !repeats(it));
        let code = code.filter(|it| it.len() == 5 && it.bytes().all(|b| b.is_ascii_alphanumeric()));
        let (code, message) = (code.unwrap_or("unreadable"), server.message());
        // A standby refuses to write in one of two ways.
        let standby = code == "0A000" && message.contains("recovery");
        let next = advice(if standby { "25006" } else { code });
        return Failure::new(format!("{} (SQLSTATE {code})", shown(message)), next);
    }
    if let Some(error) = tls_error(error) {
        return Failure::new(words(&error.to_string(), 64), tls_advice(error));
    }
    let (mut cause, mut source) = (error.to_string(), error.source());
    while let Some(inner) = source {
        cause = format!("{cause}: {inner}");
        source = inner.source();
    }
    lost(&shown(&cause))
}

/// Whether TLS is why there is no connection.
pub fn tls_error(error: &Error) -> Option<&TlsError> {
    error.source()?.downcast_ref()
}

/// No answer of the server.
pub fn lost(cause: &str) -> Failure {
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
            "renew the certificate of the hub's database, or correct the clock of this host"
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
