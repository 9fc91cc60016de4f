//! TLS, to the hub with libpq's meanings and to AWS. Authorities are read at most once in a run, and
//! only where they decide: OpenSSL takes longer to read a system's bundle than a registration takes.
//!
//! <https://www.postgresql.org/docs/current/libpq-ssl.html>

use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Mutex;
use std::{env, error, fmt, fs};

use openssl::error::ErrorStack;
use openssl::ssl::{Ssl, SslContext, SslFiletype, SslMethod, SslMode, SslVerifyMode, SslVersion};
use openssl::x509::store::{X509Lookup, X509Store, X509StoreBuilder};
use openssl::x509::verify::X509CheckFlags;
use openssl::x509::{X509, X509VerifyResult};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_openssl::SslStream;

/// `X509_V_ERR_HOSTNAME_MISMATCH`, `X509_V_ERR_IP_ADDRESS_MISMATCH`: a good certificate, and not this
/// host's. <https://docs.openssl.org/3.0/man3/X509_STORE_CTX_get_error/>
pub const OTHER_HOST: [i32; 2] = [62, 64];
/// `X509_V_ERR_CERT_NOT_YET_VALID`, `X509_V_ERR_CERT_HAS_EXPIRED`.
pub const OUT_OF_DATE: [i32; 2] = [9, 10];

/// What is checked of a server's certificate: nothing; that a trusted authority signed it; or that it
/// holds the host's name, too.
#[derive(Clone, Copy, PartialEq, PartialOrd, Eq, Ord)]
pub enum Verify {
    Nothing,
    Authority,
    Host,
}

/// Who is trusted to sign certificates.
#[derive(Clone, PartialEq)]
pub enum Authorities {
    /// `SSL_CERT_FILE` or `SSL_CERT_DIR`, or where this machine has them.
    System,
    /// The PEM file that this variable names.
    File { variable: &'static str, path: String },
}

/// A connection, in TLS or not.
pub trait Bytes: AsyncRead + AsyncWrite + Send {}
impl<T: AsyncRead + AsyncWrite + Send> Bytes for T {}

/// One side of a TLS conversation.
#[derive(Clone)]
pub struct Tls {
    pub host: String,
    pub verify: Verify,
    pub authorities: Authorities,
}

/// Why there is no TLS.
#[derive(Debug)]
pub enum TlsError {
    /// The authorities cannot be read.
    Authorities(String),
    /// The server has none.
    NotOffered,
    /// Its certificate is not what it must be.
    Certificate(X509VerifyResult),
    Handshake(String),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsError::Authorities(why) => f.write_str(why),
            TlsError::NotOffered => f.write_str("the server does not support TLS"),
            TlsError::Certificate(result) => {
                write!(f, "certificate verify failed: {}", result.error_string())
            }
            TlsError::Handshake(why) => write!(f, "the TLS handshake failed: {why}"),
        }
    }
}

impl error::Error for TlsError {}

impl From<ErrorStack> for TlsError {
    fn from(error: ErrorStack) -> TlsError {
        TlsError::Handshake(error.to_string())
    }
}

impl Tls {
    /// Speaks TLS on a connection.
    pub async fn handshake<S>(&self, connection: S) -> Result<SslStream<S>, TlsError>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let authorities = (self.verify > Verify::Nothing).then_some(&self.authorities);
        let mut ssl = Ssl::new(context(authorities)?.as_ref())?;
        let address = self.host.parse::<IpAddr>();
        if address.is_err() {
            ssl.set_hostname(&self.host)?;
        }
        if self.verify == Verify::Host {
            let names = ssl.param_mut();
            names.set_hostflags(X509CheckFlags::NO_PARTIAL_WILDCARDS);
            match address {
                Ok(address) => names.set_ip(address)?,
                Err(_) => names.set_host(&self.host)?,
            }
        }
        let mut stream = SslStream::new(ssl, connection)?;
        match Pin::new(&mut stream).connect().await {
            Ok(()) => Ok(stream),
            Err(error) => Err(match stream.ssl().verify_result() {
                X509VerifyResult::OK => TlsError::Handshake(error.to_string()),
                refused => TlsError::Certificate(refused),
            }),
        }
    }
}

