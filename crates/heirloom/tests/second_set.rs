//! The second set of a balance policy: where it comes from, that a resume finds it again, and that
//! nobody trains on it or is compared on it unawares.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::fs;
use std::path::Path;

use heirloom::data::dataset::overlap;
use heirloom::gather::{Gathered, gather, reopen};
use heirloom::places::Places;
use heirloom::recipe::parse;
use heirloom::second_set;
use heirloom_data::dataset::KeepTexts;

/// Examples of the training file.
const TRAIN: usize = 52;

/// A folder with data, for the models of `fixtures/encoders`, and a vocabulary of theirs.
struct Place {
    root: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        let special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
        let words: Vec<String> =
            special.into_iter().chain((0..55).map(|word| format!("w{word}"))).collect();
        place.write("vocab.txt", &words.join("\n"));
        place.rows("train.tsv", 0..TRAIN);
        place.rows("dev.tsv", 100..110);
        place.rows("second.tsv", 200..208);
        place
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.root.path().join(name), text).unwrap();
    }

    /// Each example has a text of its own, two words that spell its number.
    fn rows(&self, name: &str, examples: std::ops::Range<usize>) {
        let row = |example| format!("w{} w{}\t{}\n", example / 50, example % 50, example % 3);
        self.write(name, &format!("text\tlabel\n{}", examples.map(row).collect::<String>()));
    }

    /// The job of a recipe whose `[objective.balance]` has these keys; none where there are none.
    fn gather(&self, keys: &[&str]) -> Result<Gathered, String> {
        let root = self.root.path().display();
        let teacher = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/encoders");
        let teacher = teacher.join("bert-single");
        let teacher = teacher.display();
        let text = format!(
            "[task]\nkind = \"classification\"\nlabels = [\"0\", \"1\", \"2\"]\n\
             path = '{root}'\ntrain = \"train.tsv\"\nvalidation = \"dev.tsv\"\n\
             text = \"text\"\nlabel = \"label\"\nmax_length = 16\n\
             [tokenizer]\npath = '{root}/vocab.txt'\n\
             [student]\nconfig = {{ model_type = \"bert\", hidden_size = 16, \
             num_hidden_layers = 1, num_attention_heads = 2, max_position_embeddings = 24 }}\n\
             [teacher]\nmodel = '{teacher}'\n\
             [training]\nbatch_size = 4\nmax_steps = 3\n[output]\ndir = '{root}/run'\n"
        );
        let sets: Vec<String> = keys.iter().map(|key| format!("objective.balance.{key}")).collect();
        let recipe = parse("r.toml", &text, &sets).map_err(|problems| problems.to_string())?;
        gather(&recipe, &Places::default(), 1, false).map_err(|failure| failure.to_string())
    }
}

#[test]
fn a_part_of_the_training_set_is_set_apart_and_found_again() {
    let place = Place::new();
    let whole = place.gather(&[]).unwrap().job;
    assert_eq!((whole.train.len(), whole.meta.is_none()), (TRAIN, true));

    let gathered = place.gather(&["policy=rw_kd", "meta.split=0.25"]).unwrap();
    let second = gathered.job.meta.as_ref().unwrap();
    assert_eq!((gathered.job.train.len(), second.len()), (39, 13));
    assert_eq!(overlap(&gathered.job.train, second).count, 0);
    assert_eq!(gathered.job.plan.examples.train, 39);
    let note = "the second set has 13 examples; 39 are trained on";
    assert!(gathered.notes.contains(&note.to_owned()), "{:?}", gathered.notes);
    assert_ne!(gathered.job.plan.examples.digest, whole.plan.examples.digest);

    // Runs of other seeds are of one recipe, and set the same examples apart.
    for seed in [42, 7] {
        let plan = gathered.job.plan.with_seed(seed);
        let again = reopen(&plan, &Places::default(), KeepTexts::No).unwrap().job;
        assert_eq!(again.train.digest(), gathered.job.train.digest());
        assert_eq!(again.meta.unwrap().digest(), second.digest());
    }
    // Another share is another set of examples to train on.
    let mut plan = gathered.job.plan.clone();
    let meta = plan.objective.balance.as_mut().unwrap().meta.as_mut().unwrap();
    meta.source = heirloom::recipe::MetaSource::Split(0.2);
    let refused = reopen(&plan, &Places::default(), KeepTexts::No).unwrap_err().to_string();
    assert!(refused.contains("is not the one this run began with"), "{refused}");
}

#[test]
fn a_file_of_its_own_is_read_like_the_training_file_and_must_stay_as_it_is() {
    let place = Place::new();
    let keys = ["policy=l2rw", "meta.source=file", "meta.path=second.tsv"];
    let gathered = place.gather(&keys).unwrap();
    assert_eq!(gathered.job.train.len(), TRAIN);
    assert_eq!(gathered.job.meta.as_ref().unwrap().len(), 8);
    assert!(reopen(&gathered.job.plan, &Places::default(), KeepTexts::No).is_ok());
    place.rows("second.tsv", 200..209);
    let refused =
        reopen(&gathered.job.plan, &Places::default(), KeepTexts::No).unwrap_err().to_string();
    assert!(refused.contains("is not the one this run began with"), "{refused}");

    // What is trained on is aligned with itself, which a person should hear.
    place.rows("second.tsv", 50..60);
    let notes = place.gather(&keys).unwrap().notes;
    let note = "the second set has 10 examples, 2 with a text that is also in the training set; 52 \
                are trained on";
    assert!(notes.contains(&note.to_owned()), "{notes:?}");
}

#[test]
fn the_training_set_itself_needs_no_second_one() {
    let gathered = Place::new().gather(&["policy=tgeo_kd", "meta.source=train"]).unwrap();
    assert_eq!((gathered.job.train.len(), gathered.job.meta.is_none()), (TRAIN, true));
}

#[test]
fn a_second_set_that_cannot_teach_or_that_models_are_compared_on_is_refused() {
    let place = Place::new();
    let file = ["policy=l2rw", "meta.source=file", "meta.path=second.tsv"];
    place.rows("second.tsv", 108..112);
    let said = place.gather(&file).unwrap_err();
    let want = "2 of 10 validation examples have a text that is also in the second set; remove \
                them, or set `task.allow_overlap = true`";
    assert!(said.contains(want), "{said}");
    let said = place.gather(&[file[0], file[1], "meta.path=secnd.tsv"]).unwrap_err();
    assert!(said.contains("the nearest name is `second.tsv`"), "{said}");
    place.rows("train.tsv", 0..1);
    let said = place.gather(&["policy=rw_kd"]).unwrap_err();
    let want = "the second set has no example; raise `split` in [objective.balance.meta]";
    assert!(said.contains(want), "{said}");
}

#[test]
fn what_a_policy_keeps_is_counted_in_memory() {
    let place = Place::new();
    let memory =
        |keys: &[&str]| second_set::memory(&place.gather(keys).unwrap().job.plan, 1000, 70);
    assert_eq!(memory(&[]), 0);
    assert_eq!(memory(&["policy=wsl"]), 0);
    // Two numbers of 64 bits for each example.
    let closed = ["policy=rw_kd", "meta.source=train", "meta.estimator=last_layer"];
    assert_eq!(memory(&closed), 16 * TRAIN as u64);
    // One, and a copy of the weights. 5 of 52 examples are set apart.
    assert_eq!(memory(&["policy=l2rw"]), 8 * 47 + 4 * 1000);
    // And a gradient of the coming step, of the table too.
    assert_eq!(memory(&["policy=l2rw", "meta.at=ahead"]), 8 * 47 + 4 * (1000 + 1070));
}
