//! The data of a task, opened: what is trained on, what is looked at, and what a person should hear.
//!
//! In: a plan's data and its folder. Out: data sets, cut, limited and set apart by the examples' places
//! in their files. Never: an example in two of them, where one was taken from the other.

use std::path::{Path, PathBuf};

use heirloom_base::{Digest, Hasher};
use heirloom_data::dataset::{Dataset, KeepTexts, NoiseKind, overlap};
use heirloom_data::label::Labels;
use heirloom_data::source::Rows;
use heirloom_data::tokens::Tokenizer;
use heirloom_recipe::{
    DataPlan, EvaluateOn, LabelNoise, LabelNoiseKind, Limit, MetaSource, Split, Unlabelled,
};
use heirloom_train::OwnTokens;

use crate::failure::Failure;
use crate::given::{self, Given};
use crate::opened::{dataset, known_labels, labels, rows, unlabelled_rows};
use crate::second_set;

/// How the note of label noise begins, which a run says again whenever it goes on.
pub const LABEL_NOISE: &str = "LABEL NOISE";

/// What was opened, before and after there is a plan.
pub(super) struct Opened {
    pub(super) data: DataPlan,
    pub(super) tokenizer: Tokenizer,
    pub(super) train: Dataset,
    pub(super) validation: Option<Dataset>,
    /// The second set of a balance policy, where it is not the training set itself.
    pub(super) meta: Option<Dataset>,
    /// For each teacher, the same examples in its own tokens, where it reads those.
    pub(super) own: Vec<Option<OwnTokens>>,
    /// For each teacher, what its file says, where it has one in place of a model.
    pub(super) given: Vec<Option<Given>>,
    pub(super) notes: Vec<String>,
}

/// The part of the training set that is held out is drawn by a seed of its own, so that the runs
/// of several seeds hold out the same examples.
pub(crate) const SPLIT_SEED: u64 = 0;

/// Likewise for limits.
const LIMIT_SEED: u64 = 1;

pub(super) fn data_digest(opened: &Opened) -> Digest {
    let mut hasher = Hasher::new();
    for set in [Some(&opened.train), opened.validation.as_ref()].into_iter().flatten() {
        hasher.part(set.digest().to_string().as_bytes());
    }
    if let Some(set) = &opened.meta {
        // So that it is not taken for a validation set where there is none.
        hasher.part(b"meta").part(set.digest().to_string().as_bytes());
    }
    hasher.digest()
}

/// Opens a task's data. `own` are the tokenizers of teachers that read with theirs, and `answers` the files of
/// those that are files.
///
/// # Errors
/// What is missing, or cannot be read; examples in the training and validation sets where that is not
/// allowed.
pub(super) fn open_data(
    data: DataPlan,
    second: Option<&MetaSource>,
    folder: &Path,
    tokenizer: Tokenizer,
    (own, answers): (&[Option<&Tokenizer>], &[Option<PathBuf>]),
    keep: KeepTexts,
) -> Result<Opened, Failure> {
    let train_rows = rows(&data, folder, &data.train, known_labels(&data).as_ref())?;
    let texts = match &data.unlabelled {
        Unlabelled::Nothing => None,
        Unlabelled::Some { file, limit } => Some((unlabelled_rows(&data, folder, file)?, *limit)),
    };
    let labels = labels(&data, &train_rows)?;
    let files = Files { data: &data, second, folder, labels, train: train_rows, texts, keep };
    let Cut { train, held, meta } = files.cut(&tokenizer)?;
    let given = {
        let texts = files.texts.as_ref().map_or(&[][..], |(texts, _)| &texts.rows);
        let (sets, rows) = ((&train, meta.as_ref()), [&files.train.rows[..], texts]);
        given::read(answers, &data, sets, &rows, tokenizer.digest())?
    };
    let own = own.iter().map(|tokenizer| {
        let Some(tokenizer) = tokenizer else { return Ok(None) };
        let Cut { train, meta, .. } = files.cut(tokenizer)?;
        Ok(Some(OwnTokens { train: train.into(), meta: meta.map(Into::into) }))
    });
    let own: Vec<Option<OwnTokens>> = own.collect::<Result<_, Failure>>()?;
    let validation = match (data.evaluate_on, data.validation.first()) {
        (EvaluateOn::Split, _) | (EvaluateOn::Validation, None) => held,
        (EvaluateOn::Validation, Some(file)) => Some(files.read(file, &tokenizer, keep)?),
    };
    let validation = validation.map(|set| limited(set, data.validation_limit));
    let mut notes = about(&train, validation.as_ref(), meta.as_ref(), second, &data);
    notes.extend(overlaps(&train, validation.as_ref(), meta.as_ref(), data.allow_overlap)?);
    Ok(Opened { data, tokenizer, train, validation, meta, own, given, notes })
}

/// The files that are trained on, read and not yet tokenised.
struct Files<'a> {
    data: &'a DataPlan,
    second: Option<&'a MetaSource>,
    folder: &'a Path,
    labels: Labels,
    train: Rows,
    /// Those without a label, and how many are used.
    texts: Option<(Rows, Limit)>,
    keep: KeepTexts,
}

/// What becomes of the files that are trained on.
struct Cut {
    train: Dataset,
    held: Option<Dataset>,
    meta: Option<Dataset>,
}

