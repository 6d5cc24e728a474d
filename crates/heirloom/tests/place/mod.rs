//! A folder in which the command is run: generated data and their vocabulary.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use heirloom_data::synthetic;

/// `train.tsv`, `dev.tsv` and `words/vocab.txt`; gone when it is dropped.
pub(crate) struct Place {
    root: tempfile::TempDir,
}

impl Place {
    /// A new one, with nothing else in it.
    pub(crate) fn with_data() -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        for (name, seed, count) in [("train", 1, 150), ("dev", 2, 40)] {
            let mut text = "sentence\tlabel\n".to_owned();
            for example in synthetic::generate(seed, count) {
                text += &format!("{}\tc{}\n", example.text, example.label);
            }
            place.write(&format!("{name}.tsv"), &text);
        }
        fs::create_dir(place.path("words")).unwrap();
        place.write("words/vocab.txt", &synthetic::vocabulary());
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The command, run here and without the folders of whoever runs the tests; copies lie in `copies`.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_heirloom"));
        command
            .args(arguments)
            .current_dir(self.root.path())
            .env_remove("HEIRLOOM_DATA")
            .env_remove("HEIRLOOM_MODELS")
            .env("HEIRLOOM_CACHE", self.path("copies"));
        command
    }
}
