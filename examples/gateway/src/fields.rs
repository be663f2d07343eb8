//! Header fields on their way through: what belongs to one connection, and what the decision edits.

use hyper::HeaderMap;
use hyper::header::{self, HeaderName, HeaderValue};
use tokenward_core::HeaderEdits;

/// Fields of a single connection (RFC 9110 §7.6.1), whether or not `Connection` lists them.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Drops the fields that end here. This comes before [`apply`]: a client that sends `Connection: X-Consumer-ID` takes back
/// a field of its own, and never one of ours.
pub(crate) fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in listed.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
}

/// Removes what the edits name, every line of it, and appends what they set, each as a line of its own.
///
/// None if a line cannot be sent, which the core rules out: the request must then not go on.
pub(crate) fn apply(edits: HeaderEdits<'_>, headers: &mut HeaderMap) -> Option<()> {
    edit(edits.remove(), edits.set(), headers)
}

fn edit<'a>(
    remove: impl Iterator<Item = &'a [u8]>,
    set: impl Iterator<Item = (&'a str, &'a str)>,
    headers: &mut HeaderMap,
) -> Option<()> {
    for name in remove {
        headers.remove(HeaderName::from_bytes(name).ok()?);
    }
    for (name, value) in set {
        append(name, value, headers)?;
    }
    Some(())
}

/// Adds a line. The value is visible ASCII or raw UTF-8.
pub(crate) fn append(name: &str, value: &str, headers: &mut HeaderMap) -> Option<()> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    headers.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    Some(())
}

/// Makes an answer one for this client alone, whatever the upstream said of shared caches, and keeps its other directives:
/// `no-store` must not become weaker.
pub(crate) fn make_private(headers: &mut HeaderMap) {
    let mut directives = String::from("private");
    for line in headers.get_all(header::CACHE_CONTROL) {
        // Bytes outside of ASCII are in no directive that is known.
        for directive in split_list(line.to_str().unwrap_or_default()) {
            let name = directive.split('=').next().unwrap_or_default().trim();
            let is_about_sharing = ["public", "private", "s-maxage"].iter().any(|one| name.eq_ignore_ascii_case(one));
            if !directive.is_empty() && !is_about_sharing {
                directives.push_str(", ");
                directives.push_str(directive);
            }
        }
    }
    let value = HeaderValue::from_str(&directives).unwrap_or(HeaderValue::from_static("private"));
    headers.insert(header::CACHE_CONTROL, value);
}

/// The members of a list, at commas outside of quoted strings.
fn split_list(list: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let members = list.split(move |c| {
        let separates = c == ',' && !quoted;
        quoted ^= c == '"' && !escaped;
        escaped = c == '\\' && quoted && !escaped;
        separates
    });
    members.map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            append(name, value, &mut headers).unwrap();
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<(&str, &[u8])> {
        headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect()
    }

    #[test]
    fn fields_of_one_connection_end_here() {
        let mut map = headers(&[
            ("connection", "close, X-Mine"),
            ("connection", " x-other ,,(,"),
            ("x-mine", "1"),
            ("x-mine", "2"),
            ("x-other", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("trailer", "x-consumer-id"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "Basic eDp5"),
            ("proxy-connection", "keep-alive"),
            ("accept", "*/*"),
        ]);
        drop_hop_by_hop(&mut map);
        assert_eq!(lines(&map), [("accept", &b"*/*"[..])]);
    }

    #[test]
    fn a_client_cannot_have_our_fields_dropped() {
        let mut map = headers(&[("connection", "X-Consumer-ID"), ("x-consumer-id", "root"), ("X_Consumer_ID", "root")]);
        drop_hop_by_hop(&mut map);
        edit([&b"x-consumer-id"[..], b"x_consumer_id"].into_iter(), [("X-Consumer-ID", "1")].into_iter(), &mut map)
            .unwrap();
        assert_eq!(lines(&map), [("x-consumer-id", &b"1"[..])]);
    }

    #[test]
    fn every_line_of_a_name_is_removed_and_each_set_line_is_its_own() {
        let mut map = headers(&[("authorization", "Bearer a"), ("authorization", "Bearer b"), ("accept", "*/*")]);
        let set = [("X-Credential-Aud", "a"), ("X-Credential-Aud", "é")];
        edit([&b"Authorization"[..]].into_iter(), set.into_iter(), &mut map).unwrap();
        let expected: [(&str, &[u8]); 3] =
            [("accept", b"*/*"), ("x-credential-aud", b"a"), ("x-credential-aud", "é".as_bytes())];
        assert_eq!(lines(&map), expected);
    }

    #[test]
    fn what_cannot_be_sent_stops_the_request() {
        assert!(edit([].into_iter(), [("X-A", "a\r\nX-B: b")].into_iter(), &mut HeaderMap::new()).is_none());
        assert!(edit([&b"a b"[..]].into_iter(), [].into_iter(), &mut HeaderMap::new()).is_none());
    }

    #[test]
    fn a_private_answer_is_not_public_and_no_weaker() {
        for (upstream, expected) in [
            (&[][..], "private"),
            (&["public, max-age=60, s-maxage=600"], "private, max-age=60"),
            (&["no-store"], "private, no-store"),
            (&["Public", "private=\"a, b\", no-cache=\"x, public\""], "private, no-cache=\"x, public\""),
        ] {
            let lines: Vec<(&'static str, &str)> = upstream.iter().map(|line| ("cache-control", *line)).collect();
            let mut map = headers(&lines);
            make_private(&mut map);
            assert_eq!(map.get_all("cache-control").iter().collect::<Vec<_>>(), [expected]);
        }
    }
}
