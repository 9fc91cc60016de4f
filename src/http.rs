//! One HTTP request on a connection of its own: to AWS over TLS, or to a metadata endpoint.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use hyper::body::HttpBody;
use hyper::client::conn;
use hyper::{Body, HeaderMap, Request};
use tokio::net::TcpStream;
use tokio::task;
use zeroize::Zeroizing;

use crate::net;
use crate::tls::{Authorities, Bytes, Tls, TlsError, Verify};

/// Most bytes of an answer's body. SSM's largest is some 10 kB.
const LONGEST_BODY: usize = 256 * 1024;

/// A complete answer.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Zeroizing<Vec<u8>>,
}

/// Why there is none.
#[derive(Debug)]
pub enum HttpError {
    Tls(TlsError),
    Other(String),
}

/// What a call has sent. Work that is given up goes on in its thread, and must not send any more.
#[derive(Default)]
pub struct Sent {
    /// Requests that may have reached their peer, and were not answered.
    pub unanswered: AtomicUsize,
    pub given_up: AtomicBool,
}

/// Sends the request and reads the answer, without a limit in time.
pub async fn send(
    mut request: Request<Body>,
    authorities: &Authorities,
    sent: &Sent,
) -> Result<Answer, HttpError> {
    let other = |step: &str, error: &dyn ToString| {
        HttpError::Other(format!("{step}: {}", error.to_string()))
    };
    let broken = |error| other("the connection broke", &error);
    let uri = request.uri().clone();
    let secure = uri.scheme_str() == Some("https");
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let name = host.clone();
    let addresses = task::spawn_blocking(move || net::addresses(&name)).await;
    let addresses = addresses.unwrap_or_else(|error| Err(io::Error::other(error)));
    let addresses = addresses.map_err(|error| other(&format!("cannot find {host}"), &error))?;
    let addresses: Vec<_> = addresses.into_iter().map(|address| (address, port).into()).collect();
    let stream = TcpStream::connect(&addresses[..]).await;
    let stream =
        stream.map_err(|error| other(&format!("cannot connect to {host}:{port}"), &error))?;
    // Otherwise the request waits until the peer has acknowledged the end of the TLS handshake: one
    // more round trip.
    let _ = stream.set_nodelay(true);
    let stream: Pin<Box<dyn Bytes>> = if secure {
        let tls = Tls { host, verify: Verify::Host, authorities: authorities.clone() };
        Box::pin(tls.handshake(stream).await.map_err(HttpError::Tls)?)
    } else {
        Box::pin(stream)
    };
    // The request line has only the path, because this is not a proxy.
    *request.uri_mut() =
        uri.path_and_query().and_then(|it| it.as_str().parse().ok()).unwrap_or_default();
    let (mut sender, connection) = conn::handshake(stream).await.map_err(broken)?;
    task::spawn(connection);
    // Counted first: whoever gives up says so first, and then looks at the count.
    sent.unanswered.fetch_add(1, SeqCst);
    if sent.given_up.load(SeqCst) {
        return Err(HttpError::Other("the program gave up waiting".to_owned()));
    }
    let (head, mut rest) = sender.send_request(request).await.map_err(broken)?.into_parts();
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
