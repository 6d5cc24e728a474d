//! How well a language model foresees text: sums over all its tokens, never a mean of means.

use heirloom_base::Bytes;
use heirloom_data::order::BatchRule;
use heirloom_data::pack::micro_ranges;
use heirloom_data::text::{Row, Rows};
use heirloom_engine::Device;
use heirloom_models::Purpose;
use heirloom_objective::{Parts, TokenCounts, TokenLoss, TokenTerm};

use super::job::LanguageConfig;
use super::network::{LanguageCapacity, Network, Planned, TextPass, bytes_needed};
use crate::EVALUATION_TOKENS;

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

/// Loss and mistakes.
const TERMS: [TokenTerm; 2] = [
    TokenTerm { weight: 1.0, loss: TokenLoss::Label },
    TokenTerm { weight: 1.0, loss: TokenLoss::Misses },
];

/// Room for evaluating one model.
#[derive(Debug)]
pub(super) struct Examiner {
    pass: TextPass,
    row: Vec<Row>,
}

impl Examiner {
    /// Plans for the rows of `rows`.
    pub(super) fn new(device: &mut dyn Device, network: &Network, rows: &dyn Rows) -> Self {
        let planned = Planned { capacity: capacity(rows), purpose: &Purpose::Infer, teacher: None };
        let mut pass = TextPass::new(device, network, planned);
        pass.set_terms(&TERMS);
        Self { pass, row: Vec::new() }
    }

    /// How well `network` foresees `rows`.
    pub(super) fn foresee(
        &mut self,
        device: &mut dyn Device,
        network: &Network,
        rows: &dyn Rows,
    ) -> Foreseen {
        let all: Vec<u32> = (0..rows.len() as u32).collect();
        let (mut found, mut parts) = (Foreseen::default(), Parts::default());
        for range in micro_ranges(rows, &all, BatchRule::Tokens(EVALUATION_TOKENS)) {
            self.row.resize_with(range.len().max(self.row.len()), Row::default);
            let row = &mut self.row[..range.len()];
            for (row, at) in row.iter_mut().zip(range.clone()) {
                rows.read(at, row);
                found.bytes += row.bytes;
            }
            self.pass.host.refill(row, 0, network.masked());
            let learnt = self.pass.host.learnt;
            if learnt == 0 {
                continue;
            }
            found.tokens += learnt;
            let counts = TokenCounts { labelled: learnt, taught: 0 };
            parts.add(&self.pass.run(device, network, None, counts, (None, None)));
        }
        if let [nats, misses] = parts.terms() {
            found.nats = nats.sum_of_parts();
            found.misses = misses.sum_of_parts().round() as u64;
        }
        found
    }
}

fn capacity(rows: &dyn Rows) -> LanguageCapacity {
    let longest = (0..rows.len()).map(|row| rows.length(row)).max().unwrap_or(1);
    let total: usize = (0..rows.len()).map(|row| rows.length(row)).sum();
    LanguageCapacity { tokens: EVALUATION_TOKENS.min(total).max(longest).max(1) }
}

/// Memory that the evaluation of `rows` needs besides the weights.
pub(super) fn memory(config: &LanguageConfig, rows: &dyn Rows) -> Bytes {
    bytes_needed(config, None, capacity(rows), &Purpose::Infer)
}
