//! What the authorization server said about an active token (RFC 7662 §2.2).

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::token::Text;

/// The claims of an active token: the members of the introspection reply, in its own text.
///
/// Values are handed out as JSON, digit for digit as the authorization server wrote them: a user id of twenty digits
/// stays what it is. Neither `Debug` nor any log shows a value.
pub struct Claims {
    /// The reply's object, checked by the strict parser: every read of it succeeds.
    pub(crate) json: Box<str>,
    pub(crate) bounds: Bounds,
    pub(crate) iat: Option<NumericDate>,
    /// Where the values of the members stand that are always forwarded, by [`Member`].
    pub(crate) members: [Span; MEMBERS.len()],
}

/// Members of a reply that mean something to Tokenward (RFC 7662 §2.2), by their place in [`MEMBERS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    Scope = 0,
    ClientId = 1,
    TokenType = 2,
    Exp = 3,
    Iat = 4,
    Nbf = 5,
    Aud = 7,
    Iss = 8,
    Username = 10,
}

/// The members that are always forwarded.
pub(crate) const MEMBERS: [&str; 11] =
    ["scope", "client_id", "token_type", "exp", "iat", "nbf", "sub", "aud", "iss", "jti", "username"];

/// What every decision looks at. A hit finds a copy of it where it has to look anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) times: [i64; 2],
    pub(crate) marks: Marks,
}

/// What is not a time about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Marks {
    has_exp: bool,
    has_nbf: bool,
    /// A `cnf` member, or the mark of a DPoP-bound, refresh or ID token.
    not_bearer: bool,
}

impl Bounds {
    pub(crate) fn new(exp: Option<NumericDate>, nbf: Option<NumericDate>, not_bearer: bool) -> Self {
        let times = [exp, nbf].map(|date| date.map_or(0, |date| date.0));
        Self { times, marks: Marks { has_exp: exp.is_some(), has_nbf: nbf.is_some(), not_bearer } }
    }

    pub(crate) fn exp(&self) -> Option<NumericDate> {
        self.marks.has_exp.then_some(NumericDate(self.times[0]))
    }

    pub(crate) fn nbf(&self) -> Option<NumericDate> {
        self.marks.has_nbf.then_some(NumericDate(self.times[1]))
    }

    pub(crate) fn is_bearer(&self) -> bool {
        !self.marks.not_bearer
    }
}

/// Where a value stands in the reply's text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    start: u32,
    /// 0: nowhere.
    end: u32,
}

