//! The introspection endpoint: where it is and how we identify ourselves to it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use url::{Host, Url};
use zeroize::Zeroizing;

use super::node::{Node, Value};
use super::reader::{Reader, join, one_of};
use super::secret::Secret;
use crate::outbound::form_encode;

/// What makes an endpoint the same endpoint: answers are kept over a reload if none of this changes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Endpoint {
    /// In normal form: the host that was judged is the host that is called.
    pub(crate) url: Secret,
    pub(crate) authorization: Option<Secret>,
    pub(crate) token_type_hint: Option<Box<str>>,
    pub(crate) params: Vec<(Box<str>, Secret)>,
    pub(crate) headers: Vec<(Box<str>, Secret)>,
    pub(crate) introspect_request: bool,
}

impl Endpoint {
    pub(crate) fn empty() -> Self {
        Self {
            url: Secret::new(""),
            authorization: None,
            token_type_hint: None,
            params: Vec::new(),
            headers: Vec::new(),
            introspect_request: false,
        }
    }
}

/// Headers of the introspection request that are not the user's to set.
const OURS: &[&str] = &[
    "Authorization",
    "Content-Type",
    "Content-Length",
    "Host",
    "Accept",
    "Accept-Encoding",
    "Connection",
    "Transfer-Encoding",
    "Expect",
    "TE",
    "Trailer",
    "Upgrade",
];
pub(crate) const REQUEST_PATH: &str = "X-Request-Path";
pub(crate) const REQUEST_METHOD: &str = "X-Request-Http-Method";

/// RFC 7662 §4: the call carries credentials, so it goes over TLS, or stays on this machine.
pub(crate) fn url(node: &Node, path: &str, insecure: Option<bool>, reader: &mut Reader<'_>) -> Option<Secret> {
    const ALLOWED: &str =
        "an `https` URL without user info and fragment (`http` for loopback hosts, or with `allow_insecure_http`)";
    let text = Zeroizing::new(reader.referred(node, path, ALLOWED)?);
    let Ok(url) = Url::parse(&text) else {
        reader.report.error(path, format!("found a string that is no URL, allowed is {ALLOWED}"));
        return None;
    };
    let Some(host) = url.host() else {
        reader
            .report
            .error(path, format!("found a URL with scheme `{}` and no host, allowed is {ALLOWED}", url.scheme()));
        return None;
    };
    // Never the query, never user info.
    let shown = format!("`{}://{host}`", url.scheme());
    let loopback = match &host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    if !url.username().is_empty() || url.password().is_some() {
        reader.report.error(path, format!("found user info before {shown}, allowed is {ALLOWED}"));
    } else if url.fragment().is_some() {
        reader.report.error(path, format!("found a fragment behind {shown}, allowed is {ALLOWED}"));
    } else if url.scheme() == "http" && !loopback && insecure != Some(true) {
        if reader.is_kong() && insecure.is_none() {
            reader
                .report
                .warn(path, format!("{shown} is called in the clear: token and credentials can be read on the way"));
        } else {
            reader.report.error(path, format!("found {shown}, allowed is {ALLOWED}"));
            return None;
        }
    } else if !matches!(url.scheme(), "http" | "https") {
        reader.report.error(path, format!("found the scheme `{}`, allowed is {ALLOWED}", url.scheme()));
    }
    Some(Secret::new(String::from(url)))
}

