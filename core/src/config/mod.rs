//! Configuration: one JSON object in, an introspector's settings and a policy out, or every error at once.

mod endpoint;
pub(crate) mod node;
mod policy;
pub(crate) mod reader;
pub(crate) mod report;
pub(crate) mod secret;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::endpoint::ClientAuth;
pub(crate) use self::endpoint::{Endpoint, REQUEST_METHOD, REQUEST_PATH};
use self::node::{Member, Node, Value, read_json};
pub use self::policy::Policy;
pub(crate) use self::policy::Rules;
use self::reader::{Reader, join, microseconds, number};
pub use self::report::{ConfigError, Problem};
use self::report::{Report, clipped};
use self::secret::{NoSources, Secret, Sources};
use crate::consumer::Consumers;
use crate::decision::FailureClass;
use crate::reply;

/// Sets defaults and strictness. A field that is given always wins over its profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// RFC 6750 and OAuth 2.1.
    Standard,
    /// What users of Kong's plugin are used to.
    Kong,
}

/// A valid configuration: nothing about it is checked again.
///
/// ```
/// use tokenward_core::Config;
///
/// let config = Config::from_json(r#"{
///     "introspection_url": "https://as.example/introspect",
///     "client_auth": { "method": "client_secret_basic", "client_id": "gateway", "client_secret": "s3cr3t" },
///     "require": { "scopes": ["orders:read"] }
/// }"#)?;
/// assert!(config.warnings().is_empty());
///
/// let error = Config::from_json(r#"{ "tll": 5, "timeout": 0 }"#).unwrap_err();
/// assert_eq!(error.problems().len(), 4);
/// assert_eq!(error.problems()[0].to_string(), "`tll`: unknown field `tll`, the nearest known one is `ttl`");
/// # Ok::<(), tokenward_core::ConfigError>(())
/// ```
#[derive(Clone)]
pub struct Config {
    pub(crate) profile: Profile,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) settings: Settings,
    pub(crate) policy: Policy,
    pub(crate) tls_roots: TlsRoots,
    warnings: Vec<Problem>,
}

/// What belongs to the introspector and is no part of its endpoint. Times are microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Settings {
    pub(crate) ttl: Ttl,
    pub(crate) timeout: i64,
    pub(crate) keepalive: i64,
    pub(crate) leeway: i64,
    pub(crate) cache: bool,
    pub(crate) negative_ttl: i64,
    pub(crate) sizes: Sizes,
    pub(crate) attempts: u32,
    pub(crate) retry_after: u16,
    pub(crate) token_bytes: usize,
    pub(crate) reply_bytes: usize,
    pub(crate) body_bytes: usize,
    pub(crate) header_bytes: usize,
    pub(crate) concurrent: usize,
}

/// How much is cached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) capacity: usize,
    pub(crate) negative_capacity: usize,
    pub(crate) max_bytes: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ttl {
    For(i64),
    UntilExp,
}

impl Ttl {
    /// Defaults to 30 s, which is also what an answer without `exp` gets under `until_exp`.
    const DEFAULT: i64 = 30_000_000;

    /// How long an answer may be reused, apart from its `exp`.
    pub(crate) fn of(self, has_exp: bool) -> i64 {
        match self {
            Self::For(micros) => micros,
            Self::UntilExp if has_exp => i64::MAX,
            Self::UntilExp => Self::DEFAULT,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ttl: Ttl::For(Ttl::DEFAULT),
            timeout: 10_000_000,
            keepalive: 60_000_000,
            leeway: 0,
            cache: true,
            negative_ttl: 5_000_000,
            sizes: Sizes { capacity: 100_000, negative_capacity: 10_000, max_bytes: 134_217_728 },
            attempts: 2,
            retry_after: 1,
            token_bytes: 16_384,
            reply_bytes: 1_048_576,
            body_bytes: 1_048_576,
            header_bytes: 8192,
            concurrent: 1024,
        }
    }
}

