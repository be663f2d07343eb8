//! Kong's declarative files (`_format_version` 1.1, 2.1, 3.0), as Kong itself and decK write them.

use crate::config::node::{Node, Value};
use crate::config::report::Report;
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
        Some(Value::Float(version)) => format!("{version:.1}"),
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
    let mut file = File::default();
    file.read(root);
    let listed = || file.plugins.iter().map(|plugin| plugin.scope.shown()).collect::<Vec<_>>().join(", ");
    let place = |scope: Scope<'_>| file.plugins.iter().position(|plugin| plugin.scope == scope);
    let at = match select {
        _ if file.plugins.is_empty() => {
            return Err(format!("holds no enabled plugin `{PLUGIN}`"));
        }
        None if file.plugins.len() == 1 => Some(0),
        None => {
            return Err(format!("holds several plugins `{PLUGIN}`: {}; name one with `#route=` or `#service=`", listed()));
        }
        Some(select) => {
            let chosen = match select.split_once('=') {
                Some(("route", name)) => {
                    let route = file.routes.iter().find(|(route, _)| *route == name);
                    let service = route.and_then(|(_, service)| *service).map(Scope::Service);
                    // What Kong would run for the route: the nearest one.
                    place(Scope::Route(name))
                        .or_else(|| service.and_then(place))
                        .or_else(|| route.and_then(|_| place(Scope::Global)))
                }
                Some(("service", name)) => place(Scope::Service(name))
                    .or_else(|| file.services.contains(&name).then(|| place(Scope::Global)).flatten()),
                _ => None,
            };
            if chosen.is_none() {
                return Err(format!("holds no plugin `{PLUGIN}` for {}, but: {}", select.escape_debug(), listed()));
            }
            chosen
        }
    };
    let at = at.unwrap_or(0);
    if at < file.plugins.len() { Ok(file.plugins.swap_remove(at)) } else { Err("holds no such plugin".to_owned()) }
}

/// What a file holds, as far as choosing a plugin needs it.
#[derive(Default)]
struct File<'n> {
    plugins: Vec<Plugin<'n>>,
    services: Vec<&'n str>,
    /// Each with its service, if it names one.
    routes: Vec<(&'n str, Option<&'n str>)>,
}

impl<'n> File<'n> {
    fn read(&mut self, root: &'n Node) {
        for service in elements(root, "services") {
            let name = name(service);
            self.services.extend(name);
            self.read_plugins(service, name.map_or(Scope::Other, Scope::Service));
            for route in elements(service, "routes") {
                self.read_route(route, name);
            }
        }
        for route in elements(root, "routes") {
            self.read_route(route, referred(route, "service"));
        }
        for consumer in elements(root, "consumers") {
            self.read_plugins(consumer, Scope::Other);
        }
        self.read_plugins(root, Scope::Global);
    }

    fn read_route(&mut self, route: &'n Node, service: Option<&'n str>) {
        let name = name(route);
        self.routes.extend(name.map(|name| (name, service)));
        self.read_plugins(route, name.map_or(Scope::Other, Scope::Route));
    }

    fn read_plugins(&mut self, holder: &'n Node, scope: Scope<'n>) {
        for plugin in elements(holder, "plugins") {
            let is_ours = plugin.member("name").and_then(Node::text) == Some(PLUGIN);
            let is_disabled = plugin.member("enabled").is_some_and(|node| node.value == Value::Bool(false));
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
            self.plugins.push(Plugin { scope, config: plugin.member("config") });
        }
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