/// The complete value of the `Authorization` header.
pub(crate) fn authorization(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Secret> {
    let secret = reader.secret(node, path)?;
    if is_field_value(secret.expose()) {
        return Some(secret);
    }
    reader.report.error(path, "holds characters that a header value cannot hold");
    None
}

/// Our credentials (RFC 6749 §2.3.1): an `Authorization` value, or parameters.
#[derive(Debug, Default)]
pub(crate) struct ClientAuth {
    pub(crate) authorization: Option<Secret>,
    pub(crate) params: Vec<(Box<str>, Secret)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Method {
    Basic,
    BasicRaw,
    Post,
    None,
}

pub(crate) fn client_auth(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<ClientAuth> {
    const METHODS: &[(&str, Method)] = &[
        ("client_secret_basic", Method::Basic),
        ("client_secret_basic_raw", Method::BasicRaw),
        ("client_secret_post", Method::Post),
        ("none", Method::None),
    ];
    let before = reader.report.errors();
    let (mut method, mut id, mut secret) = (None, None, None);
    let members = reader.members(node, path);
    for member in &members {
        let (path, node) = (join(path, &member.name), &member.node);
        match member.name.as_str() {
            "method" => {
                let before = reader.report.errors();
                let mut given = Method::None;
                reader.word(node, &path, METHODS, &mut given);
                method = Some(given).filter(|_| reader.report.errors() == before);
            }
            "client_id" if !matches!(node.value, Value::String(_) | Value::Object(_)) => {
                reader.report.wrong(&path, node, "a string");
            }
            "client_id" => id = reader.secret(node, &path),
            "client_secret" => secret = reader.secret(node, &path),
            unknown => reader.report.unknown(&path, unknown, &["method", "client_id", "client_secret"]),
        }
    }
    let given = |name: &str| members.iter().any(|member| member.name == name);
    if !given("method") && matches!(node.value, Value::Object(_)) {
        let allowed = one_of(METHODS.iter().map(|(name, _)| *name));
        reader.report.missing(&join(path, "method"), format!("is missing, allowed is {allowed}"));
    }
    match method {
        Some(Method::None) if given("client_secret") => {
            reader.report.error(&join(path, "client_secret"), "is not sent with method \"none\"");
        }
        Some(Method::Basic | Method::BasicRaw | Method::Post) => {
            for name in ["client_id", "client_secret"] {
                if !given(name) {
                    reader.report.missing(&join(path, name), "is missing, this method needs it");
                }
            }
        }
        _ => {}
    }
    if method == Some(Method::BasicRaw) && id.as_ref().is_some_and(|id| id.expose().contains(':')) {
        reader.report.error(&join(path, "client_id"), "holds a `:`, which ends the id when it is not encoded");
    }
    if reader.report.errors() > before {
        return None;
    }
    Some(match (method?, id, secret) {
        (Method::Basic, Some(id), Some(secret)) => {
            basic(&form_encode(id.expose().as_bytes()), &form_encode(secret.expose().as_bytes()))
        }
        (Method::BasicRaw, Some(id), Some(secret)) => basic(id.expose(), secret.expose()),
        (Method::Post, Some(id), Some(secret)) => {
            ClientAuth { authorization: None, params: vec![("client_id".into(), id), ("client_secret".into(), secret)] }
        }
        (_, Some(id), _) => ClientAuth { authorization: None, params: vec![("client_id".into(), id)] },
        _ => ClientAuth::default(),
    })
}

fn basic(id: &str, secret: &str) -> ClientAuth {
    let credentials = Zeroizing::new(format!("{id}:{secret}"));
    let encoded = Zeroizing::new(STANDARD.encode(credentials.as_bytes()));
    ClientAuth { authorization: Some(Secret::new(format!("Basic {}", *encoded))), params: Vec::new() }
}

/// Extra form parameters.
pub(crate) fn params(node: &Node, path: &str, reader: &mut Reader<'_>) -> Vec<(Box<str>, Secret)> {
    const OURS: &[&str] = &["token", "token_type_hint", "client_id", "client_secret"];
    let mut params = Vec::new();
    for member in reader.members(node, path) {
        let path = join(path, &member.name);
        if OURS.contains(&member.name.as_str()) {
            reader
                .report
                .error(&path, "is not an extra parameter: it has a field of its own or is Tokenward's to send");
        } else if let Some(value) = reader.secret(&member.node, &path) {
            params.push((member.name.as_str().into(), value));
        }
    }
    params
}

/// Extra headers of the introspection request.
pub(crate) fn headers(
    node: &Node,
    path: &str,
    introspect_request: bool,
    reader: &mut Reader<'_>,
) -> Vec<(Box<str>, Secret)> {
    let mut headers: Vec<(Box<str>, Secret)> = Vec::new();
    for member in reader.members(node, path) {
        let name = member.name.as_str();
        let path = join(path, name);
        let is = |other: &&&str| other.eq_ignore_ascii_case(name);
        let ours = if introspect_request { &[REQUEST_PATH, REQUEST_METHOD][..] } else { &[] };
        if OURS.iter().chain(ours).find(is).is_some() {
            if reader.is_kong() {
                reader.report.warn(&path, "is Tokenward's to set and left out");
            } else {
                reader.report.error(&path, "is Tokenward's to set");
            }
            continue;
        }
        if !is_field_name(name) {
            reader.report.error(&path, "is no legal header name");
            continue;
        }
        if headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            reader.report.error(&path, "is given twice, in another case");
            continue;
        }
        let Some(value) = reader.secret(&member.node, &path) else { continue };
        if is_field_value(value.expose()) {
            headers.push((name.into(), value));
        } else {
            reader
                .report
                .error(&path, "holds characters that a header value cannot hold, or begins or ends with a space");
        }
    }
    headers
}

/// RFC 9110 §5.6.2 token.
fn is_field_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// RFC 9110 §5.5 field-value: visible characters, spaces and tabs within, UTF-8 as obs-text.
fn is_field_value(value: &str) -> bool {
    !value.starts_with([' ', '\t'])
        && !value.ends_with([' ', '\t'])
        && value.bytes().all(|byte| byte == b'\t' || (byte >= 0x20 && byte != 0x7f))
}
