//! Configuration from files: secrets by environment or file, and Kong's declarative files. The only part of the core that
//! reads files and the environment.

mod kong;

use std::fmt;
use std::path::{Path, PathBuf};

use crate::config::node::{Node, Value, read_json};
use crate::config::report::Report;
use crate::config::secret::Sources;
use crate::config::{Config, ConfigError, Problem};
use crate::consumer::Consumers;

/// A configuration and its consumers, from one document.
///
/// The document is a Tokenward configuration in JSON, which may have an extra member `consumers`, or a Kong declarative file in
/// YAML or JSON (known by its `_format_version`), of which `consumers` and the `config` of the plugin `oauth2-introspection`
/// are read, under profile `kong`.
#[derive(Clone, Debug)]
pub struct Document {
    config: Config,
    consumers: Consumers,
}

impl Document {
    /// Reads a file: its path, or for a Kong file with several plugins `FILE#route=NAME` or `FILE#service=NAME`.
    ///
    /// # Errors
    /// Everything that is wrong with the document, or why it cannot be read.
    pub fn from_file(file: &str) -> Result<Self, ConfigError> {
        Loader::new().file(file)
    }

    /// Reads a document's text. Relative paths in it are relative to the current folder.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn from_text(text: &str) -> Result<Self, ConfigError> {
        Loader::new().text(text)
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The consumers; none if the document has none.
    #[must_use]
    pub fn consumers(&self) -> &Consumers {
        &self.consumers
    }

    /// What is allowed but probably not meant.
    #[must_use]
    pub fn warnings(&self) -> Vec<Problem> {
        self.config.warnings_with(&self.consumers)
    }

    /// Both parts.
    #[must_use]
    pub fn into_parts(self) -> (Config, Consumers) {
        (self.config, self.consumers)
    }
}

type Environment = Box<dyn Fn(&str) -> Option<String>>;

/// How a document is loaded: from which folder, with which environment, and which of several plugins of a Kong file.
pub struct Loader {
    folder: PathBuf,
    environment: Environment,
    select: Option<Box<str>>,
}

impl Default for Loader {
    fn default() -> Self {
        Self::new()
    }
}

impl Loader {
    /// The current folder and this process's environment.
    #[must_use]
    pub fn new() -> Self {
        #[allow(clippy::disallowed_methods, reason = "this feature looks into the environment, and its name says so")]
        let environment = |name: &str| std::env::var(name).ok();
        Self { folder: PathBuf::new(), environment: Box::new(environment), select: None }
    }

    /// Relative paths in the document are relative to this folder. [`file`](Self::file) sets it to the file's own.
    #[must_use]
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = folder.into();
        self
    }

    /// Looks variables up here instead of in the process's environment.
    #[must_use]
    pub fn environment(mut self, look_up: impl Fn(&str) -> Option<String> + 'static) -> Self {
        self.environment = Box::new(look_up);
        self
    }

    /// Which plugin of a Kong file is meant: `route=NAME` or `service=NAME`. Needed if the file has several.
    #[must_use]
    pub fn select(mut self, select: &str) -> Self {
        self.select = Some(select.into());
        self
    }

    /// Reads a file, as [`Document::from_file`].
    ///
    /// # Errors
    /// Everything that is wrong with the document, or why it cannot be read.
    pub fn file(mut self, file: &str) -> Result<Document, ConfigError> {
        let mut path = file;
        if let Some((before, select)) = file.rsplit_once('#')
            && (select.starts_with("route=") || select.starts_with("service="))
        {
            path = before;
            self.select = Some(select.into());
        }
        let path = Path::new(path);
        if let Some(folder) = path.parent() {
            self.folder = folder.to_owned();
        }
        let bytes = zeroize::Zeroizing::new(read(path).map_err(|problem| ConfigError::one("", problem))?);
        match std::str::from_utf8(&bytes) {
            Ok(text) => self.text(text),
            Err(_) => Err(ConfigError::one("", "the file is not UTF-8")),
        }
    }

    /// Reads a document's text.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn text(self, text: &str) -> Result<Document, ConfigError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let is_json = text.trim_start().starts_with('{');
        let mut root = if is_json { read_json(text) } else { kong::read_yaml(text) }
            .map_err(|problem| ConfigError::one("", problem))?;
        if root.member("_format_version").is_some() {
            return kong::document(&root, &self);
        }
        if !is_json {
            return Err(ConfigError::one("", "is neither a JSON object nor a Kong file with `_format_version`"));
        }
        let mut report = Report::default();
        let consumers = match take(&mut root, "consumers") {
            Some(node) => Consumers::read(&node, "consumers", false, &mut report),
            None => Consumers::none(),
        };
        let config = Config::read(&root, &self, report, None)?;
        Ok(Document { config, consumers })
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader").field("folder", &self.folder).field("select", &self.select).finish_non_exhaustive()
    }
}

impl Sources for Loader {
    fn env(&self, name: &str) -> Result<String, String> {
        (self.environment)(name).ok_or_else(|| format!("the environment has no variable `{}`", name.escape_debug()))
    }

    fn file(&self, path: &str) -> Result<Vec<u8>, String> {
        read(&self.folder.join(path))
    }

    fn roots(&self, path: &Path) -> Option<Result<(PathBuf, Vec<u8>), String>> {
        let path = self.folder.join(path);
        Some(read(&path).and_then(|pem| {
            let holds_one = pem.windows(PEM.len()).any(|window| window == PEM);
            if holds_one { Ok((path, pem)) } else { Err("the file holds no certificate in PEM".to_owned()) }
        }))
    }

    fn reference(&self, text: &str) -> Option<Result<String, String>> {
        kong::reference(text, &|name| self.env(name))
    }
}

const PEM: &[u8] = b"-----BEGIN CERTIFICATE-----";

#[allow(clippy::disallowed_methods, reason = "this feature reads files, and its name says so")]
fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| format!("`{}` cannot be read: {}", path.display(), error.kind()))
}

/// Takes a member out of an object.
fn take(node: &mut Node, name: &str) -> Option<Node> {
    let Value::Object(members) = &mut node.value else { return None };
    let at = members.iter().position(|member| member.name == name)?;
    Some(members.remove(at).node)
}
