//! What the upstream is told: which headers are set and removed, and how a claim becomes a header value.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use smallvec::SmallVec;

use crate::checks::Verified;
use crate::claims::{Claims, MEMBERS, Span, for_each_element, segments, split_string, string};
use crate::consumer::{Consumer, Identity};
use crate::hide::Hidden;

/// Names of the headers about the consumer, and then of the claims that are always forwarded, in their order.
pub(crate) const CONSUMER_ID: &str = "X-Consumer-ID";
pub(crate) const CONSUMER_CUSTOM_ID: &str = "X-Consumer-Custom-ID";
pub(crate) const CONSUMER_USERNAME: &str = "X-Consumer-Username";
pub(crate) const ANONYMOUS: &str = "X-Anonymous-Consumer";
pub(crate) const CREDENTIAL: &str = "X-Credential-";
/// In the order of [`MEMBERS`].
const CREDENTIALS: [&str; MEMBERS.len()] = [
    "X-Credential-Scope",
    "X-Credential-Client-ID",
    "X-Credential-Token-Type",
    "X-Credential-Exp",
    "X-Credential-Iat",
    "X-Credential-Nbf",
    "X-Credential-Sub",
    "X-Credential-Aud",
    "X-Credential-Iss",
    "X-Credential-Jti",
    "X-Credential-Identifier",
];

/// The headers of the claims that are always forwarded, and the claims.
pub(crate) fn credentials() -> impl Iterator<Item = (&'static str, &'static str)> {
    CREDENTIALS.into_iter().zip(MEMBERS)
}

/// The headers that an allow can set whatever the configuration says, in the order in which they are set. Each claim of
/// `custom_claims_forward` adds one behind them.
pub fn set_headers() -> impl Iterator<Item = &'static str> {
    [CONSUMER_ID, CONSUMER_CUSTOM_ID, CONSUMER_USERNAME, ANONYMOUS].into_iter().chain(CREDENTIALS)
}

/// Whether only Tokenward may set this header: `X-Anonymous-Consumer`, and whatever begins with `X-Consumer-` or
/// `X-Credential-`; case ignored, `_` and `.` read as `-`, since servers and frameworks fold them together.
///
/// Every header and trailer of such a name that a client sends is removed on every allow.
///
/// ```
/// assert!(tokenward_core::is_managed(b"x_consumer.id"));
/// assert!(!tokenward_core::is_managed(b"X-Consumers"));
/// ```
#[must_use]
pub fn is_managed(name: &[u8]) -> bool {
    let is = |prefix: &[u8]| {
        name.len() >= prefix.len()
            && name.iter().zip(prefix).all(|(&byte, &expected)| match byte {
                b'_' | b'.' => expected == b'-',
                _ => byte.to_ascii_lowercase() == expected,
            })
    };
    // The third byte tells them apart from all others.
    let Some(b'a' | b'A' | b'c' | b'C') = name.get(2) else { return false };
    is(b"x-consumer-") || is(b"x-credential-") || (name.len() == ANONYMOUS.len() && is(b"x-anonymous-consumer"))
}

/// How the names of the header fields begin that count whatever else a request is: `Authorization`, and what [`is_managed`] knows. In
/// lower case; case is ignored, and `_` and `.` are read as `-`. Only a field whose name begins with one of these counts, though
/// not every one that does.
///
/// For hosts that leave out the others, see [`Introspector::is_lean`](crate::Introspector::is_lean).
pub fn counted_headers() -> impl Iterator<Item = &'static str> {
    ["authorization", "x-anonymous-consumer", "x-consumer-", "x-credential-"].into_iter()
}

/// How an array of a claim becomes a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArrayFormat {
    Json,
    Comma,
    Repeat,
}

/// How text outside of visible ASCII becomes a header value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderEncoding {
    Rfc8187,
    Utf8,
}

/// A claim that is forwarded beside the usual ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClaimHeader {
    /// `X-Credential-...`
    pub(crate) name: Box<str>,
    /// Member names from the top.
    pub(crate) path: Vec<Box<str>>,
}

impl ClaimHeader {
    /// From an entry of `custom_claims_forward`: a claim's name, or a JSON Pointer. None if it names no claim.
    pub(crate) fn parse(entry: &str, underscores: bool) -> Option<Self> {
        let path = match entry.strip_prefix('/') {
            Some(_) => segments(entry)?,
            None => vec![entry.into()],
        };
        let suffix: String = path.join("-").chars().map(|c| legal(c, underscores)).collect();
        if suffix.is_empty() {
            return None;
        }
        Some(Self { name: format!("{CREDENTIAL}{suffix}").into(), path })
    }