/// Which certificate authorities vouch for the introspection endpoint.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsRoots {
    /// Those of the operating system.
    System,
    /// Those of a PEM file.
    File {
        /// The file, relative paths resolved against the configuration's folder where that is known.
        path: PathBuf,
        /// What stood in it when the configuration was loaded; none without feature `load`.
        pem: Option<Arc<[u8]>>,
    },
}

/// Shows the path alone.
impl fmt::Debug for TlsRoots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("System"),
            Self::File { path, .. } => f.debug_struct("File").field("path", path).finish_non_exhaustive(),
        }
    }
}

const FIELDS: &[&str] = &[
    "introspection_url",
    "authorization_value",
    "token_type_hint",
    "ttl",
    "timeout",
    "keepalive",
    "introspect_request",
    "custom_introspection_headers",
    "profile",
    "allow_insecure_http",
    "client_auth",
    "tls_roots",
    "introspection_params",
    "leeway",
    "cache",
    "retry",
    "retry_after",
    "limits",
];

impl Config {
    /// Reads a configuration from a JSON object. Secrets by environment or file need feature `load`.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of the document; what is missing comes last.
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let node = read_json(json).map_err(|problem| ConfigError::one("", problem))?;
        Self::read(&node, &NoSources, Report::default(), None)
    }

    /// Things that are allowed but probably not meant, in the order of the document; what is about absent fields comes last.
    #[must_use]
    pub fn warnings(&self) -> &[Problem] {
        &self.warnings
    }

    /// The warnings, and one more if `anonymous` names nobody among `consumers`.
    #[must_use]
    pub fn warnings_with(&self, consumers: &Consumers) -> Vec<Problem> {
        let mut report = Report::default();
        if let Some(name) = &self.policy.0.anonymous
            && consumers.named(name).is_none()
        {
            let name = clipped(name);
            report.warn(
                "anonymous",
                format!("{name} is no consumer's id or username: what falls back to it is refused with 500"),
            );
        }
        let mut warnings = self.warnings.clone();
        warnings.extend(report.finish().unwrap_or_default());
        warnings
    }

    /// The document's own policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Which certificate authorities vouch for the endpoint. Hosts that make the call themselves must honour this.
    #[must_use]
    pub fn tls_roots(&self) -> &TlsRoots {
        &self.tls_roots
    }

    /// The endpoint's URL. Its query counts as a secret: not for logs.
    #[must_use]
    pub fn introspection_url(&self) -> &str {
        self.endpoint.url.expose()
    }

    /// How many introspections may be under way at once. Defaults to 1024.
    #[must_use]
    pub fn concurrent_introspections(&self) -> usize {
        self.settings.concurrent
    }

    /// How long an idle connection to the endpoint is kept. Defaults to 60 s.
    #[must_use]
    pub fn keepalive(&self) -> std::time::Duration {
        crate::clock::duration(self.settings.keepalive)
    }

    /// The time one request may spend on introspection, waiting and retries included. Defaults to 10 s.
    #[must_use]
    pub fn timeout(&self) -> std::time::Duration {
        crate::clock::duration(self.settings.timeout)
    }

    /// The longest reply that is read, in bytes. Defaults to 1 MiB. A host stops reading beyond it.
    #[must_use]
    pub fn reply_bytes(&self) -> usize {
        self.settings.reply_bytes
    }

    /// The longest request body that is searched for a token, in bytes. Defaults to 1 MiB.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.settings.body_bytes
    }

    pub(crate) fn reply_rules(&self) -> reply::Rules {
        reply::Rules { reply_bytes: self.settings.reply_bytes, digits: self.profile == Profile::Kong }
    }

    /// `report` holds what is already known to be wrong. `assumed` is the profile of a document that does not say.
    pub(crate) fn read(
        node: &Node,
        sources: &dyn Sources,
        report: Report,
        assumed: Option<Profile>,
    ) -> Result<Self, ConfigError> {
        let mut profile = assumed.unwrap_or(Profile::Standard);
        // What other fields depend on is looked for first, and judged where it stands.
        if let Some("kong") = node.member("profile").and_then(Node::text) {
            profile = Profile::Kong;
        } else if let Some("standard") = node.member("profile").and_then(Node::text) {
            profile = Profile::Standard;
        }
        let mut reader = Reader { profile, report, sources };
        let mut draft = Draft::new(profile, node);
        for member in reader.members(node, "") {
            draft.given.push(member.name.as_str());
            let path = member.name.as_str();
            if !draft.rules.read(member, path, &mut reader) && !draft.read(member, path, &mut reader) {
                let known: Vec<&str> = FIELDS.iter().chain(policy::FIELDS).copied().collect();
                reader.report.unknown(path, path, &known);
            }
        }
        if matches!(node.value, Value::Object(_)) {
            draft.missing(&mut reader);
        }
        draft.finish(reader)
    }

    /// A further policy: fields that `json` does not give are those of this document's own.
    pub(crate) fn further_policy(&self, json: &str) -> Result<(Policy, Vec<Problem>), ConfigError> {
        let node = read_json(json).map_err(|problem| ConfigError::one("", problem))?;
        let mut reader = Reader { profile: self.profile, report: Report::default(), sources: &NoSources };
        let mut rules = (*self.policy.0).clone();
        for member in reader.members(&node, "") {
            let path = member.name.as_str();
            if rules.read(member, path, &mut reader) {
                continue;
            }
            if FIELDS.contains(&path) {
                reader.report.error(path, "belongs to the introspector, not to a policy");
            } else {
                reader.report.unknown(path, path, policy::FIELDS);
            }
        }
        let warnings = reader.report.finish()?;
        Ok((rules.policy(Some(&self.policy.0)), warnings))
    }
}

