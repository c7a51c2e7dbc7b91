//! A partner's TCP stream: cut at once, held to the partner's pace, and given up when nothing of it is taken any more.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Sleep, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::pace::Shared;

type Timer = Option<Pin<Box<Sleep>>>;

/// A TCP stream that is reset, with what is still in its buffers, when it is dropped because it was cut or refused.
pub struct CutStream {
    stream: TcpStream,
    cut: CancellationToken,
    refused: bool,
    pace: Option<Shared>,
    read_pause: Timer,
    write_pause: Timer,
    stall: Duration,
    stalled: Timer,
}

impl CutStream {
    /// A stream that nothing is known of yet.
    pub fn new(stream: TcpStream, cut: CancellationToken) -> Self {
        Self {
            stream,
            cut,
            refused: true,
            pace: None,
            read_pause: None,
            write_pause: None,
            stall: Duration::MAX,
            stalled: None,
        }
    }

    /// A partner's: with its pace, and how long it may take nothing of what is sent.
    #[must_use]
    pub fn of_partner(mut self, pace: Option<Shared>, stall: Duration) -> Self {
        (self.refused, self.pace, self.stall) = (false, pace, stall);
        self
    }

    /// Fails once what is sent has waited too long.
    fn poll_stalled<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let stall = self.stall;
        let timer = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Ready when the partner may carry something.
fn poll_pace(pace: Option<&Shared>, pause: &mut Timer, cx: &mut Context<'_>) -> Poll<()> {
    let Some(pace) = pace else { return Poll::Ready(()) };
    loop {
        if let Some(timer) = pause {
            ready!(timer.as_mut().poll(cx));
            *pause = None;
        }
        let Some(wait) = pace.lock().wait(Instant::now()) else { return Poll::Ready(()) };
        *pause = Some(Box::pin(sleep(wait)));
    }
}

impl Drop for CutStream {
    fn drop(&mut self) {
        if self.refused || self.cut.is_cancelled() {
            let _ = self.stream.set_zero_linger();
        }
    }
}

impl AsyncRead for CutStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(poll_pace(this.pace.as_ref(), &mut this.read_pause, cx));
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        if let Some(pace) = &this.pace {
            pace.lock().carried(buf.filled().len() - before);
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for CutStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(poll_pace(this.pace.as_ref(), &mut this.write_pause, cx));
        let poll = Pin::new(&mut this.stream).poll_write(cx, buf);
        if let (Poll::Ready(Ok(written)), Some(pace)) = (&poll, &this.pace) {
            pace.lock().carried(*written);
        }
        this.poll_stalled(cx, poll)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
