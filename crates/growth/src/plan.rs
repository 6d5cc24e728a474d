//! A growth plan: what becomes of each axis and each block, as data.
//!
//! In: sizes and choices. Out: TOML, JSON, sentences, a digest; or why the plan cannot be carried
//! out. Never: a tensor.

use heirloom_base::Digest;
use serde::{Deserialize, Serialize};

use crate::axis::{Axis, AxisPlan, Map};
use crate::depth::{Block, added};
use crate::family::{NormSite, Role};
use crate::{Anatomy, Error, Family, LmHead, Placement, Shape};

/// What entries start from that come from nowhere and may be anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// Zero.
    Zero,
    /// A normal distribution with the root mean square of the old tensor.
    Normal,
    /// Copies of units in a block come from the block above ("advanced knowledge", AKI: Chen et
    /// al. 2022, arXiv:2110.07143); what is no copy is normal.
    NextLayer,
}

/// What becomes of a head that shares the word embeddings, which are written once and read in
/// shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TiedHead {
    /// Nothing.
    Keep,
    /// The last norm takes the shares (Shen et al. 2022, arXiv:2203.06211), and the tie stays.
    ScaleNorm,
    /// It becomes a matrix of its own.
    Untie,
}

/// What is to be trained after growing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trains {
    /// Everything.
    All,
    /// The added blocks.
    New,
    /// The added blocks, the last norm and the head.
    NewAndHead,
}

/// How a model grows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrowthPlan {
    /// What the plan is called; says nothing of its own.
    pub method: String,
    /// Decides what is drawn.
    pub seed: u64,
    /// Blocks of the source.
    pub layers: usize,
    /// What new entries start from.
    pub fill: Fill,
    /// Size of noise that is added to how copies are read, over the root mean square of the
    /// tensor. It sums to zero over the copies of a unit, so it changes nothing until they differ.
    pub noise: f64,
    /// What becomes of a tied head.
    pub tied: TiedHead,
    /// What is to be trained.
    pub trains: Trains,
    /// Every axis, in the order of [`Axis::ALL`].
    pub axes: Vec<AxisPlan>,
    /// The blocks of the grown model.
    pub blocks: Vec<Block>,
}

impl GrowthPlan {
    /// A plan that leaves a model as it is, to be changed.
    pub fn keep(anatomy: &Anatomy) -> Self {
        let shape = &anatomy.shape;
        Self {
            method: "keep".to_owned(),
            seed: 0,
            layers: shape.layers,
            fill: Fill::Normal,
            noise: 0.0,
            tied: TiedHead::ScaleNorm,
            trains: Trains::All,
            axes: Axis::ALL.map(|axis| AxisPlan::keep(axis, shape.size(axis))).to_vec(),
            blocks: crate::depth::keep(shape.layers),
        }
    }

    /// The same with another map on one axis.
    pub fn with(mut self, axis: Axis, map: Map, to: usize) -> Self {
        let from = self.axis(axis).from;
        self.axes[axis as usize] = AxisPlan { axis, map, from, to };
        self
    }

    /// The plan of an axis.
    pub fn axis(&self, axis: Axis) -> AxisPlan {
        self.axes[axis as usize]
    }

    /// Where the old residual units have gone: to read a grown encoder's outputs against the
    /// small one's.
    pub fn residual_units(&self, anatomy: &Anatomy) -> crate::Units {
        self.axis(Axis::Residual).units(self.seed, anatomy.norm == crate::Norm::Layer)
    }