/// Shows no secret.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("profile", &self.profile)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A configuration while it is read.
struct Draft<'n> {
    given: Vec<&'n str>,
    /// `allow_insecure_http`, if given.
    insecure: Option<bool>,
    introspect_request: bool,
    url: Option<Secret>,
    authorization: Option<Secret>,
    client_auth: Option<ClientAuth>,
    hint: Option<Box<str>>,
    params: Vec<(Box<str>, Secret)>,
    headers: Vec<(Box<str>, Secret)>,
    settings: Settings,
    tls_roots: TlsRoots,
    rules: Rules,
}

impl<'n> Draft<'n> {
    fn new(profile: Profile, node: &'n Node) -> Self {
        let given = |name| match node.member(name).map(|node| &node.value) {
            Some(Value::Bool(given)) => Some(*given),
            _ => None,
        };
        Self {
            given: Vec::new(),
            insecure: given("allow_insecure_http"),
            introspect_request: given("introspect_request").unwrap_or(false),
            url: None,
            authorization: None,
            client_auth: None,
            hint: None,
            params: Vec::new(),
            headers: Vec::new(),
            settings: Settings::default(),
            tls_roots: TlsRoots::System,
            rules: Rules::new(profile),
        }
    }

    /// Reads one field; tells whether it is known.
    fn read(&mut self, member: &Member, path: &str, reader: &mut Reader<'_>) -> bool {
        let node = &member.node;
        let settings = &mut self.settings;
        match member.name.as_str() {
            "introspection_url" => self.url = endpoint::url(node, path, self.insecure, reader),
            "authorization_value" => {
                self.authorization = endpoint::authorization(node, path, reader);
                self.exclusive("client_auth", path, reader);
            }
            "client_auth" => {
                self.client_auth = endpoint::client_auth(node, path, reader);
                self.exclusive("authorization_value", path, reader);
            }
            "token_type_hint" => self.hint = hint(node, path, reader),
            "ttl" => ttl(node, path, reader, &mut settings.ttl),
            "timeout" => milliseconds(node, path, 1, reader, &mut settings.timeout),
            "keepalive" => milliseconds(node, path, 0, reader, &mut settings.keepalive),
            "introspect_request" => reader.boolean(node, path, &mut self.introspect_request),
            "custom_introspection_headers" => {
                self.headers = endpoint::headers(node, path, self.introspect_request, reader);
            }
            "profile" => {
                let words = [("standard", Profile::Standard), ("kong", Profile::Kong)];
                reader.word(node, path, &words, &mut { Profile::Standard });
            }
            "allow_insecure_http" => reader.boolean(node, path, &mut false),
            "tls_roots" => self.tls_roots = tls_roots(node, path, reader),
            "introspection_params" => self.params = endpoint::params(node, path, reader),
            "leeway" => settings.leeway = reader.seconds(node, path, 0.0..=300.0).unwrap_or(0),
            "cache" => cache(node, path, reader, settings),
            "retry" => retry(node, path, reader, settings),
            "retry_after" => {
                let mut seconds = 1;
                reader.integer(node, path, 0..=3600, " of seconds", &mut seconds);
                settings.retry_after = u16::try_from(seconds).unwrap_or(1);
            }
            "limits" => limits(node, path, reader, settings),
            _ => return false,
        }
        true
    }

