//! A policy: how tokens are read, what is required of them, and what upstream and client are told.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Profile;
use super::node::{Member, Node, Value};
use super::reader::{Reader, join};
use super::report::clipped;
use crate::checks::Requirements;
use crate::consumer::ConsumerBy;
use crate::decision::{FailureClass, Reason};
use crate::headers::{ArrayFormat, ClaimHeader, HeaderEncoding, Writing, credentials, fold};
use crate::token::Places;

/// How requests of a route are decided: where a token may be, what is required of it, who stands in when there is none, and
/// which headers are set.
///
/// A configuration document holds one policy; [`Introspector::policy`](crate::Introspector::policy) makes further ones over
/// the same introspector. Cloning is cheap. A policy stays as it is when the configuration is replaced.
#[derive(Clone)]
pub struct Policy(pub(crate) Arc<Rules>);

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("profile", &self.0.profile).finish_non_exhaustive()
    }
}

/// The fields of a document that belong to its policy.
pub(crate) const FIELDS: &[&str] = &[
    "hide_credentials",
    "run_on_preflight",
    "anonymous",
    "consumer_by",
    "custom_claims_forward",
    "token_from",
    "realm",
    "require",
    "anonymous_on",
    "array_format",
    "header_encoding",
];

#[derive(Clone, Debug)]
pub(crate) struct Rules {
    /// Unique in the process for how edits are made: by `consumer_by` and `writing`. What was computed for one such way is not used
    /// for another.
    pub(crate) edits: u64,
    pub(crate) profile: Profile,
    pub(crate) places: Places,
    pub(crate) hide: bool,
    pub(crate) run_on_preflight: bool,
    pub(crate) requirements: Requirements,
    pub(crate) require_consumer: bool,
    pub(crate) anonymous: Option<Box<str>>,
    /// Classes of failure that fall back to the anonymous consumer.
    pub(crate) anonymous_on: Vec<FailureClass>,
    pub(crate) consumer_by: ConsumerBy,
    pub(crate) writing: Writing,
    pub(crate) realm: Box<str>,
    pub(crate) challenges: Challenges,
}

impl Policy {
    /// What it requires of a token, as the JSON of the setting `require`: for hosts that let a route require more on top of it.
    #[must_use]
    pub fn require(&self) -> String {
        let rules = &*self.0;
        let needed = &rules.requirements;
        let mut require = serde_json::Map::new();
        if !needed.scopes.is_empty() {
            let scopes: Vec<String> = needed.scopes.iter().map(|words| words.join(" ")).collect();
            require.insert("scopes".to_owned(), scopes.into());
        }
        for (name, values) in [("audience", &needed.audience), ("issuer", &needed.issuer)] {
            if let Some(values) = values {
                let values: Vec<&str> = values.iter().map(|value| &**value).collect();
                require.insert(name.to_owned(), values.into());
            }
        }
        if rules.require_consumer {
            require.insert("consumer".to_owned(), true.into());
        }
        serde_json::Value::Object(require).to_string()
    }
}

/// The `WWW-Authenticate` values of a policy (RFC 6750 §3).
#[derive(Clone, Debug, Default)]
pub(crate) struct Challenges {
    pub(crate) plain: Box<str>,
    pub(crate) malformed: Box<str>,
    pub(crate) invalid: Box<str>,
    pub(crate) scope: Box<str>,
}

impl Rules {
    pub(crate) fn new(profile: Profile) -> Self {
        let kong = profile == Profile::Kong;
        Self {
            edits: 0,
            profile,
            places: Places { header: true, query: kong, body: kong },
            hide: true,
            run_on_preflight: true,
            requirements: Requirements { bearer_only: !kong, ..Requirements::default() },
            require_consumer: false,
            anonymous: None,
            anonymous_on: vec![FailureClass::Missing, FailureClass::Invalid],
            consumer_by: ConsumerBy::Username,
            writing: Writing {
                array_format: if kong { ArrayFormat::Repeat } else { ArrayFormat::Json },
                header_encoding: if kong { HeaderEncoding::Utf8 } else { HeaderEncoding::Rfc8187 },
                custom: Arc::new([]),
            },
            realm: "service".into(),
            challenges: Challenges::default(),
        }
    }

