//! The bytes between this program and the hub: PostgreSQL's way into TLS, and no answer without end.
//!
//! tokio-postgres is told to hand over the bare connection ("direct" negotiation), so that the
//! question for TLS is asked here, and decided by [`Need`] alone.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::ssl::SslRef;
use postgres::Socket;
use postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::tls::{Bytes, Tls, TlsError};

/// Most bytes that the hub may send in one session. A registration gets some thousands, and some
/// hundreds more for each time that it waits for a slot. Out of each hundred the client can be made to
/// keep ten times as much, or to go one call deeper (a type of types of types): wait.rs has the stack.
const LONGEST_SESSION: usize = 512 << 10;

/// How often the end of the conversation is put off, so that what the hub said last is read first:
/// the client looks at its connection before it looks at the answers that came over it.
const PUT_OFF: u8 = 8;

/// `SSLRequest`: its length, and the code that stands in the place of a protocol's version.
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// How much TLS there must be.
#[derive(Clone, Copy, PartialEq)]
pub enum Need {
    None,
    IfOffered,
    Always,
}

/// Makes the connection to the hub what the settings ask for.
#[derive(Clone)]
pub struct Wire {
    pub need: Need,
    pub tls: Tls,
}

/// A conversation with the hub, in TLS or not.
pub struct Conversation {
    bytes: Pin<Box<dyn Bytes>>,
    /// The hash of the certificate, to which SCRAM binds the login (RFC 5929, section 4).
    certificate: Option<Vec<u8>>,
    /// How many bytes the hub may still send.
    left: usize,
    /// How often its end may still be put off.
    put_off: u8,
}

impl Wire {
    async fn open(self, mut socket: Socket) -> Result<Conversation, Failed> {
        let (left, put_off) = (LONGEST_SESSION, PUT_OFF);
        if self.need != Need::None {
            socket.write_all(&SSL_REQUEST).await?;
            // One byte only: anything that follows it was sent before TLS began, and cannot be trusted.
            match (socket.read_u8().await?, self.need) {
                (b'S', _) => {
                    let stream = self.tls.handshake(socket).await?;
                    let certificate = certificate_hash(stream.ssl());
                    return Ok(Conversation {
                        bytes: Box::pin(stream),
                        certificate,
                        left,
                        put_off,
                    });
                }
                // An old server's error message ends the conversation: libpq gives up, too.
                (b'N', Need::IfOffered) => {}
                _ => return Err(TlsError::NotOffered.into()),
            }
        }
        Ok(Conversation { bytes: Box::pin(socket), certificate: None, left, put_off })
    }
}

/// The hash that `tls-server-end-point` takes: the certificate's own, or SHA-256 for an old one.
fn certificate_hash(ssl: &SslRef) -> Option<Vec<u8>> {
    let certificate = ssl.peer_certificate()?;
    let algorithms = certificate.signature_algorithm().object().nid().signature_algorithms()?;
    let digest = match algorithms.digest {
        Nid::MD5 | Nid::SHA1 => MessageDigest::sha256(),
        digest => MessageDigest::from_nid(digest)?,
    };
    certificate.digest(digest).ok().map(|hash| hash.to_vec())
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

impl MakeTlsConnect<Socket> for Wire {
    type Stream = Conversation;
    type TlsConnect = Wire;
    type Error = Failed;

    fn make_tls_connect(&mut self, _host: &str) -> Result<Wire, Failed> {
        Ok(self.clone())
    }
}

impl TlsConnect<Socket> for Wire {
    type Stream = Conversation;
    type Error = Failed;
    type Future = Pin<Box<dyn Future<Output = Result<Conversation, Failed>> + Send>>;

    fn connect(self, socket: Socket) -> Self::Future {
        Box::pin(self.open(socket))
    }
}

impl TlsStream for Conversation {
    fn channel_binding(&self) -> ChannelBinding {
        match &self.certificate {
            Some(hash) => ChannelBinding::tls_server_end_point(hash.clone()),
            None => ChannelBinding::none(),
        }
    }
}

impl AsyncRead for Conversation {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = self.bytes.as_mut().poll_read(context, buffer);
        let got_nothing = buffer.filled().len() == before && buffer.remaining() > 0;
        if got_nothing && matches!(read, Poll::Ready(Ok(()))) && self.put_off > 0 {
            self.put_off -= 1;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.left.checked_sub(buffer.filled().len() - before) {
            Some(left) => self.left = left,
            None => return Poll::Ready(Err(io::Error::other("the hub's answer has no end"))),
        }
        read
    }
}

impl AsyncWrite for Conversation {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.bytes.as_mut().poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes.as_mut().poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.bytes.as_mut().poll_shutdown(context)
    }
}
