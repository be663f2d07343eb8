//! Configuration, as JavaScript gives it.

use std::collections::HashMap;

use napi::{Error, Result, Status};
use napi_derive::napi;
use tokenward_core::{Config, Consumers, Loader};

/// Where a configuration comes from: a text or a file.
#[napi(object)]
pub struct Source {
    /// The document's text.
    pub text: Option<String>,
    /// Or the file, with `#route=NAME` or `#service=NAME` where needed.
    pub file: Option<String>,
    /// What relative paths in a text are relative to.
    pub folder: Option<String>,
    /// Which plugin of a Kong file is meant.
    pub select: Option<String>,
    /// The environment's variables.
    pub env: HashMap<String, String>,
    /// Consumers in JSON, in place of the document's own.
    pub consumers: Option<String>,
}

/// Something wrong with a configuration, or probably not meant.
#[napi(object, object_from_js = false)]
pub struct Problem {
    /// Where: `cache.negative_ttl`, or empty for the whole document.
    pub path: String,
    /// What was found, and what is allowed. Of a secret, only its kind.
    pub message: String,
}

impl From<&tokenward_core::Problem> for Problem {
    fn from(problem: &tokenward_core::Problem) -> Self {
        Self { path: problem.path().to_owned(), message: problem.message().to_owned() }
    }
}

/// A configuration and its consumers; `Err` lists everything that is wrong.
pub(crate) fn load(source: Source) -> Result<(Config, Consumers)> {
    let env = source.env;
    let mut loader = Loader::new().environment(move |name| env.get(name).cloned());
    if let Some(folder) = source.folder {
        loader = loader.folder(folder);
    }
    if let Some(select) = source.select {
        loader = loader.select(&select);
    }
    let document = match (source.file, source.text) {
        (Some(file), _) => loader.file(&file),
        (None, text) => loader.text(&text.unwrap_or_default()),
    };
    let given = source.consumers.map(|json| Consumers::from_json(&json)).transpose();
    match (document, given) {
        (Ok(document), Ok(given)) => {
            let (config, own) = document.into_parts();
            Ok((config, given.unwrap_or(own)))
        }
        (document, given) => {
            let errors = document.err().into_iter().chain(given.err());
            Err(refusal(&errors.flat_map(|error| error.problems().to_vec()).collect::<Vec<_>>()))
        }
    }
}

/// The problems in JSON, as the message of an error that `lib/` makes a `ConfigError` of.
pub(crate) fn refusal(problems: &[tokenward_core::Problem]) -> Error {
    let problems: Vec<[&str; 2]> = problems.iter().map(|problem| [problem.path(), problem.message()]).collect();
    Error::new(Status::InvalidArg, serde_json::to_string(&problems).unwrap_or_default())
}
