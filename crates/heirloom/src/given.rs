//! Teachers whose answers lie in a file: opened for a recipe or a plan, and joined to its examples.
//!
//! In: files, and the data as split, limits and second set leave it. Out: a row of logits for each
//! example. Never: an answer to another text.

use std::path::PathBuf;

use heirloom_base::Digest;
use heirloom_data::dataset::Dataset;
use heirloom_data::given::AnswerFile;
use heirloom_data::source::Row;
use heirloom_recipe::{Column, DataPlan};
use heirloom_train::GivenAnswers;

use crate::failure::Failure;

/// What a teacher's file says of a job's examples.
#[derive(Debug)]
pub struct Given {
    /// The file.
    pub path: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// Its answers.
    pub answers: GivenAnswers,
}

/// Reads the file of each teacher that has one. `rows` are those that the examples come from, which
/// an error quotes; `tokenizer` is the digest of the one that the examples are tokenised with.
///
/// # Errors
/// A line that is no answer, or examples without one.
pub fn read(
    files: &[Option<PathBuf>],
    data: &DataPlan,
    (train, meta): (&Dataset, Option<&Dataset>),
    rows: &[&[Row]],
    tokenizer: Digest,
) -> Result<Vec<Option<Given>>, Failure> {
    let name = |column: &Column| match column {
        Column::Name(name) => Some(name.clone()),
        Column::Number(_) => None,
    };
    let names: Vec<Option<String>> = data.texts.iter().map(name).collect();
    let [text, pair] = [names.first(), names.get(1)]
        .map(|name| name.map(|name| name.as_deref().into_iter().collect::<Vec<&str>>()));
    let text = text.unwrap_or_default();
    let key = (tokenizer, data.max_length as usize);
    let text_of = |digest: Digest| {
        let row = rows.iter().copied().flatten().find(|row| row.asked() == digest)?;
        Some(row.text.clone())
    };
    let read = |path: &Option<PathBuf>| {
        let Some(path) = path else { return Ok(None) };
        let file = AnswerFile::read(path, train.labels(), &text, pair.as_deref())?;
        let of = |set, what| Ok::<_, Failure>(file.of(set, what, key, &text_of)?.into());
        let answers = GivenAnswers {
            train: of(train, "training")?,
            meta: meta.map(|set| of(set, "the second set's")).transpose()?,
        };
        Ok(Some(Given { path: path.clone(), digest: file.digest(), answers }))
    };
    files.iter().map(read).collect()
}
