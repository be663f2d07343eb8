//! What becomes of a request: allowed with exact edits, or denied with an exact answer. There is no third outcome.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use crate::claims::{Claims, NumericDate};
use crate::config::Policy;
use crate::consumer::{Consumer, Identity};
use crate::headers::{HeaderEdits, Set};
use crate::hide::Hidden;
use crate::token::Malformed;

/// Why a request was denied. The numbers are part of the ABI, never reused, and none can be taken for an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u16)]
#[non_exhaustive]
pub enum Reason {
    /// No access token was presented.
    TokenMissing = 1100,
    /// The token is not where or what RFC 6750 says, or was given more than once.
    RequestMalformed = 1101,
    /// The authorization server says that the token is not active.
    TokenInactive = 1200,
    /// The answer's `exp` is over.
    TokenExpired = 1201,
    /// The answer's `nbf` is still to come.
    TokenNotYetValid = 1202,
    /// The token is for another audience, of another issuer, bound to a key, or no access token.
    TokenNotUsable = 1203,
    /// None of the alternatives of `require.scopes` is granted.
    InsufficientScope = 1300,
    /// `require.consumer` is set and no consumer matches.
    ConsumerUnknown = 1301,
    /// The endpoint could not be connected to.
    EndpointUnreachable = 1400,
    /// The endpoint did not answer within `timeout`.
    EndpointTimedOut = 1401,
    /// The endpoint answered 429, 500, 502, 503 or 504.
    EndpointUnavailable = 1402,
    /// `limits.concurrent_introspections` are under way.
    Overloaded = 1403,
    /// The endpoint answered with another status than 200: its credentials or its URL are probably wrong.
    EndpointRefused = 1410,
    /// The endpoint's answer is no introspection response.
    ReplyMalformed = 1411,
    /// `anonymous` names no consumer.
    AnonymousConsumerMissing = 1500,
    /// A defect of Tokenward or its host.
    Internal = 1599,
}

/// Failures that can fall back to the anonymous consumer together (`anonymous_on`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureClass {
    Missing,
    Invalid,
    Forbidden,
    Unavailable,
}

impl FailureClass {
    pub(crate) const WORDS: &[(&str, Self)] = &[
        ("missing", Self::Missing),
        ("invalid", Self::Invalid),
        ("forbidden", Self::Forbidden),
        ("unavailable", Self::Unavailable),
    ];
}

impl Reason {
    /// Every reason, in the order of its number.
    pub const ALL: [Self; 16] = [
        Self::TokenMissing,
        Self::RequestMalformed,
        Self::TokenInactive,
        Self::TokenExpired,
        Self::TokenNotYetValid,
        Self::TokenNotUsable,
        Self::InsufficientScope,
        Self::ConsumerUnknown,
        Self::EndpointUnreachable,
        Self::EndpointTimedOut,
        Self::EndpointUnavailable,
        Self::Overloaded,
        Self::EndpointRefused,
        Self::ReplyMalformed,
        Self::AnonymousConsumerMissing,
        Self::Internal,
    ];