    /// The name as servers that fold `_`, `.` and case see it.
    pub(crate) fn folded(&self) -> String {
        fold(&self.name)
    }
}

pub(crate) fn fold(name: &str) -> String {
    name.replace(['_', '.'], "-").to_ascii_lowercase()
}

/// A character of a field name (RFC 9110 §5.6.2), or `-` in its place.
fn legal(c: char, underscores: bool) -> char {
    match c {
        '_' if !underscores => '-',
        _ if c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c) => c,
        _ => '-',
    }
}

/// How values are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Writing {
    pub(crate) array_format: ArrayFormat,
    pub(crate) header_encoding: HeaderEncoding,
    pub(crate) custom: Arc<[ClaimHeader]>,
}

/// The headers that are set for one answer under one policy: computed once, shared by later hits, and small, since every remembered
/// answer has one.
#[derive(Debug)]
pub(crate) struct Set {
    custom: Arc<[ClaimHeader]>,
    /// The names of [`FIXED`], a bit each, whose value is the consumer's or the claim's own text as it is: nearly all of them.
    plain: u16,
    /// The others, in order.
    lines: Box<[Line]>,
    /// Values that are no part of the claims' own text.
    own: Box<[Box<str>]>,
    /// Values that were too long and left out.
    pub(crate) left_out: u32,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    name: Name,
    value: LineValue,
}

/// An index into [`FIXED`], or behind that into the custom claims.
#[derive(Clone, Copy, Debug)]
struct Name(u16);

/// Every name that is not a custom claim's.
static FIXED: [&str; 4 + CREDENTIALS.len()] = [
    CONSUMER_ID,
    CONSUMER_CUSTOM_ID,
    CONSUMER_USERNAME,
    ANONYMOUS,
    CREDENTIALS[0],
    CREDENTIALS[1],
    CREDENTIALS[2],
    CREDENTIALS[3],
    CREDENTIALS[4],
    CREDENTIALS[5],
    CREDENTIALS[6],
    CREDENTIALS[7],
    CREDENTIALS[8],
    CREDENTIALS[9],
    CREDENTIALS[10],
];
const ID: Name = Name(0);
const CUSTOM_ID: Name = Name(1);
const USERNAME: Name = Name(2);
const IS_ANONYMOUS: Name = Name(3);
/// The first of the credentials, and the first of the custom claims.
const FIRST_CREDENTIAL: u16 = 4;
#[allow(clippy::cast_possible_truncation, reason = "fifteen")]
const FIRST_CUSTOM: u16 = FIXED.len() as u16;

#[derive(Clone, Copy)]
enum LineValue {
    /// A part of the claims' own text.
    Claims(Span),
    /// An index into `own`.
    Own(u32),
    True,
    False,
}

impl fmt::Debug for LineValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl Set {
    /// For a token that passed its checks.
    pub(crate) fn of_token(verified: Verified<'_>, identity: &Identity, writing: &Writing, limit: usize) -> Self {
        let mut writer = Writer::new(writing, limit);
        if let Some(consumer) = identity.consumer() {
            writer.consumer(consumer);
        }
        let claims = verified.claims();
        for (name, value) in (FIRST_CREDENTIAL..).zip(claims.all_known()) {
            if let Some(value) = value {
                writer.claim(Name(name), value, claims);
            }
        }
        for (name, custom) in (FIRST_CUSTOM..u16::MAX).zip(writing.custom.iter()) {
            if let Some(value) = claims.at(&custom.path) {
                writer.claim(Name(name), value, claims);
            }
        }
        writer.finish()
    }

    /// For the anonymous consumer: nothing about any credential.
    pub(crate) fn of_anonymous(consumer: &Consumer, writing: &Writing, limit: usize) -> Self {
        let mut writer = Writer::new(writing, limit);
        writer.consumer(consumer);
        writer.plain |= IS_ANONYMOUS.bit();
        writer.finish()
    }

    pub(crate) fn iter<'a>(&'a self, claims: Option<&'a Claims>, consumer: Option<&'a Consumer>) -> Lines<'a> {
        Lines { set: self, plain: self.plain, lines: self.lines.iter(), claims, consumer }
    }

    /// Bytes held on the heap, with what the allocator adds.
    pub(crate) fn heap(&self) -> usize {
        let own: usize = self.own.iter().map(|text| size_of::<Box<str>>() + text.len() + ALLOCATION).sum();
        size_of_val(&*self.lines) + own
    }
}

impl Name {
    /// Of a name of [`FIXED`].
    fn bit(self) -> u16 {
        1_u16.checked_shl(self.0.into()).unwrap_or(0)
    }
}

