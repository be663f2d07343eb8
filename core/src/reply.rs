//! Reading the authorization server's answer (RFC 7662 §2.2, §2.3): nothing is taken for a "yes" that is not exactly one.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::claims::{Bounds, Claims, MEMBERS, Member, NumericDate, Span, has_duplicates, string};
use crate::decision::Reason;
use crate::request::{Header, is_coded, media_type};
use crate::strict::is_strict;
use crate::token::Text;

/// How the call to the introspection endpoint went, as the host tells it.
#[derive(Clone, Copy)]
pub enum Reply<'a> {
    /// There was no complete answer.
    Failed(Failure),
    /// There was an answer. The body is as received; a host that stops reading at `limits.reply_bytes` says
    /// [`Failure::TooLong`] instead.
    Response {
        /// The status code.
        status: u16,
        /// The header fields, every line of them.
        headers: &'a [Header<'a>],
        /// The whole body.
        body: &'a [u8],
    },
}

/// The body may hold personal data and is not shown.
impl fmt::Debug for Reply<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => f.debug_tuple("Failed").field(failure).finish(),
            Self::Response { status, body, .. } => {
                f.debug_struct("Response").field("status", status).field("bytes", &body.len()).finish()
            }
        }
    }
}

/// How a call can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The endpoint's name could not be resolved.
    Dns,
    /// TLS could not be established, or the certificate was not accepted.
    Tls,
    /// The connection ended before the answer's header section was complete.
    Closed,
    /// The time ran out.
    TimedOut,
    /// The answer was no HTTP.
    Protocol,
    /// The answer was longer than `limits.reply_bytes`.
    TooLong,
    /// The connection ended within the answer's body.
    CutOff,
}

impl Failure {
    /// Every failure.
    pub const ALL: [Self; 8] = [
        Self::Connect,
        Self::Dns,
        Self::Tls,
        Self::Closed,
        Self::TimedOut,
        Self::Protocol,
        Self::TooLong,
        Self::CutOff,
    ];

    /// The name used in logs and vectors: `connect`, `timed_out`, ...
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Dns => "dns",
            Self::Tls => "tls",
            Self::Closed => "closed",
            Self::TimedOut => "timed_out",
            Self::Protocol => "protocol",
            Self::TooLong => "too_long",
            Self::CutOff => "cut_off",
        }
    }

    /// The failure of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|failure| failure.name() == name)
    }

    /// Whether the request cannot have been acted upon, so that asking again is safe.
    pub(crate) const fn may_retry(self) -> bool {
        matches!(self, Self::Connect | Self::Closed)
    }

    const fn reason(self) -> Reason {
        match self {
            Self::Connect | Self::Dns | Self::Tls | Self::Closed => Reason::EndpointUnreachable,
            Self::TimedOut => Reason::EndpointTimedOut,
            Self::Protocol | Self::TooLong | Self::CutOff => Reason::ReplyMalformed,
        }
    }
}

/// An authoritative answer.
#[derive(Clone, Debug)]
pub(crate) enum Introspection {
    Active(Arc<Claims>),
    Inactive,
}

/// No authoritative answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer {
    pub(crate) reason: Reason,
    /// Seconds, 1-3600, if the authorization server gave them.
    pub(crate) retry_after: Option<u16>,
}

impl From<Reason> for NoAnswer {
    fn from(reason: Reason) -> Self {
        Self { reason, retry_after: None }
    }
}

/// What a reply may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) reply_bytes: usize,
    /// Profile `kong`: a string of digits is read as a number in `exp`, `nbf` and `iat`.
    pub(crate) digits: bool,
}

/// Sorts a reply into an answer or the reason why there is none.
pub(crate) fn read(reply: &Reply<'_>, rules: &Rules) -> Result<Introspection, NoAnswer> {
    let (status, headers, body) = match *reply {
        Reply::Failed(failure) => return Err(failure.reason().into()),
        Reply::Response { status, headers, body } => (status, headers, body),
    };
    match status {
        200 => match document(headers, body, rules).and_then(|document| document.introspection(rules)) {
            Some(introspection) => Ok(introspection),
            None => Err(Reason::ReplyMalformed.into()),
        },
        // Some servers say so of any token that looks like a JWT. It is their last word on this token.
        400 if document(headers, body, rules).is_some_and(|document| document.is_unsupported_token_type()) => {
            Ok(Introspection::Inactive)
        }
        429 | 500 | 502 | 503 | 504 => {
            Err(NoAnswer { reason: Reason::EndpointUnavailable, retry_after: retry_after(headers) })
        }
        _ => Err(Reason::EndpointRefused.into()),
    }
}

/// `Retry-After` in seconds, 1 to 3600. A date, or anything else, counts as none.
fn retry_after(headers: &[Header<'_>]) -> Option<u16> {
    let mut lines = headers.iter().filter(|header| header.is("retry-after"));
    let value = lines.next()?.value.trim_ascii();
    if lines.next().is_some() || value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds: u16 = std::str::from_utf8(value).ok()?.parse().unwrap_or(u16::MAX);
    (seconds > 0).then_some(seconds.min(3600))
}

/// A JSON object that passed every check of form.
#[derive(Default)]
struct Document<'a> {
    text: &'a str,
    active: Option<&'a str>,
    error: Option<&'a str>,
    cnf: bool,
    token_use: Option<&'a str>,
    typ: Option<&'a str>,
    /// By [`Member`].
    members: [Option<&'a str>; MEMBERS.len()],
}

fn document<'a>(headers: &[Header<'_>], body: &'a [u8], rules: &Rules) -> Option<Document<'a>> {
    let json = media_type(headers)?.eq_ignore_ascii_case(b"application/json");
    if !json || is_coded(headers) || body.len() > rules.reply_bytes {
        return None;
    }
    let text = std::str::from_utf8(body).ok()?.trim_matches([' ', '\t', '\n', '\r']);
    let mut reader = serde_json::Deserializer::from_str(text);
    let document = reader.deserialize_map(Top { text }).ok()?;
    reader.end().ok()?;
    Some(document)
}