    /// Its number, 1100 to 1599.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Its name in logs, metrics and vectors: `token_missing`, ...
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TokenMissing => "token_missing",
            Self::RequestMalformed => "request_malformed",
            Self::TokenInactive => "token_inactive",
            Self::TokenExpired => "token_expired",
            Self::TokenNotYetValid => "token_not_yet_valid",
            Self::TokenNotUsable => "token_not_usable",
            Self::InsufficientScope => "insufficient_scope",
            Self::ConsumerUnknown => "consumer_unknown",
            Self::EndpointUnreachable => "endpoint_unreachable",
            Self::EndpointTimedOut => "endpoint_timed_out",
            Self::EndpointUnavailable => "endpoint_unavailable",
            Self::Overloaded => "overloaded",
            Self::EndpointRefused => "endpoint_refused",
            Self::ReplyMalformed => "reply_malformed",
            Self::AnonymousConsumerMissing => "anonymous_consumer_missing",
            Self::Internal => "internal",
        }
    }

    /// The status of the answer to the client.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::RequestMalformed => 400,
            Self::TokenMissing
            | Self::TokenInactive
            | Self::TokenExpired
            | Self::TokenNotYetValid
            | Self::TokenNotUsable => 401,
            Self::InsufficientScope | Self::ConsumerUnknown => 403,
            Self::EndpointUnreachable | Self::EndpointTimedOut | Self::EndpointUnavailable | Self::Overloaded => 503,
            Self::EndpointRefused | Self::ReplyMalformed => 502,
            Self::AnonymousConsumerMissing | Self::Internal => 500,
        }
    }

    /// The `error` of the answer's body.
    #[must_use]
    pub const fn error(self) -> &'static str {
        match self {
            Self::TokenMissing | Self::RequestMalformed => "invalid_request",
            Self::TokenInactive | Self::TokenExpired | Self::TokenNotYetValid | Self::TokenNotUsable => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
            Self::ConsumerUnknown => "access_denied",
            Self::EndpointUnreachable | Self::EndpointTimedOut | Self::EndpointUnavailable | Self::Overloaded => {
                "temporarily_unavailable"
            }
            _ => "server_error",
        }
    }

    /// The `error_description` of the answer's body. For `request_malformed` the answer says more precisely what was
    /// malformed.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::TokenMissing => "The access token is missing",
            Self::RequestMalformed => "The request is malformed",
            Self::TokenInactive | Self::TokenExpired | Self::TokenNotYetValid | Self::TokenNotUsable => {
                "The access token is invalid or has expired"
            }
            Self::InsufficientScope => "The access token does not grant the required scope",
            Self::ConsumerUnknown => "The consumer is not known",
            Self::EndpointUnreachable | Self::EndpointTimedOut | Self::EndpointUnavailable | Self::Overloaded => {
                "The authorization server is unavailable"
            }
            Self::EndpointRefused | Self::ReplyMalformed => "The authorization server gave no usable answer",
            Self::AnonymousConsumerMissing => "The anonymous consumer is not configured",
            Self::Internal => "An unexpected error occurred",
        }
    }

    pub(crate) const fn class(self) -> Option<FailureClass> {
        match self.number() {
            1100 => Some(FailureClass::Missing),
            1101..=1299 => Some(FailureClass::Invalid),
            1300..=1399 => Some(FailureClass::Forbidden),
            1400..=1499 => Some(FailureClass::Unavailable),
            _ => None,
        }
    }

    /// Its place among [`ALL`](Self::ALL).
    pub(crate) fn index(self) -> usize {
        Self::ALL.iter().position(|reason| *reason == self).unwrap_or(0)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where the answer behind a decision came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// This request asked the endpoint.
    Endpoint,
    /// The answer was remembered.
    Cache,
    /// Another request asked, and this one waited.
    Waiting,
    /// Nobody was asked.
    None,
}

impl Source {
    /// `endpoint`, `cache`, `waiting` or `none`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::Cache => "cache",
            Self::Waiting => "waiting",
            Self::None => "none",
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Debug)]
#[must_use]
pub enum Decision {
    /// The request goes on to the upstream, edited.
    Allow(Allow),
    /// The client gets this answer, and the upstream nothing.
    Deny(Deny),
}

impl Decision {
    /// Whether the request goes on.
    #[must_use]
    pub const fn is_allow(&self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// Where the answer behind it came from.
    #[must_use]
    pub const fn source(&self) -> Source {
        match self {
            Self::Allow(allow) => allow.source,
            Self::Deny(deny) => deny.source,
        }
    }

    /// The refusal for a defect, without an introspector that would count it; prefer
    /// [`Introspector::internal`](crate::Introspector::internal). `head`: the request is HEAD.
    pub fn internal(head: bool) -> Self {
        Self::Deny(Deny { head, ..Deny::internal() })
    }
}

/// Leave to go on, and what the upstream may be told.
#[derive(Clone)]
pub struct Allow {
    pub(crate) shared: Option<Shared>,
    pub(crate) hidden: Hidden,
    pub(crate) source: Source,
}

/// What an allow shares with others of the same answer and policy.
///
/// In this order, so that what nearly everybody looks at is near the reference count, which a hit touches in any case.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Grant {
    /// None for the anonymous consumer.
    pub(crate) claims: Option<Arc<Claims>>,
    /// Of no other grant in the process.
    id: u64,
    pub(crate) identity: Identity,
    pub(crate) set: Set,
    pub(crate) made: Made,
}

/// How the edits of an answer were made. What was made otherwise is not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Made {
    /// The policy's way of making them.
    pub(crate) edits: u32,
    /// Of the directory of consumers.
    pub(crate) generation: u32,
    /// The limit of header values.
    header_bytes: u32,
}