/// Names and values in order: what is plain, and the lines in between.
#[derive(Debug)]
pub(crate) struct Lines<'a> {
    set: &'a Set,
    /// Those of the set that are still to come.
    plain: u16,
    lines: std::slice::Iter<'a, Line>,
    claims: Option<&'a Claims>,
    consumer: Option<&'a Consumer>,
}

impl<'a> Lines<'a> {
    fn line(&self, line: &'a Line) -> Option<(&'a str, &'a str)> {
        let at = usize::from(line.name.0);
        let name = match FIXED.get(at) {
            Some(name) => name,
            None => &*self.set.custom.get(at - FIXED.len())?.name,
        };
        let value = match line.value {
            LineValue::Claims(span) => self.claims.map_or("", |claims| span.text(&claims.json)),
            LineValue::Own(at) => self.set.own.get(at as usize).map_or("", |text| text),
            LineValue::True => "true",
            LineValue::False => "false",
        };
        Some((name, value))
    }

    /// The value of a name of [`FIXED`] that is there as it is.
    fn plain(&self, at: usize) -> Option<(&'a str, &'a str)> {
        let value = match at {
            0 => self.consumer?.id(),
            1 => self.consumer?.custom_id()?,
            2 => self.consumer?.username()?,
            3 => "true",
            at => {
                let json = self.claims?.known_at(at - usize::from(FIRST_CREDENTIAL))?;
                json.strip_prefix('"').and_then(|json| json.strip_suffix('"')).unwrap_or(json)
            }
        };
        Some((FIXED.get(at)?, value))
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = (&'a str, &'a str);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let plain = if self.plain == 0 { u32::MAX } else { self.plain.trailing_zeros() };
            // Lines are in the order of their names, as they were written.
            let found = match self.lines.as_slice().first() {
                Some(line) if u32::from(line.name.0) < plain => {
                    self.lines.next();
                    self.line(line)
                }
                _ if self.plain != 0 => {
                    self.plain &= self.plain - 1;
                    self.plain(plain as usize)
                }
                _ => return None,
            };
            if found.is_some() {
                return found;
            }
        }
    }
}

/// What an allocation takes beside its bytes: its own length, and rounding up.
pub(crate) const ALLOCATION: usize = 16;

struct Writer<'w> {
    writing: &'w Writing,
    limit: usize,
    plain: u16,
    lines: SmallVec<[Line; 8]>,
    own: SmallVec<[Box<str>; 8]>,
    left_out: u32,
}

