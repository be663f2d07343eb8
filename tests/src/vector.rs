//! The form of vectors: see `vectors/README.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use serde_derive::Deserialize;
use serde_json::value::RawValue;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vector {
    pub name: String,
    #[allow(dead_code, reason = "for the script that lists what is not covered")]
    refs: Vec<String>,
    pub config: Option<Box<RawValue>>,
    pub config_text: Option<String>,
    pub kong: Option<String>,
    pub select: Option<String>,
    pub document: Option<Box<RawValue>>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub files: BTreeMap<String, Bytes>,
    #[serde(default)]
    bare: bool,
    pub consumers: Option<Box<RawValue>>,
    pub load: Option<Load>,
    #[serde(default)]
    pub steps: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Load {
    pub errors: Option<Vec<Message>>,
    pub warnings: Option<Vec<Message>>,
    pub consumers_errors: Option<Vec<Message>>,
    pub consumers: Option<Vec<BTreeMap<String, serde_json::Value>>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    pub path: Option<String>,
    #[serde(default)]
    pub contains: Vec<String>,
    #[serde(default)]
    pub lacks: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(untagged)]
pub enum At {
    Both(f64),
    Each { wall: f64, mono: f64 },
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub at: Option<At>,
    pub begin: Option<Begin>,
    pub reply: Option<String>,
    pub status: Option<u16>,
    pub headers: Option<Vec<(Bytes, Bytes)>>,
    pub body: Option<Bytes>,
    pub fail: Option<String>,
    pub failure: Option<String>,
    pub resume: Option<String>,
    pub drop: Option<String>,
    pub forget: Option<Bytes>,
    pub forget_all: Option<bool>,
    pub replace_consumers: Option<Box<RawValue>>,
    pub replace_config: Option<Box<RawValue>>,
    #[serde(default)]
    pub expect: Expect,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    #[serde(rename = "as")]
    pub name: String,
    pub method: Option<Bytes>,
    pub target: Option<Bytes>,
    pub headers: Option<Vec<(Bytes, Bytes)>>,
    pub trailers: Option<Vec<Bytes>>,
    pub body: Option<Bytes>,
    pub policy: Option<Box<RawValue>>,
    pub like: Option<String>,
}

impl Begin {
    /// Takes what it does not say from `other`.
    #[must_use]
    pub fn like(mut self, other: &Self) -> Self {
        self.method = self.method.or_else(|| other.method.clone());
        self.target = self.target.or_else(|| other.target.clone());
        self.headers = self.headers.or_else(|| other.headers.clone());
        self.trailers = self.trailers.or_else(|| other.trailers.clone());
        self.body = self.body.or_else(|| other.body.clone());
        self.policy = self.policy.or_else(|| other.policy.clone());
        self
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub introspect: Option<Introspect>,
    pub wait: Option<Wait>,
    pub allow: Option<Allow>,
    pub deny: Option<Deny>,
    pub ready: Option<Vec<String>>,
    pub let_go: Option<Vec<String>>,
    pub calls: Option<u64>,
    pub needs_body: Option<bool>,
    pub forgotten: Option<bool>,
    pub log: Option<Vec<String>>,
    pub snapshot: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Introspect {
    pub method: Option<String>,
    pub url: Option<String>,
    pub headers: Option<Vec<(Bytes, Bytes)>>,
    pub body: Option<Bytes>,
    pub time_left: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    pub deadline: Option<f64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    pub source: Option<String>,
    pub identity: Option<serde_json::Value>,
    pub set: Option<Vec<(Bytes, Bytes)>>,
    pub remove: Option<Vec<Bytes>>,
    #[serde(default, deserialize_with = "nullable")]
    pub target: Option<Option<Bytes>>,
    #[serde(default, deserialize_with = "nullable")]
    pub body: Option<Option<Bytes>>,
    pub response_headers: Option<Vec<(Bytes, Bytes)>>,
    #[serde(default, deserialize_with = "nullable")]
    pub expires: Option<Option<f64>>,
    pub claims: Option<BTreeMap<String, serde_json::Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deny {
    pub reason: Option<String>,
    pub number: Option<u16>,
    pub status: Option<u16>,
    pub headers: Option<Vec<(Bytes, Bytes)>>,
    #[serde(default, deserialize_with = "nullable")]
    pub body: Option<Option<Bytes>>,
}

/// Absent is not compared, `null` is compared.
fn nullable<'de, D: serde::Deserializer<'de>, T: serde::Deserialize<'de>>(
    value: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// Text, bytes in hex, repeated text, or an array of these.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(from = "Written")]
pub struct Bytes(pub Vec<u8>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Part(Part),
    Joined(Vec<Written>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    hex: Option<String>,
    text: Option<String>,
    times: Option<usize>,
}

impl From<Written> for Bytes {
    fn from(written: Written) -> Self {
        Self(match written {
            Written::Text(text) => text.into_bytes(),
            Written::Joined(parts) => parts.into_iter().flat_map(|part| Self::from(part).0).collect(),
            Written::Part(Part { hex: Some(hex), text: None, times: None }) => {
                let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).expect("hex digits") as u8).collect();
                assert!(digits.len().is_multiple_of(2), "pairs of hex digits");
                digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
            }
            Written::Part(Part { hex: None, text: Some(text), times }) => text.repeat(times.unwrap_or(1)).into_bytes(),
            Written::Part(_) => panic!("either hex, or text and times"),
        })
    }
}

impl Vector {
    /// The configuration's text, what is left out filled in.
    #[must_use]
    pub fn config_text(&self) -> String {
        match (&self.config_text, &self.config) {
            (Some(text), None) => text.clone(),
            (None, Some(config)) if self.bare => config.get().to_owned(),
            (None, Some(config)) => fill_in(config.get()),
            (None, None) => fill_in("{}"),
            _ => panic!("{}: `config` and `config_text`", self.name),
        }
    }
}

/// Puts the two members that every configuration needs in front, where they are absent.
#[must_use]
pub fn fill_in(config: &str) -> String {
    let given: serde_json::Map<String, serde_json::Value> = serde_json::from_str(config).expect("an object");
    let mut text = String::from("{");
    if !given.contains_key("introspection_url") {
        text.push_str(r#""introspection_url":"https://as.example/introspect","#);
    }
    if !given.contains_key("authorization_value") && !given.contains_key("client_auth") {
        text.push_str(r#""authorization_value":"Basic cnM6c2VjcmV0","#);
    }
    let rest = config.trim_start().strip_prefix('{').expect("an object");
    if given.is_empty() && text.ends_with(',') {
        text.pop();
    }
    text + rest
}

/// The folder of the vectors.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors")
}

/// All vectors with the name of their file, in order.
#[must_use]
pub fn all() -> Vec<(String, Vector)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("a folder of vectors")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    files.sort();
    let mut all = Vec::new();
    for file in files {
        let area = file.file_stem().expect("a name").to_string_lossy().into_owned();
        if area == "sentences" || area == "elsewhere" {
            continue;
        }
        let text = std::fs::read_to_string(&file).expect("a readable file");
        let vectors: Vec<Vector> =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        all.extend(vectors.into_iter().map(|vector| (area.clone(), vector)));
    }
    all
}
