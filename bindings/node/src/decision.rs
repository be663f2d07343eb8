//! What JavaScript asks about a decision or a step once somebody looks at it.

use napi::bindgen_prelude::Buffer;
use napi_derive::napi;
use tokenward_core::{Allow, Consumer, Deny, Identity, Snapshot as Counters};

use crate::text::Latin1;

/// A consumer of the gateway.
#[napi(object, js_name = "Consumer", object_from_js = false)]
pub struct ConsumerInfo {
    /// Its id, unique in the directory.
    pub id: String,
    /// Its username, unique in the directory; `null` if it has none.
    #[napi(ts_type = "string | null")]
    pub username: napi::Either<String, napi::bindgen_prelude::Null>,
    /// Its id in the gateway's own terms, often the OAuth client's id; `null` if it has none.
    #[napi(js_name = "customId", ts_type = "string | null")]
    pub custom_id: napi::Either<String, napi::bindgen_prelude::Null>,
    /// Its tags.
    #[napi(ts_type = "readonly string[]")]
    pub tags: Vec<String>,
    /// Its groups.
    #[napi(ts_type = "readonly string[]")]
    pub groups: Vec<String>,
}

impl From<&Consumer> for ConsumerInfo {
    fn from(consumer: &Consumer) -> Self {
        let optional = |text: Option<&str>| match text {
            Some(text) => napi::Either::A(text.to_owned()),
            None => napi::Either::B(napi::bindgen_prelude::Null),
        };
        Self {
            id: consumer.id().to_owned(),
            username: optional(consumer.username()),
            custom_id: optional(consumer.custom_id()),
            tags: consumer.tags().map(str::to_owned).collect(),
            groups: consumer.groups().map(str::to_owned).collect(),
        }
    }
}

/// What an allow has in common with others of its number.
#[napi(object, object_from_js = false)]
pub struct Shared {
    #[napi(ts_type = "'consumer' | 'anonymous' | 'unmatched' | 'none'")]
    pub identity: &'static str,
    pub consumer: Option<ConsumerInfo>,
    /// Names and values in turn. A character is a byte.
    #[napi(ts_type = "string[]")]
    pub set: Vec<Latin1>,
    /// In JSON.
    pub claims: Option<String>,
    /// Seconds.
    pub expires: Option<f64>,
}

impl From<&Allow> for Shared {
    fn from(allow: &Allow) -> Self {
        let identity = match allow.identity() {
            Identity::Consumer(_) => "consumer",
            Identity::Anonymous(_) => "anonymous",
            Identity::Unmatched => "unmatched",
            Identity::None => "none",
        };
        Self {
            identity,
            consumer: allow.identity().consumer().map(|consumer| (&**consumer).into()),
            set: allow.edits().set().flat_map(|(name, value)| [name.into(), value.into()]).collect(),
            claims: allow.claims().map(|claims| claims.json().to_owned()),
            expires: allow.expires().map(|date| date.microseconds() as f64 / 1e6),
        }
    }
}

/// What is an allow's alone.
#[napi(object, object_from_js = false)]
pub struct Own {
    /// Names to remove, but for `Authorization`.
    #[napi(ts_type = "string[]")]
    pub remove: Vec<Latin1>,
    #[napi(ts_type = "string")]
    pub target: Option<Latin1>,
    pub body: Option<Buffer>,
    /// Names and values in turn.
    #[napi(ts_type = "string[]")]
    pub response_headers: Vec<&'static str>,
}

impl From<&Allow> for Own {
    fn from(allow: &Allow) -> Self {
        Self {
            remove: allow.edits().remove().filter(|name| *name != b"Authorization").map(Latin1::from).collect(),
            target: allow.target().map(Latin1::from),
            body: allow.body().map(|body| body.to_vec().into()),
            response_headers: allow.response_headers().flat_map(|(name, value)| [name, value]).collect(),
        }
    }
}