impl Span {
    /// Where `part`, a slice of `whole`, stands. None beyond 4 GiB.
    pub(crate) fn of(part: &str, whole: &str) -> Option<Self> {
        let start = (part.as_ptr() as usize).checked_sub(whole.as_ptr() as usize)?;
        let end = start.checked_add(part.len())?;
        Some(Self { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
    }

    pub(crate) fn text(self, whole: &str) -> &str {
        whole.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

impl Claims {
    /// All claims as one JSON object, as the authorization server wrote it (surrounding white space trimmed).
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// The value of a member as JSON text: `"alice"`, `20`, `["a","b"]`.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<&str> {
        object_member(&self.json, name)
    }

    /// The value of a member that is a JSON string.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<Cow<'_, str>> {
        string(self.value(name)?)
    }

    /// The value at a JSON Pointer (RFC 6901) as JSON text; the whole object for the empty pointer.
    #[must_use]
    pub fn pointer(&self, pointer: &str) -> Option<&str> {
        if pointer.is_empty() {
            return Some(&self.json);
        }
        let segments = segments(pointer)?;
        self.at(&segments)
    }

    /// When the token expires (`exp`), if the reply says so.
    #[must_use]
    pub fn exp(&self) -> Option<NumericDate> {
        self.bounds.exp()
    }

    /// Before when the token must not be used (`nbf`), if the reply says so.
    #[must_use]
    pub fn nbf(&self) -> Option<NumericDate> {
        self.bounds.nbf()
    }

    /// When the token was issued (`iat`), if the reply says so.
    #[must_use]
    pub fn iat(&self) -> Option<NumericDate> {
        self.iat
    }

    /// The value at the end of a path of member names and array indices.
    pub(crate) fn at(&self, path: &[Box<str>]) -> Option<&str> {
        let mut value: &str = &self.json;
        for segment in path {
            value = match value.as_bytes().first() {
                Some(b'{') => object_member(value, segment)?,
                Some(b'[') => array_element(value, segment)?,
                _ => return None,
            };
        }
        Some(value)
    }

    /// The value of a member that is always looked for, without looking.
    pub(crate) fn known(&self, member: Member) -> Option<&str> {
        self.known_at(member as usize)
    }

    /// The same by its place in [`MEMBERS`].
    pub(crate) fn known_at(&self, at: usize) -> Option<&str> {
        let span = self.members.get(at).filter(|span| span.end > 0)?;
        Some(span.text(&self.json))
    }

    /// The values of all of these, in the order of [`MEMBERS`].
    pub(crate) fn all_known(&self) -> impl Iterator<Item = Option<&str>> {
        self.members.iter().map(|span| (span.end > 0).then(|| span.text(&self.json)))
    }

    /// Bytes held on the heap.
    pub(crate) fn heap(&self) -> usize {
        self.json.len()
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").field("bytes", &self.json.len()).finish_non_exhaustive()
    }
}

/// Seconds since 1970-01-01 00:00 UTC, with fractions (RFC 7519 §2), kept in microseconds.
///
/// Fractions below a microsecond are cut. Dates beyond the years ±290,000 end there: far future stays far future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumericDate(pub(crate) i64);

impl NumericDate {
    /// Reads a JSON number. None for any other JSON.
    pub(crate) fn parse(json: &str) -> Option<Self> {
        if !json.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return None;
        }
        if json.contains(['.', 'e', 'E']) {
            let seconds: f64 = json.parse().ok()?;
            // `as` saturates.
            #[allow(clippy::cast_possible_truncation, reason = "saturation is what is wanted")]
            return Some(Self((seconds * 1e6).floor() as i64));
        }
        let limit = if json.starts_with('-') { i64::MIN } else { i64::MAX };
        let seconds: i64 = json.parse().unwrap_or(limit);
        Some(Self(seconds.saturating_mul(1_000_000)))
    }

    /// Seconds since 1970, fractions cut.
    #[must_use]
    pub fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// Microseconds since 1970.
    #[must_use]
    pub fn microseconds(self) -> i64 {
        self.0
    }
}

/// The segments of a JSON Pointer (RFC 6901), unescaped; none if it is not one.
pub(crate) fn segments(pointer: &str) -> Option<Vec<Box<str>>> {
    let mut segments = pointer.split('/');
    if segments.next() != Some("") {
        return None;
    }
    segments
        .map(|segment| {
            let mut rest = segment;
            while let Some((_, escaped)) = rest.split_once('~') {
                if !escaped.starts_with(['0', '1']) {
                    return None;
                }
                rest = escaped;
            }
            Some(segment.replace("~1", "/").replace("~0", "~").into())
        })
        .collect()
}

/// A JSON string's text, if the JSON is one.
pub(crate) fn string(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str::<Text<'_>>(json).ok().map(|text| text.0)
}

/// What a claim that is a string or an array of strings holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Strings {
    One,
    Many,
    /// Another type, or an array with an element of another type.
    Neither,
}

/// Calls `visit` for the string, or for each string of the array; says which of them it was.
pub(crate) fn for_each_string(json: &str, mut visit: impl FnMut(&str)) -> Strings {
    struct Each<'f, F>(&'f mut F);

    impl<'de, F: FnMut(&str)> Visitor<'de> for Each<'_, F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of strings")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            while let Some(text) = seq.next_element::<Text<'de>>()? {
                (self.0)(&text.0);
            }
            Ok(())
        }
    }

    if let Some(text) = string(json) {
        visit(&text);
        return Strings::One;
    }
    let mut array = serde_json::Deserializer::from_str(json);
    match array.deserialize_seq(Each(&mut visit)) {
        Ok(()) => Strings::Many,
        Err(_) => Strings::Neither,
    }
}

fn object_member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let mut found = None;
    for_each_member(object, |member, value| {
        if member == name {
            found = Some(value);
        }
    });
    found
}

fn array_element<'a>(array: &'a str, index: &str) -> Option<&'a str> {
    // RFC 6901 §4: no sign, no leading zero.
    if index.is_empty() || (index.len() > 1 && index.starts_with('0')) || !index.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mut left: usize = index.parse().ok()?;
    let mut found = None;
    for_each_element(array, |element| {
        if left == 0 && found.is_none() {
            found = Some(element);
        }
        left = left.saturating_sub(1);
    });
    found
}

