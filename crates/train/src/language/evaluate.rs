//! How well a language model foresees text: sums over all its tokens, never a mean of means.

use std::ops::Range;
use std::path::Path;

use heirloom_base::Bytes;
use heirloom_data::order::BatchRule;
use heirloom_data::pack::micro_ranges;
use heirloom_data::text::{Masked, Masker, Row, Rows};
use heirloom_engine::Device;
use heirloom_models::Purpose;
use heirloom_objective::{Parts, TokenCounts, TokenLoss, TokenTerm};
use heirloom_recipe::Masking;

use super::capacity::{LanguageCapacity, longest};
use super::inside::{Gradients, StepCounts};
use super::job::{LanguageConfig, LanguageWeights};
use super::masking::hide;
use super::network::Network;
use super::pass::{Planned, TextPass, bytes_needed};
use crate::{EVALUATION_TOKENS, Error};

/// What a language model foresaw of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Foreseen {
    /// Tokens that had something to foresee.
    pub tokens: u64,
    /// Bytes of text that they stand for; 0 where nobody knows, as of guessed tokens.
    pub bytes: u64,
    /// Sum of their losses, `−ln p`, in nats.
    pub nats: f64,
    /// How many of them were not the likeliest token.
    pub misses: u64,
}

/// How well the model in `folder`, of this `config`, foresees `rows`; with a masker, whose rule is
/// `masking`, what it guesses of them.
///
/// # Errors
/// Where the weights cannot be read or are not those of the config.
pub fn foresee(
    device: &mut dyn Device,
    (folder, config): (&Path, &LanguageConfig),
    rows: &dyn Rows,
    (masker, masking): (Option<&Masker>, Option<Masking>),
) -> Result<Foreseen, Error> {
    let network = Network::new(device, config);
    let weights = LanguageWeights::Folder(folder.to_owned());
    network.fill(device, &weights, 0, None)?;
    let mut examiner = Examiner::new(device, &network, rows, masking);
    Ok(examiner.foresee(device, &network, rows, masker))
}

/// Loss and mistakes.
const TERMS: [(TokenTerm, usize); 2] = [
    (TokenTerm { weight: 1.0, loss: TokenLoss::Label }, 0),
    (TokenTerm { weight: 1.0, loss: TokenLoss::Misses }, 0),
];

/// Room for evaluating one model.
#[derive(Debug)]
pub(super) struct Examiner {
    pass: TextPass,
    capacity: LanguageCapacity,
    rows: Vec<Row>,
    masked: Masked,
}

impl Examiner {
    /// Plans for the rows of `rows`, of which `masking` hides some.
    pub(super) fn new(
        device: &mut dyn Device,
        network: &Network,
        rows: &dyn Rows,
        masking: Option<Masking>,
    ) -> Self {
        let capacity = capacity(rows, masking);
        let purpose = &Purpose::Infer;
        let planned = Planned { capacity, purpose, teachers: &[], inside: None };
        let mut pass = TextPass::new(device, network, planned, None);
        pass.set_terms(&TERMS);
        Self { pass, capacity, rows: Vec::new(), masked: Masked::default() }
    }

    /// How well `network` foresees `rows`; with a masker, what it guesses of them.
    pub(super) fn foresee(
        &mut self,
        device: &mut dyn Device,
        network: &Network,
        rows: &dyn Rows,
        masker: Option<&Masker>,
    ) -> Foreseen {
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        let (mut found, mut parts) = (Foreseen::default(), Parts::default());
        for range in micro_ranges(rows, &all, BatchRule::Tokens(EVALUATION_TOKENS)) {
            self.read(rows, range.clone(), masker);
            for part in self.capacity.fitting(&self.rows, 0..range.len()) {
                let batch = &self.rows[part];
                found.bytes += batch.iter().map(|row| row.bytes).sum::<u64>();
                self.pass.host.refill(batch, 0, network.masked());
                let learnt = self.pass.host.learnt;
                if learnt == 0 {
                    continue;
                }
                found.tokens += learnt;
                let counts = StepCounts::of_tokens(TokenCounts { labelled: learnt, taught: 0 });
                parts.add(&self.pass.run(device, network, &[], counts, Gradients::default()));
            }
        }
        if let [nats, misses] = parts.terms() {
            found.nats = nats.sum_of_parts();
            found.misses = misses.sum_of_parts().round() as u64;
        }
        found
    }

    /// Reads the rows of `range`, and hides some of their tokens.
    fn read(&mut self, rows: &dyn Rows, range: Range<usize>, masker: Option<&Masker>) {
        self.rows.resize_with(range.len().max(self.rows.len()), Row::default);
        for (row, at) in self.rows.iter_mut().zip(range) {
            rows.read(at, row);
            if let Some(masker) = masker {
                // All evaluations are of one step, in which each row has its own place.
                hide(masker, 0, at as u32, row, &mut self.masked);
            }
        }
    }
}

fn capacity(rows: &dyn Rows, masking: Option<Masking>) -> LanguageCapacity {
    let total: usize = (0..rows.len()).map(|row| rows.length(row)).sum();
    let longest = longest(rows);
    LanguageCapacity::new(EVALUATION_TOKENS.min(total).max(longest), longest, masking)
}

/// Memory that the evaluation of `rows` needs besides the weights.
pub(super) fn memory(config: &LanguageConfig, rows: &dyn Rows, masking: Option<Masking>) -> Bytes {
    bytes_needed(config, (&[], None), capacity(rows, masking), &Purpose::Infer)
}
