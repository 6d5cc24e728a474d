//! Whether a grown model computes what the small one did: decided from the plan, before any number
//! is read.

use serde::{Deserialize, Serialize};

use crate::axis::{Axis, Map, Origin};
use crate::{Anatomy, Fill, GrowthPlan, LmHead, Norm, Placement, TiedHead, depth};

/// How close the grown model's function is to the small one's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Equal but for rounding.
    Exact,
    /// Near it.
    Approximate,
    /// Another function.
    Not,
}

impl Level {
    /// In a sentence.
    pub fn words(self) -> &'static str {
        match self {
            Self::Exact => "computes exactly what the small model did",
            Self::Approximate => "computes nearly what the small model did",
            Self::Not => "does not compute what the small model did",
        }
    }
}

/// A level, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prediction {
    /// The worst of all parts of the plan.
    pub level: Level,
    /// What is not exact, and what was done so that the rest is.
    pub reasons: Vec<String>,
}

/// A relative change below this is rounding: ε of a norm over a variance of about one.
const SMALLEST_EPS: f64 = 1e-11;

impl GrowthPlan {
    /// Whether a model of this anatomy, grown by this plan, computes what it did.
    pub fn predict(&self, anatomy: &Anatomy) -> Prediction {
        let mut prediction = Prediction { level: Level::Exact, reasons: Vec::new() };
        let mut say = |level: Level, why: &str| {
            prediction.level = prediction.level.max(level);
            prediction.reasons.push(why.to_owned());
        };
        self.predict_residual(anatomy, &mut say);
        self.predict_head(anatomy, &mut say);
        self.predict_blocks(anatomy, &mut say);
        let copies = self.axes.iter().any(|plan| {
            matches!(plan.map, Map::Tile | Map::Select | Map::Split | Map::Average)
                && plan.to > plan.from
        });
        // The highest block has no block above it.
        if self.fill == Fill::NextLayer && copies && self.layers > 1 {
            say(Level::Not, "copies take the weights of the layer above");
        }
        prediction
    }

    fn predict_residual(&self, anatomy: &Anatomy, say: &mut impl FnMut(Level, &str)) {
        let residual = self.residual_units(anatomy);
        let post = anatomy.placement == Placement::Post;
        if residual.even().is_none() {
            say(
                Level::Approximate,
                "some units of the residual stream are copied more often than others, which moves \
                 mean and variance in every norm",
            );
        }
        if !residual.has_rest() {
            return;
        }
        let new = residual.origin.contains(&Origin::New);
        let untied = anatomy.lm_head != LmHead::Tied || self.tied == TiedHead::Untie;
        match anatomy.norm {
            Norm::Rms => say(
                Level::Exact,
                "gain and ε of every norm make up for residual units that are zero",
            ),
            Norm::Layer if post => say(
                Level::Not,
                "layer norms after each sum see rows whose mean is not zero, so new residual \
                 units move it; only a multiple of the hidden size can be exact",
            ),
            Norm::Layer if !new => say(
                Level::Exact,
                "the rest of the residual stream carries the mean, and gain and ε of every norm \
                 make up for it",
            ),
            Norm::Layer if untied => say(
                Level::Exact,
                "what is written to the residual stream is centred, which layer norms do not see, \
                 and their gain and ε make up for units that are zero",
            ),
            Norm::Layer => say(
                Level::Not,
                "new residual units are zero and move the mean in every layer norm; centring what \
                 is written would change a tied head, so untie it or average",
            ),
        }
    }

    fn predict_head(&self, anatomy: &Anatomy, say: &mut impl FnMut(Level, &str)) {
        let shared =
            self.residual_units(anatomy).share.iter().any(|&share| share != 1.0 && share != 0.0);
        if anatomy.lm_head != LmHead::Tied || !shared {
            return;
        }
        match self.tied {
            TiedHead::Keep => {
                say(Level::Not, "the tied head reads every copy whole, so scores are multiplied");
            }
            TiedHead::ScaleNorm => say(
                Level::Exact,
                "the last norm takes the shares in which copies are read, so the head stays tied",
            ),
            TiedHead::Untie => say(Level::Exact, "the head becomes a matrix of its own"),
        }
    }

    fn predict_blocks(&self, anatomy: &Anatomy, say: &mut impl FnMut(Level, &str)) {
        let kept: Vec<usize> =
            self.blocks.iter().filter(|block| !block.identity).map(|block| block.from).collect();
        if !kept.iter().copied().eq(0..self.layers) {
            say(Level::Not, "layers stand where they were not trained to stand");
        }
        if self.blocks == depth::keep(self.layers) || self.blocks.len() == kept.len() {
            return;
        }
        match anatomy.placement {
            Placement::Pre => {
                say(Level::Exact, "both branches of each added layer end in zeros");
            }
            Placement::Post if anatomy.norm_eps <= SMALLEST_EPS => say(
                Level::Exact,
                "both branches of each added layer end in zeros, and it takes over the last norm \
                 of the layer below: norming twice is norming once, but for ε",
            ),
            Placement::Post => say(
                Level::Approximate,
                "added layers norm a second time what the layer below has normed, and ε is large \
                 enough to be seen",
            ),
        }
    }

    /// Whether outputs that are hidden states hold copies: how often, where evenly.
    pub fn output_copies(&self, anatomy: &Anatomy) -> Option<usize> {
        let residual = self.residual_units(anatomy);
        (self.axis(Axis::Residual).map != Map::Keep && !residual.has_rest())
            .then(|| residual.even())
            .flatten()
    }
}
