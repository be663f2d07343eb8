//! Where an access token may sit in a request, and what one looks like (RFC 6750 §2, OAuth 2.1 §5).

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroizing;

use crate::request::{Header, Request, Target, is_coded, media_type, split_once};

/// The parameter's name, in a query, a form and a JSON document (RFC 6750 §2.2, §2.3).
pub(crate) const PARAMETER: &str = "access_token";

/// The places of a request that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) header: bool,
    pub(crate) query: bool,
    pub(crate) body: bool,
}

/// What reading depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) places: Places,
    /// Profile `kong`: the first place counts, JSON bodies are read, and the scheme `token` is known.
    pub(crate) kong: bool,
    pub(crate) token_bytes: usize,
    pub(crate) body_bytes: usize,
}

/// What was malformed; its words are the only ones a client gets to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    Header,
    Parameter,
    Repeated,
    TooLong,
}

impl Malformed {
    /// In the order of their declaration.
    pub(crate) const ALL: [Self; 4] = [Self::Header, Self::Parameter, Self::Repeated, Self::TooLong];

    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Header => "The Authorization header is malformed",
            Self::Parameter => "The access_token parameter is malformed",
            Self::Repeated => "The access token was given more than once",
            Self::TooLong => "The access token is too long",
        }
    }
}

/// An access token: bytes of the grammar `b64token`, never shown, wiped where it was copied.
#[derive(Clone)]
pub(crate) enum Token<'a> {
    Borrowed(&'a [u8]),
    Copied(Zeroizing<Vec<u8>>),
}

impl Token<'_> {
    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Copied(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What a request, or a place of it, presents.
#[derive(Clone, Debug)]
pub(crate) enum Presented<'a> {
    Nothing,
    Token(Token<'a>),
    Malformed(Malformed),
}

impl Presented<'_> {
    fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

/// What was read, and where.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    pub(crate) presented: Presented<'a>,
    /// The token's grammar was not looked at yet. What is found in the cache was, before it was asked about.
    pub(crate) unchecked: bool,
    pub(crate) from_query: bool,
    /// The body that was searched, and how.
    pub(crate) body: Option<(Form, &'a [u8])>,
    /// A body that might hold a token was too long or coded.
    pub(crate) body_not_searched: bool,
}

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    UrlEncoded,
    Json,
}

/// The request's `Authorization` lines, found by the caller's one pass over the headers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Authorization<'a> {
    lines: usize,
    /// What follows the scheme in the first line, if it is ours.
    credentials: Option<&'a [u8]>,
    bearer: bool,
}

impl<'a> Authorization<'a> {
    #[inline(always)]
    pub(crate) fn add(&mut self, value: &'a [u8], kong: bool) {
        let credentials = credentials(value, kong);
        self.bearer |= credentials.is_some();
        if self.lines == 0 {
            self.credentials = credentials;
        }
        self.lines += 1;
    }

    /// Whether any line holds credentials of the kind we read.
    pub(crate) fn is_bearer(&self) -> bool {
        self.bearer
    }

    /// What may be a token, if there is one line with our scheme.
    fn candidate(&self) -> Option<&'a [u8]> {
        self.credentials.filter(|_| self.lines == 1)
    }

    fn read(&self, reading: &Reading) -> Presented<'a> {
        if self.lines > 1 {
            return Presented::Malformed(Malformed::Header);
        }
        match self.credentials {
            None => Presented::Nothing,
            Some(token) if !is_b64token(token) => Presented::Malformed(Malformed::Header),
            Some(token) if token.len() > reading.token_bytes => Presented::Malformed(Malformed::TooLong),
            Some(token) => Presented::Token(Token::Borrowed(token)),
        }
    }
}

