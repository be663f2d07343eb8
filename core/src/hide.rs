//! Keeping from the upstream what is not for it: the credential, and headers that only Tokenward may set.

use std::collections::HashSet;

use crate::headers::is_managed;
use crate::request::{Request, split_once};
use crate::token::{Authorization, Form, Found, PARAMETER, is_token_parameter, token_members};

/// No name that counts has fewer bytes: `X-Consumer-`.
const SHORTEST: usize = 11;

/// Found in one pass over the headers.
#[derive(Debug, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) authorization: Authorization<'a>,
    /// Few requests have any.
    managed: Option<Box<Managed>>,
}

/// Names that only Tokenward may set.
#[derive(Debug, Default)]
struct Managed {
    /// As first spelled, each once.
    names: Vec<Box<[u8]>>,
    /// The same in lower case, once there are many.
    seen: Option<HashSet<Vec<u8>>>,
}

impl<'a> Fields<'a> {
    #[inline(always)]
    pub(crate) fn scan(request: &Request<'a>, kong: bool) -> Self {
        let mut fields = Self::default();
        for header in request.headers {
            // The length and the first byte settle nearly every header.
            if header.name.len() < SHORTEST {
                continue;
            }
            let Some((first, rest)) = header.name.split_first() else { continue };
            match first | 0x20 {
                b'a' if rest.len() == 12 && (rest == b"uthorization" || rest.eq_ignore_ascii_case(b"uthorization")) => {
                    fields.authorization.add(header.value, kong);
                }
                // Nearly all names with an X go on otherwise.
                b'x' if matches!(rest, [_, b'a' | b'A' | b'c' | b'C', ..]) && is_managed(header.name) => {
                    fields.manage(header.name);
                }
                _ => {}
            }
        }
        for name in request.trailers {
            if is_managed(name) {
                fields.manage(name);
            }
        }
        fields
    }

    #[cold]
    fn manage(&mut self, name: &[u8]) {
        self.managed.get_or_insert_default().add(name);
    }
}

impl Managed {
    fn add(&mut self, name: &[u8]) {
        const FEW: usize = 16;
        if self.names.len() < FEW {
            if !self.names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                self.names.push(name.into());
            }
            return;
        }
        let names = &self.names;
        let seen = self.seen.get_or_insert_with(|| names.iter().map(|known| known.to_ascii_lowercase()).collect());
        if seen.insert(name.to_ascii_lowercase()) {
            self.names.push(name.into());
        }
    }
}

/// What is taken out of one request before it goes on to the upstream.
///
/// Small, since it travels with every request; nearly all of them have nothing more than their `Authorization` to hide.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hidden {
    pub(crate) authorization: bool,
    /// The token came from the query: answers must not be kept by shared caches (RFC 6750 §2.3).
    pub(crate) private: bool,
    more: Option<Box<More>>,
}

#[derive(Clone, Debug)]
struct More {
    managed: Vec<Box<[u8]>>,
    target: Option<Box<[u8]>>,
    body: Option<Box<[u8]>>,
}

impl Hidden {
    /// The managed names and, with `hide`, the credential are removed.
    #[inline(always)]
    pub(crate) fn of(request: &Request<'_>, fields: Fields<'_>, found: Option<&Found<'_>>, hide: bool) -> Self {
        // Too short a target holds no parameter of that name.
        let may_hold = hide && request.target.len() > PARAMETER.len();
        let target = if may_hold { without_query_parameter(request) } else { None };
        let searched = found.and_then(|found| found.body).filter(|_| hide);
        let body = searched.and_then(|(form, body)| match form {
            Form::UrlEncoded => without_parameter(body).map(Vec::into_boxed_slice),
            Form::Json => without_member(body),
        });
        let is_more = fields.managed.is_some() || target.is_some() || body.is_some();
        Self {
            authorization: hide && fields.authorization.is_bearer(),
            private: found.is_some_and(|found| found.from_query),
            more: is_more.then(|| {
                let managed = fields.managed.map(|managed| managed.names).unwrap_or_default();
                Box::new(More { managed, target, body })
            }),
        }
    }

    /// No name is removed but that of the credential, which is.
    pub(crate) fn is_credential_alone(&self) -> bool {
        self.authorization && self.more.as_ref().is_none_or(|more| more.managed.is_empty())
    }

    /// Names that only Tokenward may set, found in the request.
    pub(crate) fn managed(&self) -> impl Iterator<Item = &[u8]> {
        self.more.iter().flat_map(|more| more.managed.iter().map(|name| &**name))
    }

