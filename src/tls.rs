//! TLS to the hub, with libpq's meanings of `PGSSLMODE` and `PGSSLROOTCERT`.
//!
//! <https://www.postgresql.org/docs/current/libpq-ssl.html>

use std::fs;
use std::future::Future;
use std::pin::Pin;

use native_tls::{Certificate, TlsConnector};
use postgres::Socket;
use postgres::tls::{MakeTlsConnect, TlsConnect};

use crate::settings::TlsMode;

/// Makes TLS streams. Only when the server has agreed to TLS: building a connector loads the
/// system's authorities, which takes longer than a whole registration.
#[derive(Clone)]
pub struct Tls {
    /// What is asked for.
    pub mode: TlsMode,
    /// The authorities that are trusted, instead of the system's.
    pub root_certificates: Option<String>,
    /// The host that was asked for.
    pub host: String,
}

/// What goes wrong, in words.
type Refusal = Box<dyn std::error::Error + Send + Sync>;
type Stream = postgres_native_tls::TlsStream<Socket>;

impl Tls {
    fn connector(&self) -> Result<TlsConnector, Refusal> {
        let mut builder = TlsConnector::builder();
        let verify = match self.mode {
            TlsMode::Disable | TlsMode::Prefer => false,
            // libpq: with authorities given, `require` verifies like `verify-ca`.
            TlsMode::Require => self.root_certificates.is_some(),
            TlsMode::VerifyCa | TlsMode::VerifyFull => true,
        };
        builder.danger_accept_invalid_certs(!verify);
        builder.danger_accept_invalid_hostnames(self.mode != TlsMode::VerifyFull);
        if let Some(path) = self.root_certificates.as_ref().filter(|_| verify) {
            let unusable = |why: String| format!("PGSSLROOTCERT {path:?} cannot be used: {why}");
            let pem = fs::read(path).map_err(|error| unusable(error.to_string()))?;
            let authorities =
                Certificate::stack_from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
            if authorities.is_empty() {
                return Err(unusable("it holds no certificate".to_owned()).into());
            }
            builder.disable_built_in_roots(true);
            for authority in authorities {
                builder.add_root_certificate(authority);
            }
        }
        Ok(builder.build()?)
    }
}

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Stream;
    type TlsConnect = Tls;
    type Error = Refusal;

    fn make_tls_connect(&mut self, _host: &str) -> Result<Tls, Refusal> {
        Ok(self.clone())
    }
}

impl TlsConnect<Socket> for Tls {
    type Stream = Stream;
    type Error = Refusal;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Refusal>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let connector = postgres_native_tls::TlsConnector::new(self.connector()?, &self.host);
            Ok(TlsConnect::connect(connector, socket).await?)
        })
    }
}