impl Made {
    /// None after four thousand million policies or directories: what cannot be told apart is not kept.
    pub(crate) fn new(edits: u64, generation: u64, header_bytes: usize) -> Option<Self> {
        // No value comes near 4 GiB, so limits beyond are one.
        let header_bytes = u32::try_from(header_bytes).unwrap_or(u32::MAX);
        Some(Self { edits: u32::try_from(edits).ok()?, generation: u32::try_from(generation).ok()?, header_bytes })
    }
}

impl Grant {
    /// `made` is looked at only where it is kept.
    pub(crate) fn of_token(claims: &Arc<Claims>, made: Made, identity: Identity, set: Set) -> Self {
        Self { claims: Some(Arc::clone(claims)), made, id: next_id(), identity, set }
    }

    pub(crate) fn anonymous(consumer: Arc<Consumer>, set: Set) -> Self {
        Self { claims: None, made: Made::default(), id: next_id(), identity: Identity::Anonymous(consumer), set }
    }
}

/// Numbers of grants are never used again: what a host keeps under one cannot become another's.
fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Allow {
    /// What this has in common with other decisions; none for a preflight.
    #[must_use]
    pub fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref()
    }

    /// Who is behind the request.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.shared.as_ref().map_or(&Identity::None, Shared::identity)
    }

    /// What the authorization server said about the token; none for the anonymous consumer and preflights.
    #[must_use]
    pub fn claims(&self) -> Option<&Claims> {
        self.shared.as_ref()?.claims()
    }

    /// The header edits of the upstream request.
    #[must_use]
    pub fn edits(&self) -> HeaderEdits<'_> {
        HeaderEdits {
            hidden: &self.hidden,
            set: self.shared.as_ref().map(|shared| &shared.0.set),
            claims: self.claims(),
            consumer: self.identity().consumer().map(|consumer| &**consumer),
        }
    }

    /// The request target for the upstream, where the credential was taken out of the query.
    #[must_use]
    pub fn target(&self) -> Option<&[u8]> {
        self.hidden.target()
    }

    /// The body for the upstream, where the credential was taken out of it; its length is the new `Content-Length`.
    #[must_use]
    pub fn body(&self) -> Option<&[u8]> {
        self.hidden.body()
    }

    /// Headers that every 2xx answer to the client gets: `Cache-Control: private` if the token came from the query (RFC 6750
    /// §2.3).
    pub fn response_headers(&self) -> impl Iterator<Item = (&'static str, &'static str)> + use<> {
        self.hidden.private.then_some(("Cache-Control", "private")).into_iter()
    }

    /// When the token expires, if the authorization server says so.
    #[must_use]
    pub fn expires(&self) -> Option<NumericDate> {
        self.claims()?.exp()
    }

    /// Where the answer came from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }
}

/// What decisions have in common whose [`identity`](Allow::identity), [`claims`](Allow::claims) and lines [set](HeaderEdits::set) are the
/// same because they were computed once, for one answer, way of making edits and directory of consumers. Keeping one keeps these.
#[derive(Clone)]
pub struct Shared(pub(crate) Arc<Grant>);

impl Shared {
    /// Its number: unique in the process, never 0, never used again, and below 2^53 for thousands of years. A host in another language keeps
    /// what it made of it under that.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.0.id
    }

    /// Who is behind the requests.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// What the authorization server said about the token; none for the anonymous consumer.
    #[must_use]
    pub fn claims(&self) -> Option<&Claims> {
        self.0.claims.as_deref()
    }
}

impl PartialEq for Shared {
    fn eq(&self, other: &Self) -> bool {
        self.number() == other.number()
    }
}

impl Eq for Shared {}

/// Shows its number alone.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.number()).finish()
    }
}

/// Shows no claim and no header value.
impl fmt::Debug for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allow")
            .field("identity", self.identity())
            .field("edits", &self.edits())
            .field("source", &self.source)
            .finish_non_exhaustive()
    }
}

/// The answer to a client whose request does not go on.
#[derive(Clone)]
pub struct Deny {
    pub(crate) reason: Reason,
    pub(crate) malformed: Option<Malformed>,
    pub(crate) source: Source,
    /// Whose challenge it is; none for a defect of ours.
    pub(crate) policy: Option<Policy>,
    /// Seconds.
    pub(crate) retry_after: Seconds,
    /// The request was HEAD: the answer has no body.
    pub(crate) head: bool,
}

impl Deny {
    /// For what must not happen.
    pub(crate) fn internal() -> Self {
        Self {
            reason: Reason::Internal,
            malformed: None,
            source: Source::None,
            policy: None,
            retry_after: Seconds::new(1),
            head: false,
        }
    }

