//! Kong's declarative files (`_format_version` 1.1, 2.1, 3.0), as Kong itself and decK write them.

use crate::config::node::{Node, Value};
use crate::config::report::{Report, clipped};
use crate::config::{Config, ConfigError, Profile};
use crate::consumer::Consumers;
use crate::load::{Document, Loader};

const PLUGIN: &str = "oauth2-introspection";
const VERSIONS: &[&str] = &["1.1", "2.1", "3.0"];

/// Reads YAML, or says where it is broken (never what stands there). What it may hold is bounded by its own length; aliases by
/// the parser's defaults.
pub(super) fn read_yaml(text: &str) -> Result<Node, String> {
    let bound = text.len().saturating_add(1024);
    let options = serde_saphyr::options! {
        with_snippet: false,
        strict_booleans: true,
        budget: serde_saphyr::budget! {
            max_events: bound,
            max_nodes: bound,
            max_total_scalar_bytes: bound.saturating_mul(2),
            max_depth: 128,
            max_documents: 1,
        },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| match error.location() {
        Some(place) => format!("is not YAML: line {}, column {}", place.line(), place.column()),
        None => "is not YAML".to_owned(),
    })
}

/// The plugin's configuration and the consumers of a file.
pub(super) fn document(root: &Node, loader: &Loader) -> Result<Document, ConfigError> {
    let mut report = Report::default();
    let version = match root.member("_format_version").map(|node| &node.value) {
        Some(Value::String(version)) => version.to_string(),
        // YAML without quotes: 3.0 is a number.
        Some(Value::Float(version)) if version.fract() == 0.0 => format!("{version:.1}"),
        Some(Value::Float(version)) => version.to_string(),
        _ => String::new(),
    };
    if !VERSIONS.contains(&version.as_str())
        && let Some(node) = root.member("_format_version")
    {
        report.wrong("_format_version", node, "\"1.1\", \"2.1\", \"3.0\"");
    }
    let consumers = match root.member("consumers") {
        Some(node) if node.value != Value::Null => Consumers::read(node, "consumers", true, &mut report),
        _ => Consumers::none(),
    };
    let empty = Node { value: Value::Object(Vec::new()) };
    match choose(root, loader.select.as_deref()) {
        Ok(plugin) => {
            let config = plugin.config.filter(|node| node.value != Value::Null).unwrap_or(&empty);
            let config = Config::read(config, loader, report, Some(Profile::Kong))?;
            Ok(Document { config, consumers })
        }
        Err(problem) => {
            report.error("", problem);
            Err(report.finish().err().unwrap_or_else(|| ConfigError::one("", "cannot be used")))
        }
    }
}

/// One configured plugin, and what it is for.
#[derive(Debug)]
struct Plugin<'n> {
    scope: Scope<'n>,
    config: Option<&'n Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope<'n> {
    Global,
    Service(&'n str),
    Route(&'n str),
    /// Of a consumer, or of something without a name.
    Other,
}

impl Scope<'_> {
    fn shown(self) -> String {
        match self {
            Self::Global => "at the top level".to_owned(),
            Self::Service(name) => format!("service={}", name.escape_debug()),
            Self::Route(name) => format!("route={}", name.escape_debug()),
            Self::Other => "of something without a name".to_owned(),
        }
    }
}

fn choose<'n>(root: &'n Node, select: Option<&str>) -> Result<Plugin<'n>, String> {
    let mut plugins = Vec::new();
    read(root, &mut plugins);
    let listed = || plugins.iter().map(|plugin| plugin.scope.shown()).collect::<Vec<_>>().join(", ");
    if plugins.is_empty() {
        return Err(format!("holds no enabled plugin `{PLUGIN}`"));
    }
    let chosen = match select {
        None if plugins.len() == 1 => Some(0),
        None => {
            return Err(format!(
                "holds several plugins `{PLUGIN}`: {}; name one with `#route=` or `#service=`",
                listed()
            ));
        }
        Some(select) => {
            let scope = match select.split_once('=') {
                Some(("route", name)) => Scope::Route(name),
                Some(("service", name)) => Scope::Service(name),
                _ => return Err(format!("{} is neither `route=NAME` nor `service=NAME`", clipped(select))),
            };
            plugins.iter().position(|plugin| plugin.scope == scope)
        }
    };
    match chosen {
        Some(at) if at < plugins.len() => Ok(plugins.swap_remove(at)),
        _ => {
            Err(format!("holds no enabled plugin `{PLUGIN}` for {}, but: {}", clipped(select.unwrap_or("")), listed()))
        }
    }
}

