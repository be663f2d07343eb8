//! The consumers that the gateway knows, and who of them is behind a token.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use crate::claims::{Claims, Member, string};
use crate::config::node::{Node, Value, read_json};
use crate::config::report::{ConfigError, Report, clipped};
use crate::headers::{HeaderEncoding, encode_text};

/// The longest value of a consumer, in its longest encoded form, in bytes. A `limits.header_bytes` below this leaves longer
/// values out of the edits.
pub(crate) const VALUE_BYTES: usize = 8192;

/// A consumer of the gateway.
#[derive(Clone, PartialEq, Eq)]
pub struct Consumer {
    pub(crate) id: Box<str>,
    pub(crate) username: Option<Box<str>>,
    pub(crate) custom_id: Option<Box<str>>,
    pub(crate) tags: Box<[Box<str>]>,
    pub(crate) groups: Box<[Box<str>]>,
}

impl Consumer {
    /// Its id, unique in the directory.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Its username, unique in the directory.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        self.username.as_deref()
    }

    /// Its id in the host's own terms, often the OAuth client's id; unique in the directory.
    #[must_use]
    pub fn custom_id(&self) -> Option<&str> {
        self.custom_id.as_deref()
    }

    /// Its tags, for the host's use.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tags.iter().map(|tag| &**tag)
    }

    /// Its groups, for the host's use.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &str> {
        self.groups.iter().map(|group| &**group)
    }
}

/// Shows the id alone.
impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Who is behind a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The token's consumer.
    Consumer(Arc<Consumer>),
    /// Authentication failed or was not tried, and the policy names a consumer for that.
    Anonymous(Arc<Consumer>),
    /// The token is good and no consumer matches it.
    Unmatched,
    /// A preflight request: nobody was asked for.
    None,
}

impl Identity {
    /// The consumer, matched or anonymous.
    #[must_use]
    pub fn consumer(&self) -> Option<&Arc<Consumer>> {
        match self {
            Self::Consumer(consumer) | Self::Anonymous(consumer) => Some(consumer),
            Self::Unmatched | Self::None => None,
        }
    }
}

/// How a consumer is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConsumerBy {
    /// Claim `username` is the consumer's `username`.
    Username,
    /// Claim `client_id` is the consumer's `custom_id`.
    ClientId,
}

/// A directory of consumers. It does not change: a new one replaces it
/// ([`Introspector::replace_consumers`](crate::Introspector::replace_consumers)).
///
/// A look-up is one hash table access, whatever the size; a million consumers load in seconds.
///
/// ```
/// let consumers = tokenward_core::Consumers::from_json(r#"[{"username": "alice", "custom_id": "app-1"}]"#)?;
/// assert_eq!(consumers.len(), 1);
/// # Ok::<(), tokenward_core::ConfigError>(())
/// ```
#[derive(Clone, Default)]
pub struct Consumers(Arc<Directory>);

type Index = HashMap<Key, Arc<Consumer>>;

#[derive(Default)]
struct Directory {
    all: Box<[Arc<Consumer>]>,
    ids: Index,
    usernames: Index,
    custom_ids: Index,
}

/// One of a consumer's names, borrowed from the consumer itself.
struct Key(Arc<Consumer>, Field);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Username,
    CustomId,
}

impl Key {
    fn text(&self) -> &str {
        match self.1 {
            Field::Id => Some(&*self.0.id),
            Field::Username => self.0.username.as_deref(),
            Field::CustomId => self.0.custom_id.as_deref(),
        }
        .unwrap_or_default()
    }
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        self.text()
    }
}

impl std::hash::Hash for Key {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text().hash(state);
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.text() == other.text()
    }
}

impl Eq for Key {}

impl Consumers {
    /// No consumers: every good token is allowed as unmatched, unless `require.consumer` is set.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Reads a JSON array of `{"id", "username", "custom_id", "tags", "groups"}`.
    ///
    /// A consumer needs a `username` or a `custom_id`. One without `id` gets UUID v5 of the name `tokenward:consumer:` and
    /// its username (else its `custom_id`) in the URL namespace, so that processes agree.
    ///
    /// # Errors
    /// All of them at once: values that are empty, of another type, too long for a header (8192 bytes encoded), or already
    /// another consumer's, each with its path (`consumers[3].username`).
    pub fn from_json(json: &str) -> Result<Self, ConfigError> {
        let mut report = Report::default();
        let consumers = match read_json(json) {
            Ok(node) => Self::read(&node, "consumers", false, &mut report),
            Err(problem) => {
                report.error("consumers", problem);
                Self::none()
            }
        };
        report.finish().map(|_| consumers)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.all.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.all.is_empty()
    }