    /// As TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a plan of numbers and names is TOML")
    }

    /// From TOML.
    ///
    /// # Errors
    /// [`Error::NotAPlan`] with the place and what was expected.
    pub fn from_toml(text: &str) -> Result<Self, Error> {
        let plan: Self =
            toml::from_str(text).map_err(|error| Error::NotAPlan(error.to_string()))?;
        plan.has_every_axis()
    }

    /// As JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a plan of numbers and names is JSON")
    }

    /// From JSON.
    ///
    /// # Errors
    /// [`Error::NotAPlan`] with the place and what was expected.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let plan: Self =
            serde_json::from_str(text).map_err(|error| Error::NotAPlan(error.to_string()))?;
        plan.has_every_axis()
    }

    fn has_every_axis(self) -> Result<Self, Error> {
        if self.axes.iter().map(|plan| plan.axis).eq(Axis::ALL) {
            return Ok(self);
        }
        let names: Vec<&str> = Axis::ALL.iter().map(|axis| axis.words()).collect();
        Err(Error::NotAPlan(format!(
            "`axes` must hold each axis once, in this order: {}",
            names.join(", ")
        )))
    }

    /// The digest of the plan's JSON.
    pub fn digest(&self) -> Digest {
        Digest::of(self.to_json().as_bytes())
    }

    /// The anatomy of the grown model.
    pub fn grown(&self, anatomy: &Anatomy) -> Anatomy {
        let to = |axis| self.axis(axis).to;
        let untie = anatomy.lm_head == LmHead::Tied && self.tied == TiedHead::Untie;
        Anatomy {
            shape: Shape {
                layers: self.blocks.len(),
                hidden: to(Axis::Residual),
                intermediate: to(Axis::Ffn),
                kv_heads: to(Axis::KvHeads),
                group: to(Axis::Group),
                head_dim: to(Axis::HeadDim),
                vocab: to(Axis::Vocab),
                positions: to(Axis::Positions),
            },
            norm_eps: anatomy.norm_eps * crate::entries::Layout::new(self, anatomy).eps,
            lm_head: if untie { LmHead::Untied } else { anatomy.lm_head },
            ..anatomy.clone()
        }
    }

    /// Whether the plan can be carried out on a model of this anatomy.
    ///
    /// # Errors
    /// The first thing that stands in the way, with both sizes.
    pub fn check(&self, anatomy: &Anatomy) -> Result<(), Error> {
        for plan in &self.axes {
            check_axis(plan, anatomy)?;
        }
        self.check_blocks(anatomy)?;
        let grown = self.grown(anatomy);
        let shape = grown.shape;
        let whole_heads = anatomy.family != Family::Llama;
        if whole_heads && shape.heads() * shape.head_dim != shape.hidden {
            return Err(Error::Size {
                what: "hidden size".to_owned(),
                from: anatomy.shape.hidden,
                to: shape.hidden,
                why: format!(
                    "this family's heads make up the hidden size, and {} heads of {} are {}",
                    shape.heads(),
                    shape.head_dim,
                    shape.heads() * shape.head_dim
                ),
            });
        }
        if whole_heads && shape.group != 1 {
            return Err(Error::Size {
                what: "the number of key and value heads".to_owned(),
                from: anatomy.shape.kv_heads,
                to: shape.kv_heads,
                why: format!(
                    "in this family they are as many as the heads of queries, {}",
                    shape.heads()
                ),
            });
        }
        if !(0.0..=1.0).contains(&self.noise) {
            return Err(Error::Cannot(format!(
                "`noise` is {}, expected a number in 0..=1",
                self.noise
            )));
        }
        let untie = anatomy.lm_head == LmHead::Tied && self.tied == TiedHead::Untie;
        if untie && anatomy.family.head_name().is_none() {
            return Err(Error::Cannot(
                "the head of this family is tied to the word embeddings and cannot be untied; use \
                 `tied = \"scale_norm\"`"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn check_blocks(&self, anatomy: &Anatomy) -> Result<(), Error> {
        let layers = anatomy.shape.layers;
        if self.layers != layers {
            let what = "layers".to_owned();
            return Err(Error::OtherModel { what, planned: self.layers, found: layers });
        }
        let size = |why: String| {
            let what = "the number of layers".to_owned();
            Err(Error::Size { what, from: layers, to: self.blocks.len(), why })
        };
        if self.blocks.is_empty() {
            return size("no layer is left".to_owned());
        }
        if self.blocks.len() > MOST_LAYERS {
            return size(format!("at most {MOST_LAYERS} layers are grown"));
        }
        if let Some(block) = self.blocks.iter().find(|block| block.from >= layers) {
            return size(format!(
                "the plan names layer {}, and there are layers 0 to {}",
                block.from,
                layers - 1
            ));
        }
        // Where norms come after, an identity takes over the last norm of the block below it.
        let stray = (0..self.blocks.len()).find(|&at| {
            let block = self.blocks[at];
            block.identity && (at == 0 || self.blocks[at - 1].from != block.from)
        });
        match stray {
            Some(at) if anatomy.placement == Placement::Post => size(format!(
                "layer {at} starts as the identity and must stand right above layer {} that it is \
                 a copy of, since it takes over that one's last norm",
                self.blocks[at].from
            )),
            _ => Ok(()),
        }
    }

    /// Whether the parameter `name` of the grown model stays as it is in training.
    pub fn freezes(&self, family: Family, name: &str) -> bool {
        let Some(place) = family.find(name) else { return false };
        let head = matches!(
            place.role,
            Role::Norm(NormSite::Last)
                | Role::LmHead
                | Role::LmBias
                | Role::Classifier
                | Role::Dense
        );
        let new = place.layer.is_some_and(|layer| added(&self.blocks)[layer]);
        match self.trains {
            Trains::All => false,
            Trains::New => !new,
            Trains::NewAndHead => !new && !head,
        }
    }

    /// The plan in sentences, a line each.
    pub fn words(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .axes
            .iter()
            .filter(|plan| plan.map != Map::Keep)
            .map(|plan| {
                format!("{} {} to {}: {}", plan.axis.words(), plan.from, plan.to, plan.map.words())
            })
            .collect();
        if self.blocks != crate::depth::keep(self.layers) {
            let name =
                |block: &Block| format!("{}{}", block.from, if block.identity { "*" } else { "" });
            let names: Vec<String> = self.blocks.iter().map(name).collect();
            let star = if self.blocks.iter().any(|block| block.identity) {
                " (*: a copy that starts as the identity)"
            } else {
                ""
            };
            lines.push(format!(
                "layers {} to {}: {}{star}",
                self.layers,
                self.blocks.len(),
                names.join(" ")
            ));
        }
        match self.fill {
            Fill::NextLayer => lines.push("copies take the weights of the layer above".to_owned()),
            Fill::Zero => lines.push("new entries are zero".to_owned()),
            Fill::Normal => (),
        }
        if self.noise > 0.0 {
            lines.push(format!("noise of {} between copies, summing to zero", self.noise));
        }
        match self.trains {
            Trains::All => (),
            Trains::New => lines.push("meant for training the added layers alone".to_owned()),
            Trains::NewAndHead => {
                lines.push("meant for training the added layers and the head alone".to_owned());
            }
        }
        lines
    }
}

/// The largest size that a config is read with.
pub(crate) const LARGEST_SIZE: usize = 1 << 24;
/// More layers than any model known, few enough to list.
pub(crate) const MOST_LAYERS: usize = 1 << 16;

fn check_axis(plan: &AxisPlan, anatomy: &Anatomy) -> Result<(), Error> {
    let AxisPlan { axis, map, from, to } = *plan;
    let found = anatomy.shape.size(axis);
    if from != found {
        return Err(Error::OtherModel { what: axis.words().to_owned(), planned: from, found });
    }
    let refuse = |why: &str| {
        Err(Error::Size { what: format!("the {}", axis.words()), from, to, why: why.to_owned() })
    };
    if to < from {
        return refuse("growing takes no units away");
    }
    if to > LARGEST_SIZE {
        return refuse("no size is read that is larger than 16777216");
    }
    if from == 0 && to > 0 {
        return refuse("the model has none to begin with");
    }
    match map {
        Map::Keep if from != to => refuse("the plan keeps this axis; name another map"),
        Map::Tile if !to.is_multiple_of(from) => {
            refuse("whole copies need a multiple; use `select`, `split` or `pad`")
        }
        Map::Average if axis != Axis::Residual => refuse(
            "units between writer and reader go through a function each, and a mean does not \
             commute with it; use `select`, `split` or `pad`",
        ),
        Map::Tile | Map::Select | Map::Split if matches!(axis, Axis::Vocab | Axis::Positions) => {
            refuse(
                "rows of a table are looked up by number, so copies would stand for others; use `pad`",
            )
        }
        Map::Keep => Ok(()),
        _ if axis == Axis::HeadDim && anatomy.rotary && to != from => refuse(
            "rotary positions turn each number of a head by an angle that depends on the head \
             size; keep it and add heads",
        ),
        _ if axis == Axis::HeadDim && anatomy.head_norms && to != from => {
            refuse("queries and keys are normed head by head; keep the head size and add heads")
        }
        _ => Ok(()),
    }
}
