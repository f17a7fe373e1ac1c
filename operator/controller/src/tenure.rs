//! Nothing is written by an operator that no longer leads: the gate that every write passes on its way out.
//!
//! A process may be stopped at any point and wake up long after another has taken the Lease, with rounds in the middle of
//! their work. So it is not asked whether somebody has told us that we lost the Lease, but whether our own clock says that
//! nobody can have taken it yet; and asked once more for each attempt, below the layer that repeats what was refused.
//! What is left is the moment between the answer and the socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::{Either, Ready, ready};
use http::header::{HeaderValue, USER_AGENT};
use http::{Method, Request};
use tokio::time::Instant;
use tower::{BoxError, Layer, Service};

/// How long this process may still write.
#[derive(Debug)]
pub(crate) struct Tenure {
    start: Instant,
    /// Milliseconds after `start`; nothing is written from then on.
    ends: AtomicU64,
    /// Which change of holder made us the holder.
    generation: AtomicI32,
    instance: String,
}

/// A write came too late.
#[derive(Debug, thiserror::Error)]
#[error("this operator does not hold its Lease any more: nothing is written")]
pub(crate) struct Lapsed;

impl Tenure {
    /// Of one that does not lead yet.
    pub(crate) fn new(instance: &str) -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            ends: AtomicU64::new(0),
            generation: AtomicI32::new(0),
            instance: instance.to_owned(),
        })
    }

    /// No Lease is asked for: whoever starts two of these does so at their own risk.
    pub(crate) fn unlimited(&self) {
        self.ends.store(u64::MAX, Ordering::Release);
    }

    /// The Lease was renewed; `asked` is the moment before the request was sent.
    pub(crate) fn extend(&self, generation: i32, asked: Instant, by: Duration) {
        self.generation.store(generation, Ordering::Release);
        let ends = asked.saturating_duration_since(self.start) + by;
        self.ends
            .store(u64::try_from(ends.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// For good.
    pub(crate) fn end(&self) {
        self.ends.store(0, Ordering::Release);
    }

    fn holds(&self) -> bool {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        now < self.ends.load(Ordering::Acquire)
    }

    /// The API server's audit log names it: who wrote what, in which tenure.
    fn user_agent(&self) -> Option<HeaderValue> {
        let text = format!(
            "relayfleet-operator/{} ({}; generation {})",
            env!("CARGO_PKG_VERSION"),
            self.instance,
            self.generation.load(Ordering::Acquire)
        );
        HeaderValue::from_str(&text).ok()
    }
}

/// Puts the gate before a client.
#[derive(Clone)]
pub(crate) struct Gate(pub(crate) Arc<Tenure>);

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, inner: S) -> Gated<S> {
        Gated {
            inner,
            tenure: Arc::clone(&self.0),
        }
    }
}

/// A client behind the gate.
#[derive(Clone)]
pub(crate) struct Gated<S> {
    inner: S,
    tenure: Arc<Tenure>,
}

impl<S, B> Service<Request<B>> for Gated<S>
where
    S: Service<Request<B>, Error = BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Either<S::Future, Ready<Result<S::Response, BoxError>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if request.method() != Method::GET && !self.tenure.holds() {
            return Either::Right(ready(Err(Lapsed.into())));
        }
        if let Some(name) = self.tenure.user_agent() {
            request.headers_mut().insert(USER_AGENT, name);
        }
        Either::Left(self.inner.call(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower::service_fn;

    async fn sent(tenure: &Arc<Tenure>, method: Method) -> bool {
        let server = service_fn(|_: Request<()>| async { Ok::<_, BoxError>(()) });
        let request = Request::builder().method(method).body(()).unwrap();
        Gate(Arc::clone(tenure)).layer(server).call(request).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_slept_through_the_end_of_a_lease_reads_and_does_not_write() {
        let tenure = Tenure::new("me");
        assert!(!sent(&tenure, Method::POST).await, "not before it leads");
        tenure.extend(1, Instant::now(), Duration::from_secs(10));
        assert!(sent(&tenure, Method::PATCH).await);
        tokio::time::advance(Duration::from_secs(10)).await;
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            assert!(!sent(&tenure, method).await);
        }
        assert!(sent(&tenure, Method::GET).await);
    }
}