/// What both conversations have in common, made once for each choice of authorities.
fn context(authorities: Option<&Authorities>) -> Result<SslContext, TlsError> {
    static MADE: Mutex<Vec<(Option<Authorities>, SslContext)>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().map_err(|_| TlsError::Handshake("internal error".to_owned()))?;
    if let Some((_, context)) = made.iter().find(|(known, _)| known.as_ref() == authorities) {
        return Ok(context.clone());
    }
    let unusable = |error: ErrorStack| {
        let sign = if env::var_os("OPENSSL_CONF").is_some() { "; OPENSSL_CONF is set" } else { "" };
        TlsError::Handshake(format!("OpenSSL does not start: {error}{sign}"))
    };
    let mut builder = SslContext::builder(SslMethod::tls_client()).map_err(unusable)?;
    // libpq's default, and AWS's.
    builder.set_min_proto_version(Some(SslVersion::TLS1_2))?;
    builder.set_mode(SslMode::ACCEPT_MOVING_WRITE_BUFFER | SslMode::ENABLE_PARTIAL_WRITE);
    builder.set_verify(SslVerifyMode::NONE);
    if let Some(authorities) = authorities {
        builder.set_verify(SslVerifyMode::PEER);
        builder.set_cert_store(authorities.store()?);
    }
    let context = builder.build();
    made.push((authorities.cloned(), context.clone()));
    Ok(context)
}

impl Authorities {
    fn store(&self) -> Result<X509Store, TlsError> {
        let mut store = X509StoreBuilder::new()?;
        let (variable, file, folder) = match self {
            Authorities::File { variable, path } => (*variable, Some(PathBuf::from(path)), None),
            Authorities::System => system()?,
        };
        if let Some(folder) = folder {
            // Looked up by name, one file for each authority: nothing is read beforehand.
            let lookup = store.add_lookup(X509Lookup::hash_dir())?;
            lookup.add_dir(&folder.to_string_lossy(), SslFiletype::PEM)?;
        }
        if let Some(file) = file {
            let unusable = |why: &dyn fmt::Display| {
                TlsError::Authorities(format!("{variable} {file:?} cannot be used: {why}"))
            };
            let pem = fs::read(&file).map_err(|error| unusable(&error))?;
            let authorities = X509::stack_from_pem(&pem).map_err(|error| unusable(&error))?;
            if authorities.is_empty() {
                return Err(unusable(&"it holds no certificate"));
            }
            for authority in authorities {
                store.add_cert(authority)?;
            }
        }
        Ok(store.build())
    }
}

/// The file and the folder of the system's authorities, and the variable that names the file.
type System = (&'static str, Option<PathBuf>, Option<PathBuf>);

/// What `SSL_CERT_FILE` and `SSL_CERT_DIR` name, or where this machine has its authorities. A folder
/// counts if its links are named by hashes (openssl-rehash(1)).
fn system() -> Result<System, TlsError> {
    let named = |variable| env::var_os(variable).map(PathBuf::from);
    let (file, machine) = (named("SSL_CERT_FILE"), openssl_probe::probe());
    let folders = match named("SSL_CERT_DIR") {
        Some(folder) => vec![folder],
        None if file.is_some() => Vec::new(),
        None => machine.cert_dir,
    };
    let folder = folders.into_iter().find(|folder| {
        let mut files = fs::read_dir(folder).into_iter().flatten().flatten();
        files.any(|file| file.path().extension().is_some_and(|extension| extension == "0"))
    });
    match file.or(machine.cert_file.filter(|_| folder.is_none())) {
        None if folder.is_none() => Err(TlsError::Authorities(
            "this machine has no CA bundle to verify a certificate with".to_owned(),
        )),
        file => Ok(("SSL_CERT_FILE", file, folder)),
    }
}