    /// Why.
    #[must_use]
    pub const fn reason(&self) -> Reason {
        self.reason
    }

    /// Where the answer, or its lack, came from.
    #[must_use]
    pub const fn source(&self) -> Source {
        self.source
    }

    /// The status code.
    #[must_use]
    pub const fn status(&self) -> u16 {
        self.reason.status()
    }

    /// The header fields, in order: `Content-Type`, `Cache-Control`, then `WWW-Authenticate` (RFC 6750 §3) or `Retry-After`
    /// where there is one.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let challenge = self.policy.as_ref().and_then(|policy| {
            let challenges = &policy.0.challenges;
            match self.reason {
                Reason::TokenMissing => Some(&challenges.plain),
                Reason::RequestMalformed => Some(&challenges.malformed),
                Reason::InsufficientScope => Some(&challenges.scope),
                _ if self.status() == 401 => Some(&challenges.invalid),
                _ => None,
            }
        });
        let retry_after = (self.status() == 503).then(|| self.retry_after.text());
        [("Content-Type", "application/json; charset=utf-8"), ("Cache-Control", "no-store")]
            .into_iter()
            .chain(challenge.map(|challenge| ("WWW-Authenticate", &**challenge)))
            .chain(retry_after.map(|seconds| ("Retry-After", seconds)))
    }

    /// The body: `{"error":"...","error_description":"..."}`; none for HEAD.
    #[must_use]
    pub fn body(&self) -> Option<&'static str> {
        /// One for each reason, and behind them one for each thing that can be malformed.
        static BODIES: LazyLock<Vec<String>> = LazyLock::new(|| {
            // Fixed words of ours, none of which needs an escape.
            let body = |error, words| format!(r#"{{"error":"{error}","error_description":"{words}"}}"#);
            let malformed = Malformed::ALL.map(|malformed| body(Reason::RequestMalformed.error(), malformed.words()));
            Reason::ALL.iter().map(|reason| body(reason.error(), reason.description())).chain(malformed).collect()
        });
        if self.head {
            return None;
        }
        let index = match self.malformed {
            Some(malformed) => Reason::ALL.len() + malformed as usize,
            None => self.reason.index(),
        };
        BODIES.get(index).map(String::as_str)
    }
}

impl fmt::Debug for Deny {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deny").field("reason", &self.reason).field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Up to 9999 seconds, in digits, without the heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seconds {
    digits: [u8; 4],
    length: u8,
}

impl Seconds {
    pub(crate) fn new(seconds: u16) -> Self {
        let mut left = seconds.min(9999);
        let mut digits = [0; 4];
        let mut length = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + u8::try_from(left % 10).unwrap_or(0);
            left /= 10;
            length += 1;
            if left == 0 {
                break;
            }
        }
        Self { digits, length }
    }

    fn text(&self) -> &str {
        let digits = self.digits.get(4 - usize::from(self.length)..).unwrap_or_default();
        std::str::from_utf8(digits).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_in_order_and_no_status() {
        assert!(Reason::ALL.is_sorted());
        for (index, reason) in Reason::ALL.into_iter().enumerate() {
            assert!((1100..1600).contains(&reason.number()));
            assert_eq!(reason.index(), index);
        }
    }

    #[test]
    fn words_of_an_answer_need_no_escape() {
        let words = Reason::ALL.into_iter().flat_map(|reason| [reason.error(), reason.description()]);
        for word in words.chain(Malformed::ALL.map(Malformed::words)) {
            assert!(word.bytes().all(|byte| (0x20..=0x7e).contains(&byte) && byte != b'"' && byte != b'\\'), "{word}");
        }
    }

    #[test]
    fn a_defect_of_ours_is_answered_as_one() {
        let deny = Deny::internal();
        assert_eq!((deny.reason().number(), deny.status()), (1599, 500));
        let headers: Vec<_> = deny.headers().collect();
        assert_eq!(headers, [("Content-Type", "application/json; charset=utf-8"), ("Cache-Control", "no-store")]);
        let body = r#"{"error":"server_error","error_description":"An unexpected error occurred"}"#;
        assert_eq!(deny.body(), Some(body));
    }

    #[test]
    fn seconds_are_written_in_digits() {
        for (seconds, text) in [(0, "0"), (1, "1"), (10, "10"), (3600, "3600"), (65535, "9999")] {
            assert_eq!(Seconds::new(seconds).text(), text);
        }
    }
}