    /// One of them, by its place in the order given; in the same time, whichever it is.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<&Arc<Consumer>> {
        self.0.all.get(index)
    }

    /// All of them, in the order given.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<Consumer>> {
        self.0.all.iter()
    }

    /// The consumer of that id, else of that username.
    pub(crate) fn named(&self, name: &str) -> Option<&Arc<Consumer>> {
        self.0.ids.get(name).or_else(|| self.0.usernames.get(name))
    }

    /// The consumer behind the claims. Comparison is by exact bytes.
    pub(crate) fn behind(&self, claims: &Claims, by: ConsumerBy) -> Option<&Arc<Consumer>> {
        let (index, claim) = match by {
            ConsumerBy::Username => (&self.0.usernames, Member::Username),
            ConsumerBy::ClientId => (&self.0.custom_ids, Member::ClientId),
        };
        if index.is_empty() {
            return None;
        }
        let name: Cow<'_, str> = string(claims.known(claim)?)?;
        index.get(&*name)
    }

    /// Reads an array of consumers. With `lenient`, unknown members are skipped: the file is another program's.
    pub(crate) fn read(node: &Node, path: &str, lenient: bool, report: &mut Report) -> Self {
        let Value::Array(elements) = &node.value else {
            report.wrong(path, node, "an array of consumers");
            return Self::none();
        };
        let mut directory = Directory::default();
        let mut all = Vec::with_capacity(elements.len());
        let mut places =
            HashMap::with_capacity_and_hasher(0, BuildHasherDefault::<std::hash::DefaultHasher>::default());
        directory.ids.reserve(elements.len());
        for (at, element) in elements.iter().enumerate() {
            let place = format!("{path}[{at}]");
            let Some(consumer) = consumer(element, &place, lenient, report).map(Arc::new) else { continue };
            places.insert(Arc::as_ptr(&consumer), at);
            for (field, index, name) in [
                (Field::Id, &mut directory.ids, "id"),
                (Field::Username, &mut directory.usernames, "username"),
                (Field::CustomId, &mut directory.custom_ids, "custom_id"),
            ] {
                let key = Key(Arc::clone(&consumer), field);
                if key.text().is_empty() {
                    continue;
                }
                if let Some(other) = index.get(key.text()) {
                    // An id that was derived from a name is that of another as the name is.
                    let is_derived = field == Field::Id && element.member("id").is_none();
                    let same = |one: &Option<Box<str>>, other: &Option<Box<str>>| one.is_some() && one == other;
                    let named_twice =
                        same(&other.username, &consumer.username) || same(&other.custom_id, &consumer.custom_id);
                    if is_derived && named_twice {
                        continue; // said for the name
                    }
                    let first = places.get(&Arc::as_ptr(other)).copied().unwrap_or_default();
                    let text = clipped(key.text());
                    let (this, that) = (clipped(&consumer.id), clipped(&other.id));
                    let message =
                        format!("{text} of consumer {this} is already that of {path}[{first}], consumer {that}");
                    report.error(&format!("{place}.{name}"), message);
                } else {
                    index.insert(key, Arc::clone(&consumer));
                }
            }
            all.push(consumer);
        }
        directory.all = all.into();
        Self(Arc::new(directory))
    }
}

impl fmt::Debug for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumers").field("len", &self.len()).finish_non_exhaustive()
    }
}

fn consumer(node: &Node, place: &str, lenient: bool, report: &mut Report) -> Option<Consumer> {
    const KNOWN: &[&str] = &["id", "username", "custom_id", "tags", "groups"];
    let Value::Object(members) = &node.value else {
        report.wrong(place, node, "a consumer: an object with `username` or `custom_id`");
        return None;
    };
    let before = report.errors();
    let of = node.member("id").and_then(Node::text).map(|id| format!("consumer {}: ", clipped(id))).unwrap_or_default();
    let (mut id, mut username, mut custom_id) = (None, None, None);
    let (mut tags, mut groups) = (Box::default(), Box::default());
    for member in members {
        let path = format!("{place}.{}", member.name);
        match member.name.as_str() {
            _ if lenient && member.node.value == Value::Null => {}
            _ if member.repeated => report.error(&path, "is given twice"),
            "id" => id = name(&member.node, &path, "", report),
            "username" => username = name(&member.node, &path, &of, report),
            "custom_id" => custom_id = name(&member.node, &path, &of, report),
            "tags" => tags = words(&member.node, &path, lenient, report),
            "groups" => groups = words(&member.node, &path, lenient, report),
            _ if lenient => {}
            unknown => report.unknown(&path, unknown, KNOWN),
        }
    }
    if report.errors() > before {
        return None;
    }
    if username.is_none() && custom_id.is_none() {
        let id = id.map(|id| format!("consumer {}: ", clipped(&id))).unwrap_or_default();
        report.error(place, format!("{id}needs `username` or `custom_id`"));
        return None;
    }
    let id = id.or_else(|| username.as_ref().or(custom_id.as_ref()).map(|name| derived_id(name)))?;
    Some(Consumer { id, username, custom_id, tags, groups })
}

fn derived_id(name: &str) -> Box<str> {
    let name = format!("tokenward:consumer:{name}");
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_URL, name.as_bytes()).to_string().into()
}

/// `of` says whose name it is.
fn name(node: &Node, path: &str, of: &str, report: &mut Report) -> Option<Box<str>> {
    match &node.value {
        Value::String(text) if text.is_empty() => report.error(path, format!("{of}is empty")),
        Value::String(text) if encode_text(text, HeaderEncoding::Rfc8187).len() > VALUE_BYTES => {
            report.error(path, format!("{of}is too long for a header: at most {VALUE_BYTES} bytes once encoded"));
        }
        Value::String(text) => return Some(text.as_str().into()),
        _ => report.wrong(path, node, "a string that is not empty"),
    }
    None
}

/// Strings; in Kong's files groups may be objects with a `name`.
fn words(node: &Node, path: &str, lenient: bool, report: &mut Report) -> Box<[Box<str>]> {
    let Value::Array(elements) = &node.value else {
        report.wrong(path, node, "an array of strings");
        return Box::default();
    };
    let mut words = Vec::with_capacity(elements.len());
    for (at, element) in elements.iter().enumerate() {
        match &element.value {
            Value::String(text) => words.push(text.as_str().into()),
            Value::Object(members) if lenient => {
                words.extend(members.iter().find_map(|member| match (member.name.as_str(), &member.node.value) {
                    ("name", Value::String(text)) => Some(text.as_str().into()),
                    _ => None,
                }))
            }
            _ => report.wrong(&format!("{path}[{at}]"), element, "a string"),
        }
    }
    words.into()
}
