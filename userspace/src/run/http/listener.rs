//! The listener: connections bounded in number, and closed when they stand idle.
//!
//! A caller that connects and says nothing, says it byte by byte, or never reads,
//! holds a place for [`IDLE_MAX`]; nobody holds one for longer than [`AGE_MAX`].
//! Beyond [`CONNECTIONS_MAX`] connections wait in the kernel's backlog.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections served at once.
pub const CONNECTIONS_MAX: usize = 128;

/// How long a connection may stand without a byte of an answer.
pub const IDLE_MAX: Duration = Duration::from_secs(30);

/// How long a connection may stand at all; whoever follows a stream asks again.
pub const AGE_MAX: Duration = Duration::from_secs(600);

/// Pause after `accept` failed, which it does when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A listener with bounds.
pub struct Bounded {
    inner: TcpListener,
    room: Arc<Semaphore>,
}

impl Bounded {
    /// Takes a non-blocking listener over.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch it.
    pub fn new(listener: std::net::TcpListener) -> io::Result<Self> {
        let inner = TcpListener::from_std(listener)?;
        Ok(Self { inner, room: Arc::new(Semaphore::new(CONNECTIONS_MAX)) })
    }
}

impl Listener for Bounded {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            // Never closed; if it were, connections would only not be counted.
            let place = Arc::clone(&self.room).acquire_owned().await.ok();
            match self.inner.accept().await {
                Ok((stream, from)) => return (Connection::new(stream, place), from),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection with its place and its clock.
pub struct Connection {
    stream: TcpStream,
    idle: Pin<Box<Sleep>>,
    ends: Instant,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn new(stream: TcpStream, place: Option<OwnedSemaphorePermit>) -> Self {
        // Refused only for a socket that is gone already.
        let _ = stream.set_nodelay(true);
        let idle = Box::pin(tokio::time::sleep(IDLE_MAX));
        Self { stream, idle, ends: Instant::now() + AGE_MAX, _place: place }
    }

    /// Time begins anew: something was answered.
    fn answered(&mut self) {
        let next = (Instant::now() + IDLE_MAX).min(self.ends);
        self.idle.as_mut().reset(next);
    }

    /// Hands on what the stream said, or that its time is over.
    fn judge<T>(
        &mut self,
        said: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        match said {
            Poll::Ready(said) => Poll::Ready(said),
            Poll::Pending => match self.idle.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let said = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.judge(said, context)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write(context, bytes);
        if said.is_ready() {
            self.answered();
        }
        self.judge(said, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let said = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        if said.is_ready() {
            self.answered();
        }
        self.judge(said, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
