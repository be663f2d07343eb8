//! The body of a request on its way to the upstream.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

/// What was read already, and then the rest as it comes. Trailers are not passed on: a trailer could otherwise be taken for
/// one of the headers that only the gateway may set.
#[derive(Debug)]
pub(crate) struct Upload {
    read: Bytes,
    rest: Option<Incoming>,
}

/// For how long, and how much, a body that nobody reads is taken in, so that a client that sends all of it before it reads gets
/// its answer and no broken connection.
const DRAIN_TIME: Duration = Duration::from_secs(5);
const DRAIN_BYTES: usize = 16 << 20;

impl Upload {
    /// A body of which nothing was read.
    pub(crate) fn of(body: Incoming) -> Self {
        Self { read: Bytes::new(), rest: Some(body).filter(|body| !body.is_end_stream()) }
    }

    /// A body that is known.
    pub(crate) fn whole(body: &[u8]) -> Self {
        Self { read: Bytes::copy_from_slice(body), rest: None }
    }

    /// Reads on until the end, or until more than `limit` bytes are there.
    pub(crate) async fn read(&mut self, limit: usize) -> Result<(), hyper::Error> {
        let mut read = Vec::from(std::mem::take(&mut self.read));
        while read.len() <= limit
            && let Some(body) = &mut self.rest
        {
            match body.frame().await.transpose()? {
                Some(frame) => read.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
                None => self.rest = None,
            }
        }
        self.read = read.into();
        Ok(())
    }

    /// What was read.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.read
    }

    /// Leaves the rest unread. The connection cannot be used again then, and hyper closes it.
    pub(crate) fn abandon(mut self) {
        self.rest = None;
    }
}

/// Takes in what nobody read, in the background and within bounds: refused requests, an upstream that is down or answers early.
impl Drop for Upload {
    fn drop(&mut self) {
        let Some(mut rest) = self.rest.take().filter(|rest| !rest.is_end_stream()) else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(tokio::time::timeout(DRAIN_TIME, async move {
            let mut drained = 0;
            while drained < DRAIN_BYTES
                && let Some(Ok(frame)) = rest.frame().await
            {
                drained += frame.data_ref().map_or(0, Bytes::len);
            }
        }));
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !self.read.is_empty() {
            let read = std::mem::take(&mut self.read);
            return Poll::Ready(Some(Ok(Frame::data(read))));
        }
        while let Some(rest) = &mut self.rest {
            match std::task::ready!(Pin::new(rest).poll_frame(context)) {
                Some(Ok(frame)) if frame.is_trailers() => {}
                Some(frame) => return Poll::Ready(Some(frame)),
                None => self.rest = None,
            }
        }
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let read = self.read.len() as u64;
        let rest = self.rest.as_ref().map_or(SizeHint::with_exact(0), Incoming::size_hint);
        let mut hint = SizeHint::new();
        hint.set_lower(read.saturating_add(rest.lower()));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(read)) {
            hint.set_upper(upper);
        }
        hint
    }
}
