//! Text that must not be seen.

use std::fmt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

/// Wiped when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(Zeroizing<String>);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Where `{"env": NAME}` and `{"file": PATH}` are looked up: feature `load` brings one that looks.
pub(crate) trait Sources {
    /// The variable's value; an error says why there is none.
    fn env(&self, name: &str) -> Result<String, String>;
    /// The file's bytes; an error says why there are none.
    fn file(&self, path: &str) -> Result<Vec<u8>, String>;
    /// The PEM file of certificate authorities: its path and its bytes. None where files are not read.
    fn roots(&self, path: &Path) -> Option<Result<(PathBuf, Vec<u8>), String>>;
    /// What a string of the configuration stands for, where it refers to something.
    fn reference(&self, text: &str) -> Option<Result<String, String>>;
}

/// Without feature `load`: nothing is looked up.
pub(crate) struct NoSources;

const NOT_LOADED: &str = "cannot be looked up here: this configuration was not loaded with feature `load`";

impl Sources for NoSources {
    fn env(&self, _: &str) -> Result<String, String> {
        Err(NOT_LOADED.to_owned())
    }

    fn file(&self, _: &str) -> Result<Vec<u8>, String> {
        Err(NOT_LOADED.to_owned())
    }

    fn roots(&self, _: &Path) -> Option<Result<(PathBuf, Vec<u8>), String>> {
        None
    }

    fn reference(&self, _: &str) -> Option<Result<String, String>> {
        None
    }
}
