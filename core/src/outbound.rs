//! The introspection request (RFC 7662 §2.1).

use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use zeroize::Zeroizing;

use crate::config::{Endpoint, REQUEST_METHOD, REQUEST_PATH};
use crate::request::{Request, Target};

/// What one request asks about: the token, and what `introspect_request` says of the request. Wiped when dropped.
#[derive(Clone)]
pub(crate) struct Question {
    token: Zeroizing<Box<[u8]>>,
    /// With `introspect_request`.
    about: Option<About>,
}

#[derive(Clone)]
struct About {
    method: Box<str>,
    path: Option<Box<str>>,
}

impl Question {
    pub(crate) fn new(token: &[u8], request: &Request<'_>, introspect_request: bool) -> Self {
        let about = introspect_request.then(|| About {
            method: visible(request.method),
            path: Target::parse(request.method, request.target).path.map(visible),
        });
        Self { token: Zeroizing::new(token.into()), about }
    }

    pub(crate) fn token(&self) -> &[u8] {
        &self.token
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question(..)")
    }
}

/// The HTTP request that the host sends to the introspection endpoint, without following redirects.
///
/// It holds the token and our credentials: `Debug` shows none of it, and it is wiped when dropped.
pub struct Outbound {
    endpoint: Arc<Endpoint>,
    about: Option<About>,
    body: Zeroizing<String>,
    pub(crate) time_left: Duration,
    is_retry: bool,
}

impl Outbound {
    pub(crate) fn new(endpoint: &Arc<Endpoint>, question: &Question, time_left: Duration, is_retry: bool) -> Self {
        let mut body = Zeroizing::new(String::with_capacity(form_length(endpoint, question)));
        parameter(&mut body, "token", question.token());
        if let Some(hint) = &endpoint.token_type_hint {
            parameter(&mut body, "token_type_hint", hint.as_bytes());
        }
        for (name, value) in &endpoint.params {
            parameter(&mut body, name, value.expose().as_bytes());
        }
        Self { endpoint: Arc::clone(endpoint), about: question.about.clone(), body, time_left, is_retry }
    }

    /// `POST`.
    #[must_use]
    pub const fn method(&self) -> &'static str {
        "POST"
    }

    /// The endpoint's URL, normalized by the WHATWG rules.
    #[must_use]
    pub fn url(&self) -> &str {
        self.endpoint.url.expose()
    }

    /// The header fields but for `Host` and `Content-Length`, which are the transport's.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        let authorization = self.endpoint.authorization.as_ref().map(|value| ("Authorization", value.expose()));
        let path = self.about.as_ref().and_then(|about| about.path.as_deref()).map(|path| (REQUEST_PATH, path));
        let method = self.about.as_ref().map(|about| (REQUEST_METHOD, &*about.method));
        let custom = self.endpoint.headers.iter().map(|(name, value)| (&**name, value.expose()));
        authorization
            .into_iter()
            .chain([
                ("Content-Type", "application/x-www-form-urlencoded"),
                ("Accept", "application/json"),
                ("Accept-Encoding", "identity"),
            ])
            .chain(path)
            .chain(method)
            .chain(custom)
    }

    /// The form.
    #[must_use]
    pub fn body(&self) -> &str {
        &self.body
    }

    /// How long the call may take, from connecting to the last byte of the answer: what was left of `timeout` when this step
    /// was made.
    #[must_use]
    pub const fn time_left(&self) -> Duration {
        self.time_left
    }

    /// Whether the attempt before this one failed with `connect` or `closed`. Such a call goes over a new connection: those that are
    /// kept may all be as dead as the one that it failed on, behind a firewall that forgot them, say, and `retry.attempts` are few.
    #[must_use]
    pub const fn is_retry(&self) -> bool {
        self.is_retry
    }
}

impl fmt::Debug for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbound")
            .field("method", &self.method())
            .field("time_left", &self.time_left)
            .finish_non_exhaustive()
    }
}

/// RFC 3986 §2.3 unreserved characters stay as they are; a space becomes `+`.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b' ');

/// What a header value can hold without doubt.
const VISIBLE: &AsciiSet = &percent_encoding::CONTROLS.add(b' ');

pub(crate) fn form_encode(bytes: &[u8]) -> Zeroizing<String> {
    let mut encoded = Zeroizing::new(String::with_capacity(bytes.len() * 3));
    append_encoded(&mut encoded, bytes);
    encoded
}

fn append_encoded(form: &mut String, bytes: &[u8]) {
    for part in percent_encode(bytes, FORM) {
        // A space is the only one of its bytes that stays and must not.
        for (at, piece) in part.split(' ').enumerate() {
            if at > 0 {
                form.push('+');
            }
            form.push_str(piece);
        }
    }
}

fn parameter(form: &mut String, name: &str, value: &[u8]) {
    if !form.is_empty() {
        form.push('&');
    }
    append_encoded(form, name.as_bytes());
    form.push('=');
    append_encoded(form, value);
}

/// Enough for the whole form, so that no copy of a secret is left behind by growing.
fn form_length(endpoint: &Endpoint, question: &Question) -> usize {
    let parameter = |name: usize, value: usize| (name + value) * 3 + 2;
    let hint = endpoint.token_type_hint.as_ref().map_or(0, |hint| hint.len());
    let params = endpoint.params.iter().map(|(name, value)| parameter(name.len(), value.expose().len()));
    parameter(5, question.token().len()) + parameter(15, hint) + params.sum::<usize>()
}

/// Bytes outside of 0x21-0x7E percent-encoded.
fn visible(bytes: &[u8]) -> Box<str> {
    let mut text = String::with_capacity(bytes.len());
    let _ = write!(text, "{}", percent_encode(bytes, VISIBLE));
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_byte_decodes_back_to_itself() {
        let all: Vec<u8> = (0..=u8::MAX).collect();
        let encoded = form_encode(&all);
        assert!(!encoded.contains(['&', '=', '#', ' ']));
        let decoded = percent_encoding::percent_decode_str(&encoded.replace('+', " ")).collect::<Vec<u8>>();
        assert_eq!(decoded, all);
    }

    #[test]
    fn unreserved_characters_stay_as_they_are() {
        assert_eq!(*form_encode(b"aZ09-._~ *+/"), "aZ09-._~+%2A%2B%2F");
        assert_eq!(&*visible(b"/a b\x7f\xc3\xa9%20"), "/a%20b%7F%C3%A9%20");
    }
}
