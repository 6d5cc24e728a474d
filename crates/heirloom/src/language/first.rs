//! Which rows come first: those that a small model finds hard and not hopeless.
//!
//! In: a small model's answers to all rows, kept. Out: the same rows, of which some come before all
//! others in the first epoch. Never: a row left out, or answers to other rows believed.
//!
//! A row's score is the median of the small model's loss over the tokens that are among its k likeliest
//! (Rawat et al. 2024, arXiv:2410.18779, their selection of "challenging yet learnable" sequences, k = 10):
//! what it would never have said is noise, or knowledge that it cannot pass on. The rows with the
//! largest scores come first, while the small model still teaches.

use std::sync::Arc;

use heirloom_answers::{About, Expected, Kept, Kind, KnownRows};
use heirloom_base::Digest;
use heirloom_data::text::{NOT_LEARNT, Row, Rows};
use heirloom_data::tokens::Tokenizer;
use heirloom_recipe::{FirstPlan, FirstRows};
use rayon::prelude::*;

use crate::elsewhere::Named;
use crate::failure::Failure;
use crate::places::Places;

/// Rows of which some come first.
struct Led {
    rows: Arc<dyn Rows>,
    first: Vec<u32>,
}

impl Rows for Led {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn length(&self, row: usize) -> usize {
        self.rows.length(row)
    }

    fn read(&self, row: usize, into: &mut Row) {
        self.rows.read(row, into);
    }

    fn digest(&self) -> Digest {
        self.rows.digest()
    }

    fn first(&self) -> &[u32] {
        &self.first
    }
}

/// `rows` in the order that `plan` wants, and which of them come first: the same as before, where the
/// plan says which those were.
///
/// # Errors
/// Where the answers are others, too few, or not to all rows; where they choose other rows than before.
pub fn led(
    plan: &FirstPlan,
    rows: Arc<dyn Rows>,
    (tokenizer, template): (&Tokenizer, Option<Digest>),
    places: &Places,
) -> Result<(Arc<dyn Rows>, FirstPlan), Failure> {
    let kept = open(plan, &*rows, (tokenizer, template), places)?;
    let scores = scores(&kept, &*rows, plan.top_k)?;
    let first = hardest(&scores, plan.share);
    let bytes: Vec<u8> = first.iter().flat_map(|row| row.to_le_bytes()).collect();
    let found = FirstRows { count: first.len() as u64, digest: Digest::of(&bytes) };
    if let Some(was) = plan.rows.filter(|was| *was != found) {
        let what = "choice of the rows that come first, by the answers";
        return Err(Failure::changed(what, kept.folder(), was.digest, found.digest));
    }
    Ok((Arc::new(Led { rows, first }), FirstPlan { rows: Some(found), ..plan.clone() }))
}

fn open(
    plan: &FirstPlan,
    rows: &dyn Rows,
    (tokenizer, template): (&Tokenizer, Option<Digest>),
    places: &Places,
) -> Result<Kept, Failure> {
    const KEY: &str = "text.first.answers";
    // Of whatever vocabulary they are: who reads the run's tokens knows its labels.
    let expected = |about: &About| Expected {
        teacher: None,
        tokenizer: tokenizer.digest(),
        rows: rows.digest(),
        chat_template: template,
        temperature: 1.0,
        vocabulary: about.vocabulary,
    };
    let named = Named::find(KEY, &plan.answers, places)?;
    let kept = named.open(&expected(&named.about()?))?;
    let shown = kept.folder().display();
    let again = "`heirloom cache --all --top-k N`";
    match kept.about().kind {
        Kind::TopK { k } if u64::from(k) >= plan.top_k => {}
        Kind::TopK { k } => {
            return Err(Failure::usage(format!(
                "`text.first.top_k` is {}, and the answers in `{shown}` name {k} tokens; lower it, or keep \
                 them again with {again}",
                plan.top_k
            )));
        }
        Kind::Samples { .. } | Kind::States { .. } => {
            return Err(Failure::usage(format!(
                "`{KEY}` is `{shown}`, which does not say which tokens are the likeliest; keep answers with \
                 {again}"
            )));
        }
    }
    let missing = (0..rows.len()).filter(|&row| !kept.held().has(row)).count();
    if missing > 0 {
        return Err(Failure::input(format!(
            "the answers in `{shown}` miss {missing} of {} rows, and all must be compared; add them with \
             {again}",
            rows.len()
        )));
    }
    Ok(kept)
}

/// The score of every row; below all others where it has no token that counts.
fn scores(kept: &Kept, rows: &dyn Rows, top_k: u64) -> Result<Vec<f64>, Failure> {
    let width = kept.about().width();
    let score = |(read, known): &mut (Row, KnownRows), row: usize| {
        read.clear();
        known.clear();
        rows.read(row, read);
        kept.read_known(row, 0..read.labels.len(), known)?;
        let tokens = known.ids.chunks(width).zip(known.probabilities.chunks(width));
        let losses = read.labels.iter().zip(tokens).filter_map(|(&label, (ids, probabilities))| {
            if label == NOT_LEARNT { None } else { loss(label, ids, probabilities, top_k) }
        });
        Ok::<_, heirloom_answers::Error>(median(losses.collect()).unwrap_or(f64::NEG_INFINITY))
    };
    let all = (0..rows.len()).into_par_iter();
    Ok(all.map_init(Default::default, score).collect::<Result<Vec<f64>, _>>()?)
}

/// The loss of a token that is among the `top_k` likeliest of those that an answer names.
fn loss(label: u32, ids: &[u32], probabilities: &[f32], top_k: u64) -> Option<f64> {
    let p = probabilities[ids.iter().position(|&id| id == label)?];
    let before = probabilities.iter().filter(|&&other| other > p).count() as u64;
    (before < top_k && p > 0.0).then(|| -f64::from(p).ln())
}

fn median(mut of: Vec<f64>) -> Option<f64> {
    of.sort_by(f64::total_cmp);
    let (low, high) = (of.get(of.len().checked_sub(1)? / 2)?, of.get(of.len() / 2)?);
    Some((low + high) / 2.0)
}

/// The rows with the largest scores, so large a share of all; ascending. Of equal ones the earlier.
fn hardest(scores: &[f64], share: f64) -> Vec<u32> {
    let mut rows: Vec<u32> = (0..scores.len() as u32).collect();
    rows.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
    rows.truncate((share * scores.len() as f64).round() as usize);
    rows.sort_unstable();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_counts_where_it_is_among_the_likeliest() {
        let (ids, p) = ([2, 5, 9, 11], [0.1, 0.5, 0.25, 0.15]);
        assert_eq!(loss(5, &ids, &p, 1), Some(-(0.5f64.ln())));
        assert_eq!(loss(9, &ids, &p, 1), None);
        assert_eq!(loss(9, &ids, &p, 2), Some(-(0.25f64.ln())));
        assert_eq!(loss(2, &ids, &p, 3), None);
        assert_eq!(loss(7, &ids, &p, 9), None, "not named");
        assert_eq!(loss(2, &[2, 5], &[0.0, 1.0], 9), None, "no answer at all");
    }

    #[test]
    fn medians_and_the_rows_that_have_the_largest() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 9.0]), Some(3.0));
        assert_eq!(median(vec![3.0, 1.0, 2.0, 9.0]), Some(2.5));
        let scores = [2.0, f64::NEG_INFINITY, 5.0, 3.0, 3.0];
        assert_eq!(hardest(&scores, 0.4), [2, 3]);
        assert_eq!(hardest(&scores, 0.79), [0, 2, 3, 4]);
    }
}
