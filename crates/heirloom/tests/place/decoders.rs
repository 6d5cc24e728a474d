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

/// A recipe of a small student on these texts, in rows of `length` tokens of the model `tokenizer`, with
/// teachers as they are written. `rest` stands behind `alpha`, where the run is not the usual one, which looks
/// at its student twice and can be gone on with from every second step.
pub(crate) fn recipe(
    (tokenizer, length): (&str, u64),
    teachers: &str,
    rest: Option<&str>,
) -> String {
    const USUAL: &str = "temperature = 2.0\n\
        [training]\nmax_steps = 8\nbatch_size = 6\nmicro_batch_size = 4\nlearning_rate = 0.01\n\
        save_steps = 2\nsave_total_limit = 9\neval_steps = 4\neval_strategy = \"steps\"\nseed = 7\n";
    let rest = rest.unwrap_or(USUAL);
    format!(
        "[text]\nkind = \"causal\"\npath = \"text\"\ntrain = [\"train.txt\"]\n\
         validation = [\"valid.txt\"]\ndocuments = \"blank_line\"\nsequence_length = {length}\n\
         [tokenizer]\npath = \"{tokenizer}\"\n[student]\nconfig = {{ model_type = \"gpt2\", \
         hidden_size = 16, num_hidden_layers = 1, num_attention_heads = 2 }}\n\
         {teachers}[objective]\nalpha = 0.6\n{rest}"
    )
}