    /// Reads one field of a policy; tells whether the name is one of them.
    pub(crate) fn read(&mut self, member: &Member, path: &str, reader: &mut Reader<'_>) -> bool {
        let node = &member.node;
        match member.name.as_str() {
            "hide_credentials" => reader.boolean(node, path, &mut self.hide),
            "run_on_preflight" => reader.boolean(node, path, &mut self.run_on_preflight),
            "anonymous" => {
                if let Some(name) = reader.referred(node, path, "a consumer's id or username, or an empty string") {
                    self.anonymous = (!name.is_empty()).then(|| name.into());
                }
            }
            "consumer_by" => reader.word(node, path, CONSUMER_BY, &mut self.consumer_by),
            "custom_claims_forward" => self.claims(node, path, reader),
            "token_from" => self.token_from(node, path, reader),
            "realm" => self.realm(node, path, reader),
            "require" => self.require(node, path, reader),
            "anonymous_on" => self.anonymous_on(node, path, reader),
            "array_format" => reader.word(node, path, ARRAY_FORMATS, &mut self.writing.array_format),
            "header_encoding" => reader.word(node, path, HEADER_ENCODINGS, &mut self.writing.header_encoding),
            _ => return false,
        }
        true
    }

    /// Completes what was read. `base` is the policy that it was read on top of.
    pub(crate) fn policy(mut self, base: Option<&Self>) -> Policy {
        static NEXT: AtomicU64 = AtomicU64::new(1);

        let made_alike = |base: &&Self| base.consumer_by == self.consumer_by && base.writing == self.writing;
        self.edits = match base.filter(made_alike) {
            Some(base) => base.edits,
            None => NEXT.fetch_add(1, Ordering::Relaxed),
        };
        let realm = &self.realm;
        let scope = self.requirements.scopes.first().map(|words| words.join(" ")).unwrap_or_default();
        self.challenges = Challenges {
            plain: format!("Bearer realm=\"{realm}\"").into(),
            malformed: format!("Bearer realm=\"{realm}\", error=\"invalid_request\"").into(),
            invalid: format!(
                "Bearer realm=\"{realm}\", error=\"invalid_token\", error_description=\"{}\"",
                Reason::TokenInactive.description()
            )
            .into(),
            scope: format!("Bearer realm=\"{realm}\", error=\"insufficient_scope\", scope=\"{scope}\"").into(),
        };
        Policy(Arc::new(self))
    }

    fn claims(&mut self, node: &Node, path: &str, reader: &mut Reader<'_>) {
        const ALLOWED: &str = "the name of a claim, or a JSON Pointer to one";
        let Some(elements) = reader.elements(node, path, "names of claims") else { return };
        let mut claims: Vec<ClaimHeader> = Vec::with_capacity(elements.len());
        let mut taken: Vec<(String, String)> =
            credentials().map(|(name, claim)| (fold(name), format!("claim `{claim}`"))).collect();
        for (path, element) in elements {
            let entry = element.text().unwrap_or_default();
            let Some(header) = ClaimHeader::parse(entry, reader.is_kong()) else {
                reader.report.wrong(&path, element, ALLOWED);
                continue;
            };
            let folded = header.folded();
            if let Some((_, by)) = taken.iter().find(|(name, _)| *name == folded) {
                let entry = clipped(entry);
                let message = format!("{entry} gives the header `{}`, which is already that of {by}", header.name);
                if reader.is_kong() {
                    reader.report.warn(&path, format!("{message}; this entry is left out"));
                } else {
                    reader.report.error(&path, message);
                }
                continue;
            }
            if claims.len() >= CLAIMS {
                reader.report.error(&path, format!("is one claim too many: at most {CLAIMS} are forwarded"));
                break;
            }
            taken.push((folded, format!("`{path}` ({})", clipped(entry))));
            claims.push(header);
        }
        self.writing.custom = claims.into();
    }

    fn token_from(&mut self, node: &Node, path: &str, reader: &mut Reader<'_>) {
        let Some(elements) = reader.elements(node, path, "\"header\", \"query\", \"body\"") else { return };
        if elements.is_empty() {
            reader
                .report
                .error(path, "found an empty array, allowed is at least one of \"header\", \"query\", \"body\"");
        }
        let mut places = Places { header: false, query: false, body: false };
        for (path, element) in elements {
            match element.text() {
                Some("header") => places.header = true,
                Some("query") => places.query = true,
                Some("body") => places.body = true,
                _ => reader.report.wrong(&path, element, "\"header\", \"query\", \"body\""),
            }
        }
        self.places = places;
    }