/// Calls `visit` for each member of an object: name and value as JSON text.
pub(crate) fn for_each_member<'a>(object: &'a str, visit: impl FnMut(&str, &'a str)) {
    struct Each<F>(F);

    impl<'de, F: FnMut(&str, &'de str)> Visitor<'de> for Each<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key::<Text<'de>>()? {
                let value: &'de RawValue = map.next_value()?;
                (self.0)(&name.0, value.get());
            }
            Ok(())
        }
    }

    let mut document = serde_json::Deserializer::from_str(object);
    // INVARIANT: the text passed the strict parser.
    let read = document.deserialize_map(Each(visit));
    debug_assert!(read.is_ok());
}

/// Calls `visit` for each element of an array, as JSON text.
pub(crate) fn for_each_element<'a>(array: &'a str, visit: impl FnMut(&'a str)) {
    struct Each<F>(F);

    impl<'de, F: FnMut(&'de str)> Visitor<'de> for Each<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
            while let Some(element) = seq.next_element::<&'de RawValue>()? {
                (self.0)(element.get());
            }
            Ok(())
        }
    }

    let mut document = serde_json::Deserializer::from_str(array);
    let read = document.deserialize_seq(Each(visit));
    debug_assert!(read.is_ok());
}

/// How serde_json hands out numbers where another crate of the build switched on its feature `arbitrary_precision`: as an object with
/// this one member.
pub(crate) const NUMBER: &str = "$serde_json::private::Number";

/// A JSON value of any kind without duplicate members at any level, with numbers in range and strings that are text.
pub(crate) struct Strict;

impl<'de> DeserializeSeed<'de> for Strict {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value without duplicate members")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut names: Vec<Cow<'de, str>> = Vec::new();
        while let Some(Text(name)) = map.next_key()? {
            if name == NUMBER {
                let Text(digits) = map.next_value()?;
                if !digits.parse().is_ok_and(f64::is_finite) {
                    return Err(serde::de::Error::custom("number out of range"));
                }
            } else {
                map.next_value_seed(Self)?;
            }
            names.push(name);
        }
        if has_duplicates(&mut names) {
            return Err(serde::de::Error::custom("duplicate member"));
        }
        Ok(())
    }
}

/// Sorts, and tells whether two are equal.
pub(crate) fn has_duplicates<T: Ord>(names: &mut [T]) -> bool {
    names.sort_unstable();
    names.iter().zip(names.iter().skip(1)).any(|(one, next)| one == next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_saturate_and_keep_their_fraction() {
        for (json, micros) in [
            ("0", 0),
            ("-0", 0),
            ("1419356238", 1_419_356_238_000_000),
            ("1419356238.0", 1_419_356_238_000_000),
            ("1419356238.5", 1_419_356_238_500_000),
            ("1e10", 10_000_000_000_000_000),
            ("-1.5", -1_500_000),
            ("99999999999999999999999", i64::MAX),
            ("-99999999999999999999999", i64::MIN),
            ("1e300", i64::MAX),
            ("-1e300", i64::MIN),
        ] {
            assert_eq!(NumericDate::parse(json), Some(NumericDate(micros)), "{json}");
        }
        for json in ["null", "\"1\"", "[]", "{}", "true"] {
            assert_eq!(NumericDate::parse(json), None, "{json}");
        }
    }

    #[test]
    fn members_stand_at_their_places() {
        for (member, name) in [
            (Member::Scope, "scope"),
            (Member::ClientId, "client_id"),
            (Member::TokenType, "token_type"),
            (Member::Exp, "exp"),
            (Member::Iat, "iat"),
            (Member::Nbf, "nbf"),
            (Member::Aud, "aud"),
            (Member::Iss, "iss"),
            (Member::Username, "username"),
        ] {
            assert_eq!(MEMBERS[member as usize], name);
        }
    }

    #[test]
    fn pointers_are_unescaped_in_order() {
        let segments = |pointer| segments(pointer).map(|all| all.join("|"));
        assert_eq!(segments("/a/b"), Some("a|b".into()));
        assert_eq!(segments("/~01/~1"), Some("~1|/".into()));
        assert_eq!(segments("/"), Some(String::new()));
        assert_eq!(segments("a"), None);
        assert_eq!(segments("/~2"), None);
        assert_eq!(segments("/~"), None);
    }

    #[test]
    fn elements_are_found_by_exact_index() {
        assert_eq!(array_element("[1, 2 ,3]", "1"), Some("2"));
        for index in ["3", "01", "-", "", "+1", "99999999999999999999999"] {
            assert_eq!(array_element("[1,2,3]", index), None, "{index}");
        }
    }
}