/// Reads the token wherever `reading` says it may be.
#[inline(always)]
pub(crate) fn read<'a>(request: &Request<'a>, authorization: &Authorization<'a>, reading: &Reading) -> Found<'a> {
    let mut found = Found {
        presented: Presented::Nothing,
        unchecked: false,
        from_query: false,
        body: None,
        body_not_searched: false,
    };
    // Nothing else is read whatever this one is, so its grammar may wait until the cache does not know it.
    let alone = !reading.places.query && !reading.places.body;
    if let Some(token) = authorization.candidate().filter(|token| alone && token.len() <= reading.token_bytes)
        && reading.places.header
    {
        found.presented = Presented::Token(Token::Borrowed(token));
        found.unchecked = true;
        return found;
    }
    let mut sources = 0_u32;
    if reading.places.header {
        found.add(authorization.read(reading), reading, &mut sources);
    }
    if reading.places.query && !found.is_settled(reading) {
        let query = Target::parse(request.method, request.target).query.unwrap_or_default();
        let presented = parameter(query, reading);
        found.from_query = matches!(presented, Presented::Token(_));
        found.add(presented, reading, &mut sources);
    }
    if reading.places.body && !found.is_settled(reading) {
        match Body::of(request, reading) {
            Body::None => {}
            Body::NotSearched => found.body_not_searched = true,
            Body::Wanted(form) => {
                if let Some(body) = request.body {
                    found.body = Some((form, body));
                    let presented = match form {
                        Form::UrlEncoded => parameter(body, reading),
                        Form::Json => member(body, reading),
                    };
                    found.add(presented, reading, &mut sources);
                }
            }
        }
    }
    if sources > 1 && !matches!(found.presented, Presented::Malformed(_)) {
        found.presented = Presented::Malformed(Malformed::Repeated);
    }
    found
}

/// Whether the body must be read to decide.
pub(crate) fn needs_body<'a>(request: &Request<'a>, authorization: &Authorization<'a>, reading: &Reading) -> bool {
    if !reading.places.body || !matches!(Body::of(request, reading), Body::Wanted(_)) {
        return false;
    }
    if !reading.kong {
        return true; // a second token in the body is an error
    }
    let mut earlier = *reading;
    earlier.places.body = false;
    read(request, authorization, &earlier).presented.is_nothing()
}

impl<'a> Found<'a> {
    /// Profile `kong`: the first place that holds something ends the search.
    fn is_settled(&self, reading: &Reading) -> bool {
        reading.kong && !self.presented.is_nothing()
    }

    fn add(&mut self, presented: Presented<'a>, reading: &Reading, sources: &mut u32) {
        debug_assert!(!self.is_settled(reading));
        match (&self.presented, &presented) {
            (_, Presented::Nothing) | (Presented::Malformed(_), _) => {}
            (_, Presented::Token(_)) => {
                *sources += 1;
                self.presented = presented;
            }
            (_, Presented::Malformed(_)) => self.presented = presented,
        }
    }
}

/// Whether a body of this method's requests may hold a token.
pub(crate) fn may_have_body(method: &[u8]) -> bool {
    matches!(method, b"POST" | b"PUT" | b"PATCH")
}

enum Body {
    None,
    NotSearched,
    Wanted(Form),
}

impl Body {
    fn of(request: &Request<'_>, reading: &Reading) -> Self {
        if !may_have_body(request.method) {
            return Self::None;
        }
        let form = match media_type(request.headers) {
            Some(essence) if essence.eq_ignore_ascii_case(b"application/x-www-form-urlencoded") => Form::UrlEncoded,
            Some(essence) if reading.kong && essence.eq_ignore_ascii_case(b"application/json") => Form::Json,
            _ => return Self::None,
        };
        let length = match request.body {
            Some(body) => body.len(),
            None => content_length(request.headers).unwrap_or(0),
        };
        if length > reading.body_bytes || is_coded(request.headers) { Self::NotSearched } else { Self::Wanted(form) }
    }
}

fn content_length(headers: &[Header<'_>]) -> Option<usize> {
    let value = headers.iter().find(|header| header.is("content-length"))?.value;
    let digits = std::str::from_utf8(value.trim_ascii()).ok()?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(usize::MAX))
}