impl Files<'_> {
    /// The examples in the tokens of `tokenizer`: the same ones in each set, whose tokens they are.
    fn cut(&self, tokenizer: &Tokenizer) -> Result<Cut, Failure> {
        let whole = self.build(&self.train, tokenizer)?;
        let (train, held) = match self.data.validation_split {
            Split::Nothing => (with_label_noise(whole, self.data), None),
            Split::Share(share) => {
                let (train, held) = whole.split_indexes(share, SPLIT_SEED);
                // Noise goes by an example's place in the file, and what is held out stays as it is.
                let held = whole.select(&held);
                (with_label_noise(whole, self.data).select(&train), Some(held))
            }
        };
        let train = limited(train, self.data.train_limit);
        let read = |file: &String| self.read(file, tokenizer, KeepTexts::No);
        let (train, meta) = second_set::take(train, self.second, read)?;
        let train = match &self.texts {
            None => train,
            Some((texts, limit)) => {
                train.followed_by(&limited(self.build(texts, tokenizer)?, *limit))
            }
        };
        Ok(Cut { train, held, meta })
    }

    fn build(&self, rows: &Rows, tokenizer: &Tokenizer) -> Result<Dataset, Failure> {
        let max_length = self.data.max_length as usize;
        Ok(Dataset::build(rows, self.labels.clone(), tokenizer, max_length, self.keep)?)
    }

    /// Another file with labels.
    fn read(
        &self,
        file: &String,
        tokenizer: &Tokenizer,
        keep: KeepTexts,
    ) -> Result<Dataset, Failure> {
        let files = std::slice::from_ref(file);
        dataset(self.data, self.folder, files, &self.labels, tokenizer, keep)
    }
}

/// What a person should hear of the sets.
fn about(
    train: &Dataset,
    validation: Option<&Dataset>,
    meta: Option<&Dataset>,
    second: Option<&MetaSource>,
    data: &DataPlan,
) -> Vec<String> {
    let mut notes: Vec<String> = meta.iter().map(|set| second_set::about(set, train)).collect();
    let labelled = train.len() - train.unlabelled();
    if train.has_label_noise() {
        notes.push(format!(
            "{LABEL_NOISE}: {} of {labelled} training labels are wrong on purpose (`task.label_noise`)",
            train.noisy_labels(),
        ));
    }
    let sets = [
        ("training", Some(train)),
        ("validation", validation),
        // What is split off the training set was read with it.
        ("second set's", meta.filter(|_| matches!(second, Some(MetaSource::File(_))))),
    ];
    for (name, set) in sets {
        let Some(set) = set else { continue };
        if set.skipped() > 0 {
            notes.push(format!("{} lines of the {name} files were skipped", set.skipped()));
        }
        if set.truncated() > 0 {
            notes.push(format!(
                "{} of {} {name} examples are longer than max_length = {} and were cut",
                set.truncated(),
                set.len(),
                data.max_length,
            ));
        }
    }
    let without = train.classes_without_examples();
    if labelled > 0 && !without.is_empty() {
        notes.push(format!("no training example has the label {}", without.join(", ")));
    }
    notes
}

/// Which validation examples are trained on as well.
///
/// # Errors
/// Where there are any and that is not `allowed`.
fn overlaps(
    train: &Dataset,
    validation: Option<&Dataset>,
    meta: Option<&Dataset>,
    allowed: bool,
) -> Result<Vec<String>, Failure> {
    let mut notes = Vec::new();
    for (name, set) in [("training set", Some(train)), ("second set", meta)] {
        let (Some(validation), Some(set)) = (validation, set) else { continue };
        let both = overlap(set, validation);
        if both.count > 0 {
            let text = format!(
                "{} of {} validation examples have a text that is also in the {name}",
                both.count,
                validation.len(),
            );
            if !allowed {
                return Err(Failure::input(format!(
                    "{text}; remove them, or set `task.allow_overlap = true`"
                )));
            }
            notes.push(text);
        }
    }
    Ok(notes)
}

/// The training set as the plan's label noise leaves it.
fn with_label_noise(set: Dataset, data: &DataPlan) -> Dataset {
    let LabelNoise::Some { share, kind, seed } = data.label_noise else { return set };
    let kind = match kind {
        LabelNoiseKind::Symmetric => NoiseKind::Symmetric,
        LabelNoiseKind::Asymmetric => NoiseKind::Asymmetric,
    };
    set.with_label_noise(heirloom_data::dataset::LabelNoise { share, kind, seed })
}

fn limited(set: Dataset, limit: Limit) -> Dataset {
    match within_limit(set.len(), limit) {
        None => set,
        Some(chosen) => set.select(&chosen),
    }
}

/// Which of `len` examples a limit keeps, in their order; `None` for all of them.
pub(crate) fn within_limit(len: usize, limit: Limit) -> Option<Vec<u32>> {
    let count = limit.of(len as u64) as usize;
    if count == len {
        return None;
    }
    let order = heirloom_base::permutation(LIMIT_SEED, heirloom_base::Purpose::Split, 0, len);
    let mut chosen = order[..count].to_vec();
    chosen.sort_unstable();
    Some(chosen)
}
