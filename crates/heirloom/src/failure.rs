//! Why a command ended without doing what was asked, and with which exit code.
//!
//! | code | meaning | whose move it is |
//! |---|---|---|
//! | 0 | done as asked | nobody's |
//! | 1 | a bug of ours | ours |
//! | 2 | the recipe or the command cannot work | edit it |
//! | 3 | data or weights are not what they should be | look at the named file |
//! | 4 | the disk or the network said no | make room or mend it; the run is intact |
//! | 5 | training diverged and the plan says stop | change the recipe |
//! | 6 | does not fit in memory | shrink, by the numbers given |
//! | 75 | stopped on request, saved, can go on | resume |

use std::fmt;
use std::path::Path;

use heirloom_base::Digest;

/// A message for the person, and a code for the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The exit code; see the table above.
    pub code: u8,
    /// What, where, and what to do next.
    pub message: String,
}

impl Failure {
    /// A command or recipe that cannot work.
    pub fn usage(message: impl Into<String>) -> Self {
        Self { code: 2, message: message.into() }
    }

    /// Data or weights that are not what they should be.
    pub fn input(message: impl Into<String>) -> Self {
        Self { code: 3, message: message.into() }
    }

    /// What a run folder's plan names in `path` is there and is another thing.
    pub(crate) fn changed(what: &str, path: &Path, was: Digest, is: Digest) -> Self {
        Self::input(format!(
            "{what} `{}` is not the one this run began with (digest {}, was {}); put it back, or \
             begin a new run",
            path.display(),
            is.short(),
            was.short(),
        ))
    }

    /// A bug of ours.
    pub fn bug(message: impl Into<String>) -> Self {
        Self { code: 1, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Errors that know their exit code become failures as they are.
macro_rules! from_error {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                Self { code: error.exit_code(), message: error.to_string() }
            }
        }
    )*};
}

from_error!(
    heirloom_recipe::Problems,
    heirloom_recipe::DoesNotFit,
    heirloom_data::Error,
    heirloom_answers::Error,
    heirloom_models::Error,
    heirloom_store::StoreError,
    heirloom_train::Error,
    heirloom_growth::Error
);

impl From<heirloom_report::error::Error> for Failure {
    fn from(error: heirloom_report::error::Error) -> Self {
        Self::input(error.to_string())
    }
}