    fn realm(&mut self, node: &Node, path: &str, reader: &mut Reader<'_>) {
        const ALLOWED: &str = "a string of visible ASCII and spaces without `\"` and `\\`";
        let Some(realm) = reader.text(node, path, ALLOWED) else { return };
        if realm.bytes().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e)) {
            self.realm = realm.into();
        } else {
            reader.report.wrong(path, node, ALLOWED);
        }
    }

    fn require(&mut self, node: &Node, path: &str, reader: &mut Reader<'_>) {
        // Given as a whole: what an inherited policy required is not required any more.
        self.requirements = Requirements { bearer_only: self.requirements.bearer_only, ..Requirements::default() };
        self.require_consumer = false;
        for member in reader.members(node, path) {
            let (path, node) = (join(path, &member.name), &member.node);
            match member.name.as_str() {
                "scopes" => self.requirements.scopes = scopes(node, &path, reader),
                "audience" => self.requirements.audience = reader.strings(node, &path),
                "issuer" => self.requirements.issuer = reader.strings(node, &path),
                "consumer" => reader.boolean(node, &path, &mut self.require_consumer),
                unknown => reader.report.unknown(&path, unknown, REQUIRE),
            }
        }
    }

    fn anonymous_on(&mut self, node: &Node, path: &str, reader: &mut Reader<'_>) {
        let Some(elements) = reader.elements(node, path, "\"missing\", \"invalid\", \"forbidden\", \"unavailable\"")
        else {
            return;
        };
        self.anonymous_on.clear();
        for (path, element) in elements {
            let mut class = FailureClass::Missing;
            let before = reader.report.errors();
            reader.word(element, &path, FailureClass::WORDS, &mut class);
            if reader.report.errors() == before && !self.anonymous_on.contains(&class) {
                self.anonymous_on.push(class);
            }
        }
    }
}

/// The most claims that are forwarded beside the usual ones.
const CLAIMS: usize = 1024;

/// Alternatives, each of one word or more (RFC 6749 §3.3).
fn scopes(node: &Node, path: &str, reader: &mut Reader<'_>) -> Vec<Vec<Box<str>>> {
    const ALLOWED: &str = "scopes separated by spaces, of visible ASCII without `\"` and `\\`";
    let Some(elements) = reader.elements(node, path, "alternatives, at least one") else { return Vec::new() };
    if elements.is_empty() {
        reader.report.error(path, "found an empty array, allowed is an array of alternatives, at least one");
    }
    let mut alternatives = Vec::with_capacity(elements.len());
    for (path, element) in elements {
        let words: Vec<Box<str>> = match &element.value {
            Value::String(text) => text.split(' ').filter(|word| !word.is_empty()).map(Into::into).collect(),
            _ => Vec::new(),
        };
        let legal = |word: &str| word.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e));
        if words.is_empty() || !words.iter().all(|word| legal(word)) {
            reader.report.wrong(&path, element, ALLOWED);
        } else {
            alternatives.push(words);
        }
    }
    alternatives
}

pub(super) const REQUIRE: &[&str] = &["scopes", "audience", "issuer", "consumer"];
pub(super) const CONSUMER_BY: &[(&str, ConsumerBy)] =
    &[("username", ConsumerBy::Username), ("client_id", ConsumerBy::ClientId)];
pub(super) const ARRAY_FORMATS: &[(&str, ArrayFormat)] =
    &[("json", ArrayFormat::Json), ("comma", ArrayFormat::Comma), ("repeat", ArrayFormat::Repeat)];
pub(super) const HEADER_ENCODINGS: &[(&str, HeaderEncoding)] =
    &[("rfc8187", HeaderEncoding::Rfc8187), ("utf8", HeaderEncoding::Utf8)];

/// The word for a meaning, in quotes.
pub(super) fn word<T: PartialEq>(words: &[(&str, T)], meaning: T) -> String {
    let word = words.iter().find(|(_, one)| *one == meaning).map_or("", |(word, _)| word);
    format!("\"{word}\"")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test, not a part of the core")]

    use crate::config::Config;

    #[test]
    fn what_a_policy_requires_is_shown_as_it_could_be_given() {
        let config = |require: &str| {
            let text =
                r#"{"introspection_url": "https://as.example/", "authorization_value": "Basic eA==", "require": "#;
            Config::from_json(&format!("{text}{require}}}")).unwrap()
        };
        for require in [
            "{}",
            r#"{"audience":["https://api.example","é\"\\"]}"#,
            r#"{"audience":["a"],"consumer":true,"issuer":["i"],"scopes":["read write","admin"]}"#,
        ] {
            let shown = config(require).policy().require();
            let values: [serde_json::Value; 2] =
                [serde_json::from_str(&shown).unwrap(), serde_json::from_str(require).unwrap()];
            assert_eq!(values[0], values[1]);
            assert_eq!(config(&shown).policy().require(), shown);
        }
    }
}