/// What follows the scheme, spaces trimmed; none if there are no credentials, or of another scheme.
fn credentials(value: &[u8], kong: bool) -> Option<&[u8]> {
    // As nearly everybody writes it: one space before the token, none around.
    if let Some(token) = value.strip_prefix(b"Bearer ")
        && let [first, .., last] | [first @ last] = token
        && ![first, last].into_iter().any(|byte| matches!(byte, b' ' | b'\t'))
    {
        return Some(token);
    }
    let value = trim(value);
    let end = value.iter().position(|&byte| byte == b' ' || byte == b'\t').unwrap_or(value.len());
    let (scheme, rest) = value.split_at_checked(end)?;
    if scheme == b"Bearer" || scheme.eq_ignore_ascii_case(b"bearer") || (kong && scheme.eq_ignore_ascii_case(b"token"))
    {
        let spaces = rest.iter().take_while(|&&byte| byte == b' ').count();
        rest.get(spaces..)
    } else {
        None
    }
}

/// Trims spaces and tabs (RFC 9110 §5.6.3), nothing else.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="` (RFC 6750 §2.1).
pub(crate) fn is_b64token(bytes: &[u8]) -> bool {
    let padding = bytes.iter().rev().take_while(|&&byte| byte == b'=').count();
    let body = bytes.get(..bytes.len() - padding).unwrap_or_default();
    // Sixteen bytes at a time, without a branch between them; the last sixteen once more where they overlap.
    match body.last_chunk::<16>() {
        Some(last) => {
            let (chunks, _) = body.as_chunks::<16>();
            chunks.iter().all(all_legal) && all_legal(last)
        }
        None => !body.is_empty() && body.iter().all(|&byte| is_legal(byte)),
    }
}

fn all_legal(bytes: &[u8; 16]) -> bool {
    bytes.iter().fold(true, |legal, &byte| legal & is_legal(byte))
}

fn is_legal(byte: u8) -> bool {
    let letter = (byte | 0x20).wrapping_sub(b'a') < 26;
    let digit = byte.wrapping_sub(b'-') < 13; // - . / 0-9
    letter | digit | (byte == b'_') | (byte == b'~') | (byte == b'+')
}

/// The token among the parameters of a query or a form.
fn parameter<'a>(text: &'a [u8], reading: &Reading) -> Presented<'a> {
    let mut value = None;
    for parameter in text.split(|&byte| byte == b'&').filter(|parameter| is_token_parameter(parameter)) {
        let given = split_once(parameter, b'=').map_or(&[][..], |(_, value)| value);
        if value.replace(given).is_some() {
            return if reading.kong { Presented::Nothing } else { Presented::Malformed(Malformed::Repeated) };
        }
    }
    let Some(value) = value.filter(|value| !value.is_empty()) else { return Presented::Nothing };
    let Some(value) = decode(value) else { return Presented::Malformed(Malformed::Parameter) };
    let token = match value {
        Cow::Borrowed(bytes) => Token::Borrowed(bytes),
        Cow::Owned(bytes) => Token::Copied(Zeroizing::new(bytes)),
    };
    checked(token, reading)
}

fn checked<'a>(token: Token<'a>, reading: &Reading) -> Presented<'a> {
    if !is_b64token(token.bytes()) {
        Presented::Malformed(Malformed::Parameter)
    } else if token.bytes().len() > reading.token_bytes {
        Presented::Malformed(Malformed::TooLong)
    } else {
        Presented::Token(token)
    }
}

/// Whether the name of `name=value`, decoded once, is `access_token`.
pub(crate) fn is_token_parameter(parameter: &[u8]) -> bool {
    let name = split_once(parameter, b'=').map_or(parameter, |(name, _)| name);
    if name.len() < PARAMETER.len() || name.len() > PARAMETER.len() * 3 {
        return false;
    }
    name == PARAMETER.as_bytes() || decode(name).is_some_and(|name| *name == *PARAMETER.as_bytes())
}