    fn exclusive(&self, other: &str, path: &str, reader: &mut Reader<'_>) {
        if self.given.contains(&other) {
            reader.report.error(path, format!("is given beside `{other}`: allowed is one of them"));
        }
    }

    fn missing(&mut self, reader: &mut Reader<'_>) {
        if !self.given.contains(&"introspection_url") {
            reader.report.missing("introspection_url", "is missing: the URL of the introspection endpoint (RFC 7662)");
        }
        if !self.given.contains(&"authorization_value") && !self.given.contains(&"client_auth") {
            reader.report.missing("authorization_value", "is missing, and so is `client_auth`: one of them is needed");
        }
        if reader.is_kong() && !self.given.contains(&"hide_credentials") {
            reader.report.warn("hide_credentials", "is not given and true; Kong before 3.14 took it as false");
        }
    }

    fn finish(self, reader: Reader<'_>) -> Result<Config, ConfigError> {
        let profile = reader.profile;
        let warnings = reader.report.finish()?;
        let auth = self.client_auth.unwrap_or_default();
        let mut endpoint = Endpoint::empty();
        if let Some(url) = self.url {
            endpoint.url = url;
        }
        endpoint.authorization = self.authorization.or(auth.authorization);
        endpoint.token_type_hint = self.hint;
        endpoint.params = self.params;
        endpoint.params.extend(auth.params);
        endpoint.headers = self.headers;
        endpoint.introspect_request = self.introspect_request;
        Ok(Config {
            profile,
            endpoint: Arc::new(endpoint),
            settings: self.settings,
            policy: self.rules.policy(None),
            tls_roots: self.tls_roots,
            warnings,
        })
    }
}

fn hint(node: &Node, path: &str, reader: &mut Reader<'_>) -> Option<Box<str>> {
    const ALLOWED: &str = "a string that is not empty";
    let hint = reader.referred(node, path, ALLOWED)?;
    if hint.is_empty() && !reader.is_kong() {
        reader.report.wrong(path, node, ALLOWED);
    }
    (!hint.is_empty()).then(|| hint.into())
}

fn ttl(node: &Node, path: &str, reader: &mut Reader<'_>, ttl: &mut Ttl) {
    const ALLOWED: &str = "a number of seconds greater than 0, or \"until_exp\"";
    match (number(node), node.text()) {
        (Some(seconds), _) if seconds > 0.0 => *ttl = Ttl::For(microseconds(seconds)),
        (Some(0.0), _) if reader.is_kong() => {
            *ttl = Ttl::UntilExp;
            reader.report.warn(path, "`0` is read as \"until_exp\": answers are reused until the token expires");
        }
        (Some(0.0), _) => reader.report.error(
            path,
            format!("found `0`, allowed is {ALLOWED}; to switch the cache off, set `cache.enabled` to false"),
        ),
        (_, Some("until_exp")) => *ttl = Ttl::UntilExp,
        _ => reader.report.wrong(path, node, ALLOWED),
    }
}

