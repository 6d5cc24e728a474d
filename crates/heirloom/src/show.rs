//! The only file that prints. stdout is data, stderr is talk.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use heirloom::failure::Failure;

/// How a command speaks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Show {
    /// Results as JSON.
    pub(crate) json: bool,
    /// No notes, no progress.
    pub(crate) quiet: bool,
}

impl Show {
    /// A result, as text for people. Ends the program quietly where the reader has gone.
    pub(crate) fn data(&self, text: &str) {
        write_out(text.as_bytes());
    }

    /// A result, as one JSON value per line.
    pub(crate) fn json(&self, value: &impl Serialize) {
        let mut text = serde_json::to_vec(value).expect("a result has text keys");
        text.push(b'\n');
        write_out(&text);
    }

    /// A note for people.
    pub(crate) fn say(&self, text: &str) {
        if !self.quiet {
            // Nobody can be told that stderr is closed.
            let _ = writeln!(io::stderr(), "{text}");
        }
    }

    /// Whether a progress bar makes sense.
    pub(crate) fn has_terminal(&self) -> bool {
        !self.quiet
            && io::stderr().is_terminal()
            && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
    }
}

fn write_out(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    // `heirloom … | head` is not an error.
    if written.is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        std::process::exit(0);
    }
}

/// Prints why a command failed.
pub(crate) fn failure(failure: &Failure) {
    let _ = writeln!(io::stderr(), "error: {failure}");
    if failure.code == 1 {
        let _ = writeln!(
            io::stderr(),
            "\nhint: this is a bug in heirloom; please report it with the command and the recipe"
        );
    }
}
