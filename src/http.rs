//! One HTTP request on a connection of its own: to AWS over TLS, or to a metadata endpoint.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use hyper::body::HttpBody;
use hyper::client::conn;
use hyper::{Body, HeaderMap, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task;
use zeroize::Zeroizing;

use crate::net;
use crate::tls::{Authorities, Tls, TlsError, Verify};

/// Most bytes of an answer's body. SSM's largest is some 10 kB.
const LONGEST_BODY: usize = 256 * 1024;

/// A complete answer.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Zeroizing<Vec<u8>>,
}

/// Why there is none.
pub enum HttpError {
    Tls(TlsError),
    Other(String),
}

impl HttpError {
    fn other(what: &str, error: impl ToString) -> HttpError {
        HttpError::Other(format!("{what}: {}", error.to_string()))
    }
}

/// Sends the request and reads the answer, without a limit in time. `sent` counts the requests that
/// may have reached their peer.
pub async fn send(
    mut request: Request<Body>,
    authorities: &Authorities,
    sent: &AtomicUsize,
) -> Result<Answer, HttpError> {
    let uri = request.uri().clone();
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let name = host.clone();
    let addresses = task::spawn_blocking(move || net::addresses(&name)).await;
    let addresses = addresses.map_err(|error| HttpError::other("internal error", error))?;
    let addresses =
        addresses.map_err(|error| HttpError::other(&format!("cannot find {host}"), error))?;
    let addresses: Vec<_> = addresses.into_iter().map(|address| (address, port).into()).collect();
    let connection = TcpStream::connect(&addresses[..]).await;
    let connection = connection
        .map_err(|error| HttpError::other(&format!("cannot connect to {host}:{port}"), error))?;
    // The request line has the path alone, for this is no proxy.
    *request.uri_mut() =
        uri.path_and_query().map_or("/", |path| path.as_str()).parse().unwrap_or_default();
    if !secure {
        return exchange(connection, request, sent).await;
    }
    let tls = Tls { host, verify: Verify::Host, authorities: authorities.clone() };
    let connection = tls.handshake(connection).await.map_err(HttpError::Tls)?;
    exchange(connection, request, sent).await
}

async fn exchange<T: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    connection: T,
    request: Request<Body>,
    sent: &AtomicUsize,
) -> Result<Answer, HttpError> {
    let broken = |error| HttpError::other("the connection broke", error);
    let (mut sender, connection) = conn::handshake(connection).await.map_err(broken)?;
    task::spawn(connection);
    sent.fetch_add(1, SeqCst);
    let answer = sender.send_request(request).await.map_err(broken)?;
    let (head, mut rest) = answer.into_parts();
    // Growing leaves unwiped copies behind; what is usual has room.
    let mut body = Zeroizing::new(Vec::with_capacity(16 * 1024));
    while let Some(part) = rest.data().await {
        body.extend_from_slice(&part.map_err(broken)?);
        if body.len() > LONGEST_BODY {
            return Err(HttpError::Other("the answer has no end".to_owned()));
        }
    }
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}