/// An integer of milliseconds, as microseconds.
fn milliseconds(node: &Node, path: &str, least: u64, reader: &mut Reader<'_>, micros: &mut i64) {
    let mut millis = u64::try_from(*micros).unwrap_or(0) / 1000;
    reader.integer(node, path, least..=u64::MAX, " of milliseconds", &mut millis);
    *micros = i64::try_from(millis).unwrap_or(i64::MAX).saturating_mul(1000);
}

fn tls_roots(node: &Node, path: &str, reader: &mut Reader<'_>) -> TlsRoots {
    const ALLOWED: &str = "\"system\" or {\"file\": PATH}";
    match &node.value {
        Value::String(text) if **text == "system" => {}
        Value::Object(members) => match members.as_slice() {
            [Member { name, node: file, .. }] if name == "file" => match file.text() {
                Some(file) if !file.is_empty() => {
                    return TlsRoots::File { path: Path::new(file).to_owned(), pem: None }.read(path, reader);
                }
                _ => reader.report.wrong(&join(path, "file"), file, "the path of a PEM file"),
            },
            [] => reader.report.missing(&join(path, "file"), "is missing: the path of a PEM file"),
            _ => reader.report.wrong(path, node, ALLOWED),
        },
        _ => reader.report.wrong(path, node, ALLOWED),
    }
    TlsRoots::System
}

impl TlsRoots {
    /// Reads the file, where files are read at all.
    fn read(self, path: &str, reader: &mut Reader<'_>) -> Self {
        let Self::File { path: file, .. } = &self else { return self };
        match reader.sources.roots(file) {
            None => self,
            Some(Ok((path, pem))) => Self::File { path, pem: Some(pem.into()) },
            Some(Err(problem)) => {
                reader.report.error(&join(path, "file"), problem);
                self
            }
        }
    }
}

fn cache(node: &Node, path: &str, reader: &mut Reader<'_>, settings: &mut Settings) {
    for member in reader.members(node, path) {
        let (path, node) = (join(path, &member.name), &member.node);
        match member.name.as_str() {
            "enabled" => reader.boolean(node, &path, &mut settings.cache),
            "capacity" => reader.size(node, &path, 1, &mut settings.sizes.capacity),
            "max_bytes" => reader.size(node, &path, 1, &mut settings.sizes.max_bytes),
            "negative_ttl" => {
                let ttl = reader.seconds(node, &path, 0.0..=f64::INFINITY);
                settings.negative_ttl = ttl.unwrap_or(settings.negative_ttl);
            }
            "negative_capacity" => reader.size(node, &path, 0, &mut settings.sizes.negative_capacity),
            unknown => reader.report.unknown(&path, unknown, CACHE),
        }
    }
}

fn retry(node: &Node, path: &str, reader: &mut Reader<'_>, settings: &mut Settings) {
    for member in reader.members(node, path) {
        let (path, node) = (join(path, &member.name), &member.node);
        match member.name.as_str() {
            "attempts" => {
                let mut attempts = u64::from(settings.attempts);
                reader.integer(node, &path, 1..=5, "", &mut attempts);
                settings.attempts = u32::try_from(attempts).unwrap_or(1);
            }
            unknown => reader.report.unknown(&path, unknown, &["attempts"]),
        }
    }
}

fn limits(node: &Node, path: &str, reader: &mut Reader<'_>, settings: &mut Settings) {
    for member in reader.members(node, path) {
        let (path, node) = (join(path, &member.name), &member.node);
        let limit = match member.name.as_str() {
            "token_bytes" => &mut settings.token_bytes,
            "reply_bytes" => &mut settings.reply_bytes,
            "body_bytes" => &mut settings.body_bytes,
            "header_bytes" => &mut settings.header_bytes,
            "concurrent_introspections" => &mut settings.concurrent,
            unknown => {
                reader.report.unknown(&path, unknown, LIMITS);
                continue;
            }
        };
        reader.size(node, &path, 1, limit);
    }
}