/// Reads the top level once, for its names and the places of its values.
struct Top<'a> {
    text: &'a str,
}

impl<'a> Visitor<'a> for Top<'a> {
    type Value = Document<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut document = Document { text: self.text, ..Document::default() };
        let mut names: SmallVec<[Cow<'a, str>; 16]> = SmallVec::new();
        while let Some(Text(name)) = map.next_key()? {
            let value: &'a RawValue = map.next_value()?;
            let value = value.get();
            if !is_strict(value) {
                return Err(A::Error::custom("no strict JSON"));
            }
            match &*name {
                "active" => document.active = Some(value),
                "error" => document.error = Some(value),
                "cnf" => document.cnf = true,
                "token_use" => document.token_use = Some(value),
                "typ" => document.typ = Some(value),
                name => {
                    for (slot, member) in document.members.iter_mut().zip(MEMBERS) {
                        if member == name {
                            *slot = Some(value);
                        }
                    }
                }
            }
            names.push(name);
        }
        if has_duplicates(&mut names) {
            return Err(A::Error::custom("duplicate member"));
        }
        Ok(document)
    }
}

impl Document<'_> {
    fn introspection(&self, rules: &Rules) -> Option<Introspection> {
        match self.active? {
            "false" => Some(Introspection::Inactive),
            "true" => Some(Introspection::Active(Arc::new(self.claims(rules)?))),
            _ => None,
        }
    }

    fn claims(&self, rules: &Rules) -> Option<Claims> {
        let mut members = [Span::default(); MEMBERS.len()];
        for (span, value) in members.iter_mut().zip(self.members) {
            if let Some(value) = value {
                *span = Span::of(value, self.text)?;
            }
        }
        Some(Claims {
            bounds: Bounds::new(
                date(self.member(Member::Exp), rules)?,
                date(self.member(Member::Nbf), rules)?,
                self.is_marked(),
            ),
            iat: date(self.member(Member::Iat), rules)?,
            members,
            json: self.text.into(),
        })
    }

    fn member(&self, member: Member) -> Option<&str> {
        self.members.get(member as usize).copied().flatten()
    }

    /// Whether it is bound to a key, or says that it is no access token.
    fn is_marked(&self) -> bool {
        let token_type = self.member(Member::TokenType);
        self.cnf
            || token_type.is_some_and(|value| is_word(value, &["dpop"]))
            || [token_type, self.token_use, self.typ].into_iter().flatten().any(|v| is_word(v, OTHER_TOKENS))
    }

    fn is_unsupported_token_type(&self) -> bool {
        self.error.and_then(string).is_some_and(|error| error == "unsupported_token_type")
    }
}

/// What servers write in `token_use`, `token_type` or `typ` of a refresh or ID token.
const OTHER_TOKENS: &[&str] = &[
    "refresh",
    "refresh_token",
    "refresh-token",
    "refresh+jwt",
    "rt+jwt",
    "offline",
    "id",
    "id_token",
    "id-token",
    "id+jwt",
];

fn is_word(value: &str, words: &[&str]) -> bool {
    string(value).is_some_and(|value| words.iter().any(|word| value.eq_ignore_ascii_case(word)))
}

/// Some(None): absent. None: present and no date.
fn date(value: Option<&str>, rules: &Rules) -> Option<Option<NumericDate>> {
    let Some(value) = value else { return Some(None) };
    if let Some(date) = NumericDate::parse(value) {
        return Some(Some(date));
    }
    if !rules.digits {
        return None;
    }
    let digits = string(value)?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    NumericDate::parse(&digits).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { reply_bytes: 1 << 20, digits: false };

    fn parse(body: &str) -> Result<Introspection, NoAnswer> {
        let headers = [Header::new("Content-Type", "application/json")];
        read(&Reply::Response { status: 200, headers: &headers, body: body.as_bytes() }, &RULES)
    }

    #[test]
    fn nesting_of_128_is_read_and_129_is_not() {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let nested = |depth: usize| {
                let inner = if open == "[" { "" } else { "1" };
                format!("{{\"active\":true,\"a\":{}{inner}{}}}", open.repeat(depth), close.repeat(depth))
            };
            assert!(matches!(parse(&nested(127)), Ok(Introspection::Active(_))));
            assert_eq!(parse(&nested(128)).unwrap_err().reason, Reason::ReplyMalformed);
            assert_eq!(parse(&nested(100_000)).unwrap_err().reason, Reason::ReplyMalformed);
        }
    }

    #[test]
    fn a_failures_name_names_it() {
        for failure in Failure::ALL {
            assert_eq!(Failure::from_name(failure.name()), Some(failure));
        }
    }

    #[test]
    fn a_reply_is_not_shown() {
        let headers = [Header::new("x", "secret")];
        let reply = Reply::Response { status: 200, headers: &headers, body: b"secret" };
        assert!(!format!("{reply:?} {:?}", parse("{\"active\":true,\"sub\":\"secret\"}")).contains("secret"));
    }
}