/// A refusal.
#[napi(object, object_from_js = false)]
pub struct Refusal {
    #[napi(ts_type = "Reason")]
    pub reason: &'static str,
    pub number: u32,
    pub status: u32,
    /// Names and values in turn.
    #[napi(ts_type = "string[]")]
    pub headers: Vec<String>,
    pub body: Option<&'static str>,
    pub source: &'static str,
}

impl From<&Deny> for Refusal {
    fn from(deny: &Deny) -> Self {
        Self {
            reason: deny.reason().name(),
            number: deny.reason().number().into(),
            status: deny.status().into(),
            headers: deny.headers().flat_map(|(name, value)| [name.to_owned(), value.to_owned()]).collect(),
            body: deny.body(),
            source: deny.source().name(),
        }
    }
}

/// A call to make, or a wait.
#[napi(object, object_from_js = false)]
pub struct StepInfo {
    pub number: u32,
    /// Seconds on the monotonic clock.
    pub deadline: f64,
}

/// The call to the introspection endpoint.
#[napi(object, object_from_js = false)]
pub struct OutboundInfo {
    pub method: &'static str,
    pub url: String,
    /// Names and values in turn. A character is a byte.
    #[napi(ts_type = "string[]")]
    pub headers: Vec<Latin1>,
    pub body: String,
    /// Milliseconds.
    pub time_left: f64,
    /// Whether the call goes over a new connection.
    pub is_retry: bool,
}

/// The counters at a moment. All but the last five only grow.
#[napi(object, object_from_js = false)]
pub struct Snapshot {
    /// Requests answered from a remembered positive answer.
    pub hits: f64,
    /// Requests answered from a remembered `active: false`.
    pub negative_hits: f64,
    /// Requests that started an introspection.
    pub misses: f64,
    /// Requests that waited for another's introspection.
    pub waits: f64,
    /// Calls to the introspection endpoint, retries included.
    pub introspections: f64,
    /// Header values that were over `limits.header_bytes`.
    pub values_left_out: f64,
    /// Request bodies that could have held a token and were too long or coded.
    pub bodies_not_searched: f64,
    /// Decisions: `allow`, and every reason to deny.
    #[napi(ts_type = "Record<'allow' | Reason, number>")]
    pub decisions: std::collections::HashMap<String, f64>,
    /// Calls by how long they took: one count for each of `latencyBounds`, and one for those that took longer.
    pub latency: Vec<f64>,
    /// Upper bounds of the buckets, in milliseconds.
    pub latency_bounds: Vec<f64>,
    /// The time that all calls took together, in milliseconds.
    pub latency_sum: f64,
    /// Entries pushed out by newer ones.
    pub evictions: f64,
    /// Positive entries.
    pub entries: f64,
    /// Negative entries.
    pub negative_entries: f64,
    /// Bytes of both pools.
    pub bytes: f64,
    /// Introspections under way.
    pub in_flight: f64,
}

impl From<&Counters> for Snapshot {
    fn from(counters: &Counters) -> Self {
        let number = |count: u64| count as f64;
        let denied = counters.denied.iter().map(|(reason, count)| (reason.name().to_owned(), number(*count)));
        Self {
            hits: number(counters.hits),
            negative_hits: number(counters.negative_hits),
            misses: number(counters.misses),
            waits: number(counters.waits),
            introspections: number(counters.introspections),
            values_left_out: number(counters.values_left_out),
            bodies_not_searched: number(counters.bodies_not_searched),
            decisions: denied.chain([("allow".to_owned(), number(counters.allowed))]).collect(),
            latency: counters.latency.iter().map(|count| number(*count)).collect(),
            latency_bounds: tokenward_core::LATENCY_BOUNDS_MS.map(number).to_vec(),
            latency_sum: counters.latency_sum.as_secs_f64() * 1000.0,
            evictions: number(counters.evictions),
            entries: counters.entries as f64,
            negative_entries: counters.negative_entries as f64,
            bytes: counters.bytes as f64,
            in_flight: counters.in_flight as f64,
        }
    }
}