/// A value on its way into a line.
enum Value<'v> {
    /// A part of the claims' own text.
    Part(&'v str),
    Own(Cow<'v, str>),
    Is(bool),
}

impl<'w> Writer<'w> {
    fn new(writing: &'w Writing, limit: usize) -> Self {
        Self { writing, limit, plain: 0, lines: SmallVec::new(), own: SmallVec::new(), left_out: 0 }
    }

    fn consumer(&mut self, consumer: &Consumer) {
        for (name, value) in
            [(ID, Some(consumer.id())), (CUSTOM_ID, consumer.custom_id()), (USERNAME, consumer.username())]
        {
            match value.map(|value| encode_text(value, self.writing.header_encoding)) {
                Some(Cow::Borrowed(value)) if value.len() <= self.limit => self.plain |= name.bit(),
                Some(value) => self.line(name, Value::Own(value), ""),
                None => {}
            }
        }
    }

    fn claim(&mut self, name: Name, json: &str, claims: &Claims) {
        let whole = &claims.json;
        if json.starts_with('[') {
            match self.writing.array_format {
                ArrayFormat::Repeat if is_array_of_scalars(json) => {
                    for_each_element(json, |element| {
                        if let Some(value) = scalar(element, self.writing.header_encoding) {
                            self.line(name, value, whole);
                        }
                    });
                    return;
                }
                ArrayFormat::Comma => {
                    if let Some(joined) = comma_separated(json) {
                        self.line(name, Value::Own(joined.into()), whole);
                        return;
                    }
                }
                _ => {}
            }
        }
        if json.starts_with(['[', '{']) {
            self.line(name, Value::Own(compact(json).into()), whole);
            return;
        }
        match scalar(json, self.writing.header_encoding) {
            Some(Value::Part(text)) if name.0 < FIRST_CUSTOM && text.len() <= self.limit => self.plain |= name.bit(),
            Some(value) => self.line(name, value, whole),
            None => {}
        }
    }

    /// `whole` is the text that a part is a part of.
    fn line(&mut self, name: Name, value: Value<'_>, whole: &str) {
        let length = match &value {
            Value::Part(text) => text.len(),
            Value::Own(text) => text.len(),
            Value::Is(is) => {
                if *is {
                    4
                } else {
                    5
                }
            }
        };
        if length > self.limit {
            self.left_out = self.left_out.saturating_add(1);
            return;
        }
        let value = match value {
            Value::Is(true) => LineValue::True,
            Value::Is(false) => LineValue::False,
            Value::Part(text) => match Span::of(text, whole) {
                Some(span) => LineValue::Claims(span),
                None => self.own(text.into()),
            },
            Value::Own(text) => self.own(text.into()),
        };
        self.lines.push(Line { name, value });
    }

    fn own(&mut self, text: Box<str>) -> LineValue {
        let at = u32::try_from(self.own.len()).unwrap_or(u32::MAX);
        self.own.push(text);
        LineValue::Own(at)
    }

    fn finish(self) -> Set {
        debug_assert!(self.lines.is_sorted_by_key(|line| line.name.0));
        Set {
            custom: Arc::clone(&self.writing.custom),
            plain: self.plain,
            lines: self.lines.as_slice().into(),
            own: self.own.into_vec().into(),
            left_out: self.left_out,
        }
    }
}

/// A claim as one header value: of an array that would be several lines, compact JSON. None for what counts as absent, and for
/// what is too long.
pub(crate) fn value(json: &str, writing: &Writing, limit: usize) -> Option<String> {
    let joined = || if writing.array_format == ArrayFormat::Comma { comma_separated(json) } else { None };
    let text = match json.as_bytes().first()? {
        b'[' => joined().unwrap_or_else(|| compact(json)),
        b'{' => compact(json),
        _ => match scalar(json, writing.header_encoding)? {
            Value::Part(text) => text.to_owned(),
            Value::Own(text) => text.into_owned(),
            Value::Is(is) => is.to_string(),
        },
    };
    (text.len() <= limit).then_some(text)
}

/// None for what counts as absent: `null` and the empty string.
fn scalar(json: &str, encoding: HeaderEncoding) -> Option<Value<'_>> {
    match json.as_bytes().first()? {
        b'n' => None,
        b't' => Some(Value::Is(true)),
        b'f' => Some(Value::Is(false)),
        b'"' => match string(json)? {
            Cow::Borrowed("") => None,
            Cow::Borrowed(text) => match encode_text(text, encoding) {
                Cow::Borrowed(text) => Some(Value::Part(text)),
                encoded @ Cow::Owned(_) => Some(Value::Own(encoded)),
            },
            Cow::Owned(text) => Some(Value::Own(encode_text(&text, encoding).into_owned().into())),
        },
        _ if json.contains(['.', 'e', 'E']) => {
            // `Display` of a float is the shortest decimal that reads back as it, without exponent.
            let number: f64 = json.parse().ok()?;
            Some(Value::Own(number.to_string().into()))
        }
        _ => Some(Value::Part(json)),
    }
}

fn is_array_of_scalars(json: &str) -> bool {
    let (mut any, mut scalars) = (false, true);
    for_each_element(json, |element| {
        any = true;
        scalars &= !element.starts_with(['[', '{']);
    });
    any && scalars
}

/// A non-empty array of strings as a list, if no element holds a comma, is empty or needs encoding.
fn comma_separated(json: &str) -> Option<String> {
    let mut joined = String::new();
    let mut fits = true;
    for_each_element(json, |element| match string(element) {
        Some(text) if is_plain(&text) && !text.is_empty() && !text.contains(',') => {
            if !joined.is_empty() {
                joined.push_str(", ");
            }
            joined.push_str(&text);
        }
        _ => fits = false,
    });
    (fits && !joined.is_empty()).then_some(joined)
}

/// RFC 8187 §3.2.1 attr-char, everything else is percent-encoded.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'!')
    .remove(b'#')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b'-')
    .remove(b'.')
    .remove(b'^')
    .remove(b'_')
    .remove(b'`')
    .remove(b'|')
    .remove(b'~');

const MARK: &str = "UTF-8''";

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) && has_plain_ends(text)
}

fn has_plain_ends(text: &str) -> bool {
    !text.starts_with(' ') && !text.ends_with(' ') && !text.starts_with(MARK)
}

/// Text as a legal header value.
pub(crate) fn encode_text(text: &str, encoding: HeaderEncoding) -> Cow<'_, str> {
    let raw_utf8 = encoding == HeaderEncoding::Utf8 && !text.bytes().any(|b| b < 0x20 || b == 0x7f);
    if is_plain(text) || (raw_utf8 && has_plain_ends(text)) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("{MARK}{}", utf8_percent_encode(text, ENCODED)))
    }
}