    pub(crate) fn target(&self) -> Option<&[u8]> {
        self.more.as_ref()?.target.as_deref()
    }

    pub(crate) fn body(&self) -> Option<&[u8]> {
        self.more.as_ref()?.body.as_deref()
    }
}

#[inline]
fn without_query_parameter(request: &Request<'_>) -> Option<Box<[u8]>> {
    // Whatever form the target has, and whether or not it is a legal one: what an upstream may take for a query is one.
    if request.method == b"CONNECT" {
        return None;
    }
    let (before, query) = split_once(request.target, b'?')?;
    if query.len() < PARAMETER.len() {
        return None;
    }
    let query = without_parameter(query)?;
    let mut rewritten = before.to_vec();
    if !query.is_empty() {
        rewritten.push(b'?');
        rewritten.extend_from_slice(&query);
    }
    Some(rewritten.into())
}

/// The parameters but for every `access_token`; none if there is none.
fn without_parameter(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() < PARAMETER.len() {
        return None;
    }
    let parameters = || text.split(|&byte| byte == b'&');
    if !parameters().any(is_token_parameter) {
        return None;
    }
    let mut kept = Vec::with_capacity(text.len());
    for (at, parameter) in parameters().filter(|parameter| !is_token_parameter(parameter)).enumerate() {
        if at > 0 {
            kept.push(b'&');
        }
        kept.extend_from_slice(parameter);
    }
    Some(kept)
}

/// The document but for every top-level member `access_token`; none if there is none.
///
/// A member goes with the comma behind it, the last one with the comma before it.
fn without_member(body: &[u8]) -> Option<Box<[u8]>> {
    let members = token_members(body).filter(|members| !members.is_empty())?;
    let mut kept: Vec<u8> = Vec::with_capacity(body.len());
    let mut at = 0;
    for (name, value) in members {
        // Both are slices of `body`, so their distance from its start is where they stand.
        let start = (name.get().as_ptr() as usize).checked_sub(body.as_ptr() as usize)?;
        let mut end = (value.get().as_ptr() as usize).checked_sub(body.as_ptr() as usize)? + value.get().len();
        kept.extend_from_slice(body.get(at..start)?);
        let rest = body.get(end..)?;
        let space = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        if rest.get(space) == Some(&b',') {
            end += space + 1;
        } else if let Some(comma) = kept.iter().rposition(|byte| !byte.is_ascii_whitespace())
            && kept.get(comma) == Some(&b',')
        {
            kept.truncate(comma);
        }
        at = end;
    }
    kept.extend_from_slice(body.get(at..)?);
    Some(kept.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(text: &str) -> Option<String> {
        without_parameter(text.as_bytes()).map(|kept| String::from_utf8(kept).unwrap())
    }

    fn members(text: &str) -> Option<String> {
        without_member(text.as_bytes()).map(|kept| String::from_utf8(kept.into()).unwrap())
    }

    #[test]
    fn one_adjoining_ampersand_goes_with_a_parameter() {
        for (text, kept) in [
            ("access_token=x", ""),
            ("a&access_token=x&b", "a&b"),
            ("&access_token=x&", "&"),
            ("access_token=x&&a", "&a"),
            ("a=1&access_token&access%5Ftoken=y", "a=1"),
        ] {
            assert_eq!(parameters(text).as_deref(), Some(kept), "{text}");
        }
        assert_eq!(parameters("a=access_token&b;access_token=1"), None);
    }

    #[test]
    fn a_cut_document_is_still_one() {
        for (text, kept) in [
            (r#"{"access_token":"x"}"#, "{}"),
            (r#"{ "access_token" : "x" , "a": 1 }"#, r#"{  "a": 1 }"#),
            (r#"{"a":1 , "access_token":"x" }"#, r#"{"a":1  }"#),
            (r#"{"access_token":1,"access_token":{}}"#, "{}"),
            (r#"{"a":1,"access\u005ftoken":"x","access_token":2}"#, r#"{"a":1}"#),
        ] {
            assert_eq!(members(text).as_deref(), Some(kept), "{text}");
            assert!(serde_json::from_str::<serde_json::Value>(kept).is_ok());
        }
        assert_eq!(members(r#"{"a":{"access_token":"x"}}"#), None);
        assert_eq!(members(r#"["access_token"]"#), None);
    }
}
