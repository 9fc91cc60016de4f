//! TLS to the hub, with libpq's meanings of `PGSSLMODE` and `PGSSLROOTCERT`.
//!
//! <https://www.postgresql.org/docs/current/libpq-ssl.html>

use std::fs;
use std::future::Future;
use std::pin::Pin;

use native_tls::{Certificate, TlsConnector};
use postgres::Socket;
use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres_native_tls::TlsStream;

use crate::settings::{Settings, TlsMode};

/// Makes TLS streams. Only when the server has agreed to TLS: building a connector loads the
/// system's authorities, which takes longer than a whole registration.
#[derive(Clone)]
pub struct Tls {
    mode: TlsMode,
    root_certificates: Option<String>,
    host: String,
}

/// What goes wrong, in words.
type Refusal = Box<dyn std::error::Error + Send + Sync>;

impl Tls {
    /// What the settings ask for.
    pub fn new(settings: &Settings) -> Tls {
        let Settings { tls, root_certificates, host, .. } = settings;
        Tls { mode: *tls, root_certificates: root_certificates.clone(), host: host.clone() }
    }

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
            let unusable = |why: &str| format!("PGSSLROOTCERT {path:?} cannot be used: {why}");
            let pem = fs::read(path).map_err(|error| unusable(&error.to_string()))?;
            let authorities =
                Certificate::stack_from_pem(&pem).map_err(|error| unusable(&error.to_string()))?;
            if authorities.is_empty() {
                return Err(unusable("it holds no certificate").into());
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
    type Stream = TlsStream<Socket>;
    type TlsConnect = Tls;
    type Error = Refusal;

    fn make_tls_connect(&mut self, _host: &str) -> Result<Tls, Refusal> {
        Ok(self.clone())
    }
}

impl TlsConnect<Socket> for Tls {
    type Stream = TlsStream<Socket>;
    type Error = Refusal;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Stream, Refusal>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(async move {
            let connector = postgres_native_tls::TlsConnector::new(self.connector()?, &self.host);
            Ok(TlsConnect::connect(connector, socket).await?)
        })
    }
}