/// JSON without white space, in visible ASCII: members in their order, numbers digit for digit.
fn compact(json: &str) -> String {
    let mut written = String::with_capacity(json.len());
    let mut rest = json;
    while let Some(next) = rest.chars().next() {
        if next == '"' {
            let (literal, behind) = split_string(rest);
            write_string(&string(literal).unwrap_or_default(), &mut written);
            rest = behind;
        } else {
            if !next.is_ascii_whitespace() {
                written.push(next);
            }
            rest = rest.get(next.len_utf8()..).unwrap_or_default();
        }
    }
    written
}

fn write_string(text: &str, written: &mut String) {
    written.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                written.push('\\');
                written.push(c);
            }
            ' '..='~' => written.push(c),
            _ => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    written.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    written.push('"');
}

/// The edits of one allow, in order: first every header and trailer named in [`remove`](Self::remove) is removed, then each
/// pair of [`set`](Self::set) is added as a line of its own.
///
/// For identical input they are identical byte for byte.
#[derive(Clone, Copy)]
pub struct HeaderEdits<'a> {
    pub(crate) hidden: &'a Hidden,
    pub(crate) set: Option<&'a Set>,
    pub(crate) claims: Option<&'a Claims>,
    pub(crate) consumer: Option<&'a Consumer>,
}

impl<'a> HeaderEdits<'a> {
    /// Names to remove, every line of them, case ignored: `Authorization` where the credential is hidden, then the names that only
    /// Tokenward may set ([`is_managed`]), as the client spelled them.
    pub fn remove(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let authorization = self.hidden.authorization.then_some(&b"Authorization"[..]);
        authorization.into_iter().chain(self.hidden.managed())
    }

    /// Whether [`remove`](Self::remove) gives `Authorization` and nothing else, as for most requests.
    #[must_use]
    pub fn removes_credential_alone(&self) -> bool {
        self.hidden.is_credential_alone()
    }

    /// Lines to add, name and value. A name can come more than once (`array_format: "repeat"`).
    pub fn set(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let (claims, consumer) = (self.claims, self.consumer);
        self.set.into_iter().flat_map(move |set| set.iter(claims, consumer))
    }
}

/// Values are not shown.
impl fmt::Debug for HeaderEdits<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeaderEdits")
            .field("remove", &self.remove().map(|name| name.escape_ascii().to_string()).collect::<Vec<_>>())
            .field("set", &self.set().map(|(name, _)| name).collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managed_names_are_found_in_every_spelling() {
        for name in
            ["X-Consumer-ID", "x_consumer_username", "X.Credential.Sub", "x-credential-", "X_ANONYMOUS.consumer"]
        {
            assert!(is_managed(name.as_bytes()), "{name}");
        }
        for name in ["", "X", "X-Consumer", "X-Anonymous-Consumer-2", "X-Anonymous", "XX-Consumer-ID", "X--Consumer-ID"]
        {
            assert!(!is_managed(name.as_bytes()), "{name}");
        }
        assert!(set_headers().all(|name| is_managed(name.as_bytes())));
    }

    #[test]
    fn encoded_text_is_a_legal_value_and_decodes_back() {
        for text in ["é", " a", "a ", "UTF-8''x", "a\tb", "\u{7f}", "\r\nX: y", "\u{10ffff}"] {
            for encoding in [HeaderEncoding::Rfc8187, HeaderEncoding::Utf8] {
                let encoded = encode_text(text, encoding);
                assert!(encoded.bytes().all(|byte| byte >= 0x20 && byte != 0x7f), "{text:?}");
                match encoded.strip_prefix(MARK) {
                    Some(escaped) => {
                        assert_eq!(percent_encoding::percent_decode_str(escaped).decode_utf8().unwrap(), text);
                    }
                    None => assert_eq!((encoding, &*encoded), (HeaderEncoding::Utf8, text)),
                }
            }
        }
        assert_eq!(encode_text("utf-8''x y", HeaderEncoding::Rfc8187), "utf-8''x y");
    }

    #[test]
    fn json_is_compact_ascii_in_its_own_order() {
        let json =
            "{ \"b\" : [ 1.50 , 12345678901234567890123 , \"\\u00e9\\\"\\n\\\\\" ],\n\"a\":\"\u{1F600} \u{7f}/\" }";
        let written = compact(json);
        assert_eq!(written, r#"{"b":[1.50,12345678901234567890123,"\u00e9\"\u000a\\"],"a":"\ud83d\ude00 \u007f/"}"#);
    }
}
