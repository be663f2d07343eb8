//! What the tour is written on: standard output, in colours if it is a terminal.

use std::io::{self, IsTerminal};

use crate::gateway::print;

/// Characters of a line of headers.
const WIDTH: usize = 118;

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

    /// Words behind a label, on as many lines as they need. None is broken.
    pub(super) fn words(self, label: &str, words: &[String]) {
        let mut line = label.to_owned();
        let mut is_first = true;
        for word in words {
            if !is_first && line.len() + 3 + word.len() > WIDTH {
                self.line(&self.dim(&line));
                line = " ".repeat(label.len());
                is_first = true;
            }
            if !is_first {
                line.push_str("   ");
            }
            line.push_str(word);
            is_first = false;
        }
        self.line(&self.dim(&line));
    }

    /// For what must not be overlooked.
    pub(super) fn loud(self, text: &str) -> String {
        self.paint("1;33", text)
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

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