fn read<'n>(root: &'n Node, plugins: &mut Vec<Plugin<'n>>) {
    read_all(root, plugins);
    // References may be by id: a plugin is known by the name of what it is for.
    let services = elements(root, "services");
    let routes = || services.iter().flat_map(|one| elements(one, "routes")).chain(elements(root, "routes"));
    for plugin in plugins {
        plugin.scope = match plugin.scope {
            Scope::Service(id) => Scope::Service(named(services.iter(), id)),
            Scope::Route(id) => Scope::Route(named(routes(), id)),
            other => other,
        };
    }
}

/// The name of what has this id, or the text itself.
fn named<'n>(mut all: impl Iterator<Item = &'n Node>, id: &'n str) -> &'n str {
    all.find(|one| one.member("id").and_then(Node::text) == Some(id)).and_then(name).unwrap_or(id)
}

fn read_all<'n>(root: &'n Node, plugins: &mut Vec<Plugin<'n>>) {
    for service in elements(root, "services") {
        read_plugins(service, name(service).map_or(Scope::Other, Scope::Service), plugins);
        for route in elements(service, "routes") {
            read_plugins(route, name(route).map_or(Scope::Other, Scope::Route), plugins);
        }
    }
    for route in elements(root, "routes") {
        read_plugins(route, name(route).map_or(Scope::Other, Scope::Route), plugins);
    }
    for consumer in elements(root, "consumers") {
        read_plugins(consumer, Scope::Other, plugins);
    }
    read_plugins(root, Scope::Global, plugins);
}

fn read_plugins<'n>(holder: &'n Node, scope: Scope<'n>, plugins: &mut Vec<Plugin<'n>>) {
    for plugin in elements(holder, "plugins") {
        let is_ours = plugin.member("name").and_then(Node::text) == Some(PLUGIN);
        let is_disabled = plugin.member("enabled").is_some_and(|node| match &node.value {
            Value::Bool(enabled) => !enabled,
            // What is "no" in the YAML that Kong reads is text in that of today.
            Value::String(text) => ["no", "off", "n", "false"].iter().any(|no| text.eq_ignore_ascii_case(no)),
            _ => false,
        });
        if !is_ours || is_disabled {
            continue;
        }
        let scope = if let Some(route) = referred(plugin, "route") {
            Scope::Route(route)
        } else if let Some(service) = referred(plugin, "service") {
            Scope::Service(service)
        } else if referred(plugin, "consumer").is_some() {
            Scope::Other
        } else {
            scope
        };
        plugins.push(Plugin { scope, config: plugin.member("config") });
    }
}

fn elements<'n>(node: &'n Node, name: &str) -> &'n [Node] {
    match node.member(name).map(|node| &node.value) {
        Some(Value::Array(elements)) => elements,
        _ => &[],
    }
}

fn name(node: &Node) -> Option<&str> {
    node.member("name").or_else(|| node.member("id")).and_then(Node::text)
}

/// What `service: NAME` or `service: {name: NAME}` refers to.
fn referred<'n>(node: &'n Node, what: &str) -> Option<&'n str> {
    let reference = node.member(what)?;
    reference.text().or_else(|| name(reference))
}

/// What `{vault://env/NAME}` or `${{ env "NAME" }}` stands for; none if the text refers to nothing.
pub(super) fn reference(text: &str, env: &dyn Fn(&str) -> Result<String, String>) -> Option<Result<String, String>> {
    if let Some(vault) = text.strip_prefix("{vault://").and_then(|rest| rest.strip_suffix('}')) {
        return Some(match vault.split_once('/') {
            Some(("env", name)) if !name.is_empty() && !name.contains(['/', '?', '#']) => {
                env(&name.replace('-', "_").to_ascii_uppercase())
            }
            Some(("env", _)) => Err("refers to the vault `env` in a way that is not supported: \
                                     allowed is {vault://env/NAME}"
                .to_owned()),
            _ => {
                let vault = vault.split('/').next().unwrap_or_default();
                Err(format!("refers to the vault `{}`: only `env` is supported", vault.escape_debug()))
            }
        });
    }
    if !text.contains("${{") {
        return None;
    }
    Some(deck(text, env))
}

/// decK's templates, anywhere in a value.
fn deck(text: &str, env: &dyn Fn(&str) -> Result<String, String>) -> Result<String, String> {
    const ALLOWED: &str = "holds `${{` and is no `${{ env \"NAME\" }}`";
    let mut resolved = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, template)) = rest.split_once("${{") {
        resolved.push_str(before);
        let (inner, behind) = template.split_once("}}").ok_or(ALLOWED)?;
        let name = inner.trim().strip_prefix("env").map(str::trim_start).ok_or(ALLOWED)?;
        let name = name.strip_prefix('"').and_then(|name| name.strip_suffix('"')).ok_or(ALLOWED)?;
        resolved.push_str(&env(name)?);
        rest = behind;
    }
    resolved.push_str(rest);
    Ok(resolved)
}
