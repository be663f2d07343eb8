//! What the client sent, as the host sees it.

use std::fmt;

/// One header field: a name and a value, as received.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name in any case. Pseudo-headers of HTTP/2 (`:path`) are not header fields.
    pub name: &'a [u8],
    /// The value without line ends.
    pub value: &'a [u8],
}

impl<'a> Header<'a> {
    /// A header field from anything that is bytes.
    pub fn new(name: &'a (impl AsRef<[u8]> + ?Sized), value: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { name: name.as_ref(), value: value.as_ref() }
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// Values are what the client or the authorization server sent: never shown.
impl fmt::Debug for Header<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ..", self.name.escape_ascii())
    }
}

/// A borrowed view of a request.
///
/// `target` is the request target as received: origin form (`/path?query`), absolute form, `*`, authority form, or the
/// `:path` of HTTP/2. `headers` holds every line, duplicates included. The body is given only where
/// [`Introspector::needs_body`](crate::Introspector::needs_body) asks for it.
///
/// ```
/// use tokenward_core::{Header, Request};
///
/// let headers = [Header::new("Authorization", "Bearer 2YotnFZFEjr1zCsicMWpAA")];
/// let request = Request::new("GET", "/orders?page=2").headers(&headers);
/// # let _ = request;
/// ```
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub(crate) method: &'a [u8],
    pub(crate) target: &'a [u8],
    pub(crate) headers: &'a [Header<'a>],
    pub(crate) trailers: &'a [&'a [u8]],
    pub(crate) body: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// A request without header fields and with its body not read.
    pub fn new(method: &'a (impl AsRef<[u8]> + ?Sized), target: &'a (impl AsRef<[u8]> + ?Sized)) -> Self {
        Self { method: method.as_ref(), target: target.as_ref(), headers: &[], trailers: &[], body: None }
    }

    /// The header fields, in the order received.
    #[must_use]
    pub fn headers(mut self, headers: &'a [Header<'a>]) -> Self {
        self.headers = headers;
        self
    }

    /// Names of the trailer fields, as far as the host knows them. Trailers that arrive later are tested with
    /// [`is_managed`](crate::is_managed).
    #[must_use]
    pub fn trailers(mut self, names: &'a [&'a [u8]]) -> Self {
        self.trailers = names;
        self
    }

    /// The body that was read. A host that stopped reading at `limits.body_bytes` hands over one byte more than that,
    /// or all it has: a body over the limit is not searched, passes on untouched, and is counted.
    #[must_use]
    pub fn body(mut self, body: &'a [u8]) -> Self {
        self.body = Some(body);
        self
    }
}

/// Shows nothing that could hold a credential.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &format_args!("{}", self.method.escape_ascii()))
            .field("headers", &self.headers.len())
            .field("trailers", &self.trailers.len())
            .field("body", &self.body.map(<[u8]>::len))
            .finish_non_exhaustive()
    }
}

/// The parts of a request target (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Target<'a> {
    /// The path alone; none in authority form.
    pub(crate) path: Option<&'a [u8]>,
    /// Without its `?`.
    pub(crate) query: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    pub(crate) fn parse(method: &[u8], target: &'a [u8]) -> Self {
        let none = Self { path: None, query: None };
        if target == b"*" {
            return Self { path: Some(target), query: None };
        }
        if method == b"CONNECT" {
            return none;
        }
        let (before, query) = match split_once(target, b'?') {
            Some((before, query)) => (before, Some(query)),
            None => (target, None),
        };
        if target.first() == Some(&b'/') {
            return Self { path: Some(before), query };
        }
        let Some(authority) = after_scheme(before) else { return none };
        let path = match authority.iter().position(|&byte| byte == b'/') {
            Some(at) => authority.get(at..).unwrap_or_default(),
            None => b"/",
        };
        Self { path: Some(path), query }
    }
}

/// What follows `scheme://`, if the target begins so.
fn after_scheme(target: &[u8]) -> Option<&[u8]> {
    let colon = target.iter().position(|&byte| byte == b':')?;
    let (scheme, rest) = target.split_at_checked(colon)?;
    let legal = scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    if legal { rest.strip_prefix(b"://") } else { None }
}

pub(crate) fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let position = bytes.iter().position(|&byte| byte == at)?;
    let (before, rest) = bytes.split_at_checked(position)?;
    Some((before, rest.get(1..)?))
}

/// The type of a body: `type/subtype` without parameters, if the message has exactly one `Content-Type`.
pub(crate) fn media_type<'a>(headers: &[Header<'a>]) -> Option<&'a [u8]> {
    let mut lines = headers.iter().filter(|header| header.is("content-type"));
    let line = lines.next()?.value;
    if lines.next().is_some() {
        return None;
    }
    let essence = split_once(line, b';').map_or(line, |(essence, _)| essence);
    Some(essence.trim_ascii())
}

/// Whether the message has a content coding other than `identity`.
pub(crate) fn is_coded(headers: &[Header<'_>]) -> bool {
    headers.iter().any(|header| {
        header.is("content-encoding")
            && header.value.split(|&byte| byte == b',').any(|coding| {
                let coding = coding.trim_ascii();
                !coding.is_empty() && !coding.eq_ignore_ascii_case(b"identity")
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'a>(method: &str, target: &'a str) -> (Option<&'a str>, Option<&'a str>) {
        let target = Target::parse(method.as_bytes(), target.as_bytes());
        let text = |bytes: &'a [u8]| std::str::from_utf8(bytes).unwrap();
        (target.path.map(text), target.query.map(text))
    }

    #[test]
    fn every_form_of_a_target_has_its_path_and_query() {
        assert_eq!(parts("GET", "/a?b?c"), (Some("/a"), Some("b?c")));
        assert_eq!(parts("GET", "/a:b://c"), (Some("/a:b://c"), None));
        assert_eq!(parts("GET", "http://host/a?b"), (Some("/a"), Some("b")));
        assert_eq!(parts("GET", "http://host?b=/c"), (Some("/"), Some("b=/c")));
        assert_eq!(parts("GET", "http://host"), (Some("/"), None));
        assert_eq!(parts("OPTIONS", "*"), (Some("*"), None));
        assert_eq!(parts("CONNECT", "host:443"), (None, None));
        assert_eq!(parts("GET", "host:443?a"), (None, None));
        assert_eq!(parts("GET", ""), (None, None));
    }

    #[test]
    fn debug_output_holds_no_value() {
        let headers = [Header::new("Authorization", "Bearer secret")];
        let request = Request::new("GET", "/?access_token=secret").headers(&headers).body(b"secret");
        assert!(!format!("{request:?} {headers:?}").contains("secret"));
    }
}
