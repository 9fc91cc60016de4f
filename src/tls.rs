//! TLS to the hub, with libpq's meanings of `PGSSLMODE` and `PGSSLROOTCERT`.
//!
//! <https://www.postgresql.org/docs/current/libpq-ssl.html>

use std::error::Error;
use std::fs;
use std::pin::Pin;

use native_tls::{Certificate, TlsConnector};
use postgres::Socket;
use postgres::tls::{MakeTlsConnect, TlsConnect};
use postgres_native_tls::TlsStream;

/// What must be right of the hub's certificate: nothing, or that a trusted authority signed it, or
/// that it holds the host's name, too.
#[derive(Clone, Copy, PartialEq, PartialOrd, Eq, Ord)]
pub enum Verify {
    Nothing,
    Authority,
    Host,
}

/// Makes TLS streams. Only when the server has agreed to TLS: building a connector loads the
/// system's authorities, which takes longer than a whole registration.
#[derive(Clone)]
pub struct Tls {
    pub host: String,
    pub verify: Verify,
    /// The file of authorities that are trusted instead of the system's.
    pub authorities: Option<String>,
}

type Refusal = Box<dyn Error + Send + Sync>;

impl Tls {
    fn connector(&self) -> Result<TlsConnector, Refusal> {
        let mut builder = TlsConnector::builder();
        builder.danger_accept_invalid_certs(self.verify == Verify::Nothing);
        builder.danger_accept_invalid_hostnames(self.verify != Verify::Host);
        if let Some(path) = self.authorities.as_ref().filter(|_| self.verify > Verify::Nothing) {
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
