//! Two small decoders that read the same words, and texts of these.

use std::fs;
use std::path::Path;

use crate::place::Place;

/// A folder with decoders of two kinds of these names, LLaMA's and GPT-2's, with a tokenizer of as many
/// words, and `text/train.txt` and `text/valid.txt`.
pub(crate) fn place(names: [&str; 2]) -> Place {
    let place = Place::with_data();
    let words = (5..60).map(|at| format!("w{at}\n")).collect::<String>();
    for (name, case) in names.into_iter().zip(["llama", "gpt2"]) {
        fs::create_dir(place.path(name)).unwrap();
        let fixture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/decoders").join(case);
        for file in ["config.json", "model.safetensors"] {
            fs::copy(fixture.join(file), place.path(name).join(file)).unwrap();
        }
        let vocabulary = format!("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n{words}");
        place.write(&format!("{name}/vocab.txt"), &vocabulary);
    }
    fs::create_dir(place.path("text")).unwrap();
    for (name, first) in [("train", 0), ("valid", 1000)] {
        let line = |at: usize| {
            let word = |word: usize| format!("w{}", 5 + (at * 31 + word * word * 7) % 55);
            (0..9 + at % 7).map(word).collect::<Vec<_>>().join(" ") + "\n\n"
        };
        let text: String = (first..first + 90).map(line).collect();
        place.write(&format!("text/{name}.txt"), &text);
    }
    place
}