const CACHE: &[&str] = &["enabled", "capacity", "max_bytes", "negative_ttl", "negative_capacity"];
const LIMITS: &[&str] = &["token_bytes", "reply_bytes", "body_bytes", "header_bytes", "concurrent_introspections"];

/// Every setting with its default in profile `standard`, for the test that holds the README to them.
#[doc(hidden)]
#[must_use]
pub fn settings() -> Vec<(String, String)> {
    let settings = Settings::default();
    let rules = Rules::new(Profile::Standard);
    let seconds = |micros: i64| (micros / 1_000_000).to_string();
    let millis = |micros: i64| (micros / 1000).to_string();
    let Ttl::For(ttl) = settings.ttl else { return Vec::new() };
    let default = |path: &str| match path {
        "introspection_url" | "authorization_value" => "required".to_owned(),
        "ttl" => seconds(ttl),
        "timeout" => millis(settings.timeout),
        "keepalive" => millis(settings.keepalive),
        "introspect_request" | "allow_insecure_http" => "false".to_owned(),
        "hide_credentials" => rules.hide.to_string(),
        "run_on_preflight" => rules.run_on_preflight.to_string(),
        "anonymous" => format!("\"{}\"", rules.anonymous.as_deref().unwrap_or_default()),
        "consumer_by" => policy::word(policy::CONSUMER_BY, rules.consumer_by),
        "custom_claims_forward" => "[]".to_owned(),
        "custom_introspection_headers" | "introspection_params" | "require" => "{}".to_owned(),
        "profile" => "\"standard\"".to_owned(),
        "token_from" => "[\"header\"]".to_owned(),
        "realm" => format!("\"{}\"", rules.realm),
        "tls_roots" => "\"system\"".to_owned(),
        "leeway" => seconds(settings.leeway),
        "anonymous_on" => {
            let words = rules.anonymous_on.iter().map(|class| policy::word(FailureClass::WORDS, *class));
            format!("[{}]", words.collect::<Vec<_>>().join(", "))
        }
        "array_format" => policy::word(policy::ARRAY_FORMATS, rules.writing.array_format),
        "header_encoding" => policy::word(policy::HEADER_ENCODINGS, rules.writing.header_encoding),
        "cache.enabled" => settings.cache.to_string(),
        "cache.capacity" => settings.sizes.capacity.to_string(),
        "cache.max_bytes" => settings.sizes.max_bytes.to_string(),
        "cache.negative_ttl" => seconds(settings.negative_ttl),
        "cache.negative_capacity" => settings.sizes.negative_capacity.to_string(),
        "retry.attempts" => settings.attempts.to_string(),
        "retry_after" => settings.retry_after.to_string(),
        "limits.token_bytes" => settings.token_bytes.to_string(),
        "limits.reply_bytes" => settings.reply_bytes.to_string(),
        "limits.body_bytes" => settings.body_bytes.to_string(),
        "limits.header_bytes" => settings.header_bytes.to_string(),
        "limits.concurrent_introspections" => settings.concurrent.to_string(),
        "require.consumer" => rules.require_consumer.to_string(),
        _ => "absent".to_owned(),
    };
    let nested = |name: &str, members: &[&str]| members.iter().map(|member| format!("{name}.{member}")).collect();
    let paths = FIELDS.iter().chain(policy::FIELDS).flat_map(|field| match *field {
        "cache" => nested("cache", CACHE),
        "limits" => nested("limits", LIMITS),
        "retry" => nested("retry", &["attempts"]),
        "require" => nested("require", policy::REQUIRE),
        other => vec![other.to_owned()],
    });
    paths.map(|path| (path.clone(), default(&path))).collect()
}
