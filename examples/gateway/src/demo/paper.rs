//! What the tour is written on: standard output, in colours if it is a terminal.

use std::io::{self, IsTerminal};

use crate::gateway::print;

#[derive(Clone, Copy)]
pub(super) struct Paper {
    colours: bool,
}

impl Paper {
    pub(super) fn new() -> Self {
        Self { colours: io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() }
    }

    pub(super) fn line(self, text: &str) {
        print(text);
    }

    pub(super) fn title(self, text: &str) {
        print(&self.bold(text));
    }

    /// For what must not be overlooked.
    pub(super) fn loud(self, text: &str) {
        print(&self.paint("1;33", text));
    }

    pub(super) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn green(self, text: &str) -> String {
        self.paint("32", text)
    }

    pub(super) fn red(self, text: &str) -> String {
        self.paint("31", text)
    }

    pub(super) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