/// Form-decodes once; none if an escape is bad.
fn decode(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !text.iter().any(|byte| b"%+".contains(byte)) {
        return Some(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(&byte) = bytes.next() {
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => hex(*bytes.next()?)? << 4 | hex(*bytes.next()?)?,
            other => other,
        });
    }
    Some(Cow::Owned(decoded))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The token among the members of a JSON document.
fn member<'a>(body: &'a [u8], reading: &Reading) -> Presented<'a> {
    let Some(members) = token_members(body) else { return Presented::Nothing };
    let [(_, value)] = members.as_slice() else { return Presented::Nothing };
    match serde_json::from_str::<Text<'a>>(value.get()) {
        Ok(Text(Cow::Borrowed(""))) | Err(_) => Presented::Nothing,
        Ok(Text(Cow::Borrowed(text))) => checked(Token::Borrowed(text.as_bytes()), reading),
        Ok(Text(Cow::Owned(text))) => checked(Token::Copied(Zeroizing::new(text.into_bytes())), reading),
    }
}

/// Every top-level member called `access_token`, as it stands in the text: name and value. None if the text is no JSON
/// object.
pub(crate) fn token_members(body: &[u8]) -> Option<Vec<(&RawValue, &RawValue)>> {
    struct Members;

    impl<'de> Visitor<'de> for Members {
        type Value = Vec<(&'de RawValue, &'de RawValue)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
                if serde_json::from_str::<Text<'de>>(name.get()).is_ok_and(|name| name.0 == PARAMETER) {
                    members.push((name, value));
                }
            }
            Ok(members)
        }
    }

    let text = std::str::from_utf8(body).ok()?;
    let mut document = serde_json::Deserializer::from_str(text);
    let members = document.deserialize_map(Members).ok()?;
    document.end().ok()?;
    Some(members)
}

/// A JSON string: borrowed where it has no escapes.
pub(crate) struct Text<'a>(pub(crate) Cow<'a, str>);

impl<'de: 'a, 'a> serde::Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Str;

        impl<'de> Visitor<'de> for Str {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }

        deserializer.deserialize_str(Str).map(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_knows_each_byte() {
        for byte in 0..=u8::MAX {
            let legal = byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
            assert_eq!(is_b64token(&[byte]), legal, "{byte:#x}");
            assert_eq!(is_b64token(&[b'a', byte, b'a']), legal, "{byte:#x} within");
            assert_eq!(is_b64token(&[b'a', byte]), legal || byte == b'=', "{byte:#x} last");
            for length in [15, 16, 17, 31, 32, 33, 100] {
                for at in [0, 7, length - 2] {
                    let mut token = vec![b'a'; length];
                    token[at] = byte;
                    assert_eq!(is_b64token(&token), legal, "{byte:#x} at {at} of {length}");
                }
            }
        }
        assert!(!is_b64token(b""));
        assert!(!is_b64token(b"="));
        assert!(is_b64token(b"a=="));
        assert!(!is_b64token(b"a=a"));
    }

    #[test]
    fn escapes_are_decoded_once() {
        assert_eq!(decode(b"%2541+b").as_deref(), Some(&b"%41 b"[..]));
        for bad in [&b"%"[..], b"%4", b"%4g", b"%+1"] {
            assert_eq!(decode(bad), None);
        }
        assert!(is_token_parameter(b"access%5ftoken"));
        assert!(is_token_parameter(b"%61%63%63%65%73%73%5f%74%6f%6b%65%6e=x"));
        assert!(!is_token_parameter(b"Access_token"));
        assert!(!is_token_parameter(b"access%255ftoken"));
        assert!(!is_token_parameter(b"access_token%"));
    }

    #[test]
    fn a_token_is_not_shown() {
        assert_eq!(format!("{:?}", Presented::Token(Token::Borrowed(b"secret"))), "Token(Token(..))");
    }
}
