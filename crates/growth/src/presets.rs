//! Published ways to grow a model, by name, as plans.

use crate::Trains;
use crate::axis::{Axis, AxisPlan, Map};
use crate::depth::{self, Block};
use crate::plan::{LARGEST_SIZE, MOST_LAYERS};
use crate::{Anatomy, Error, Family, Fill, GrowthPlan, LmHead, Norm, Placement, Shape, TiedHead};

/// A way to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Whatever keeps the function: whole copies or averages of the residual stream, unequal
    /// shares elsewhere so that copies learn apart, identities between layers.
    Preserve,
    /// Random copies, identities between layers (Chen et al. 2016, arXiv:1511.05641).
    Net2Net,
    /// The layers again above themselves: StackBERT (Gong et al., ICML 2019), and G_stack (Du et
    /// al. 2024, arXiv:2405.15319).
    Stack,
    /// Each layer again right above itself.
    Interleave,
    /// Random copies, layers stacked (Chen et al. 2022, arXiv:2110.07143).
    Bert2BertFpi,
    /// The same with copies from the layer above.
    Bert2BertAki,
    /// Unequal shares, averages in the residual stream, identities between layers (Wang et al.
    /// 2024, arXiv:2310.07999).
    Lemon,
    /// Whole copies in width alone (Samragh et al. 2024, arXiv:2409.12903).
    HyperCloning,
    /// Identities between layers, the others frozen (Wu et al. 2024, arXiv:2401.02415).
    LlamaPro,
    /// The model without its top, then without its bottom (Kim et al. 2023, arXiv:2312.15166).
    Solar,
    /// Copies of the top layers, which alone are trained (Yang et al. 2020, arXiv:2011.13635).
    Mslt,
    /// Whole copies in width and layers stacked (Gu et al., NAACL 2021), without its growing
    /// sequence length, which is no matter of parameters.
    Compound,
    /// Zeros: new units that nothing reads yet (Gesmundo & Maile 2023, arXiv:2308.06103).
    Pad,
    /// The same, where masks hide what is new (Yao et al. 2024, arXiv:2305.02869) at the start.
    Msg,
}

/// The sizes asked for; what is not named follows from the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Target {
    /// L.
    pub layers: Option<usize>,
    /// C.
    pub hidden: Option<usize>,
    /// Query heads.
    pub heads: Option<usize>,
    /// Heads of keys and values.
    pub kv_heads: Option<usize>,
    /// F.
    pub intermediate: Option<usize>,
}

impl Method {
    /// Every method with its name.
    pub const NAMES: [(Self, &'static str); 14] = [
        (Self::Preserve, "preserve"),
        (Self::Net2Net, "net2net"),
        (Self::Stack, "stack"),
        (Self::Interleave, "interleave"),
        (Self::Bert2BertFpi, "bert2bert-fpi"),
        (Self::Bert2BertAki, "bert2bert-aki"),
        (Self::Lemon, "lemon"),
        (Self::HyperCloning, "hypercloning"),
        (Self::LlamaPro, "llama-pro"),
        (Self::Solar, "solar"),
        (Self::Mslt, "mslt"),
        (Self::Compound, "compound"),
        (Self::Pad, "pad"),
        (Self::Msg, "msg"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize].1
    }

    /// The method called `name`.
    ///
    /// # Errors
    /// [`Error::UnknownMethod`] with the nearest name and all names.
    pub fn find(name: &str) -> Result<Self, Error> {
        let found = Self::NAMES.iter().find(|(_, known)| *known == name);
        found.map(|(method, _)| *method).ok_or_else(|| {
            let far = |known: &str| {
                let same = known.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
                (usize::MAX - same, known.len().abs_diff(name.len()))
            };
            let names = Self::NAMES.map(|(_, known)| known);
            let nearest = names.iter().min_by_key(|known| far(known)).copied().unwrap_or_default();
            Error::UnknownMethod {
                name: name.to_owned(),
                nearest: nearest.to_owned(),
                all: names.join(", "),
            }
        })
    }

    fn blocks(self, old: usize, new: usize) -> Result<Vec<Block>, Error> {
        let size = |why: &str| Error::Size {
            what: "the number of layers".to_owned(),
            from: old,
            to: new,
            why: why.to_owned(),
        };
        if new < old {
            return Err(size("growing takes no layers away"));
        }
        if new > MOST_LAYERS {
            return Err(size(&format!("at most {MOST_LAYERS} layers are grown")));
        }
        if new == old {
            return Ok(depth::keep(old));
        }
        match self {
            Self::Preserve
            | Self::Net2Net
            | Self::Lemon
            | Self::LlamaPro
            | Self::Pad
            | Self::Msg => Ok(depth::insert_identity(old, new)),
            Self::Stack | Self::Bert2BertFpi | Self::Bert2BertAki | Self::Compound => {
                Ok(depth::stack(old, new))
            }
            Self::Interleave => Ok(depth::interleave(old, new)),
            Self::Solar => depth::dus(old, new).ok_or_else(|| {
                size("two halves of the model need an even number, at most twice as many")
            }),
            Self::Mslt => depth::top_copies(old, new).ok_or_else(|| {
                size("copies of the top layers are at most as many as there are layers")
            }),
            Self::HyperCloning => {
                Err(size("`hypercloning` grows width alone; `preserve` grows both"))
            }
        }
    }

    fn map(self, plan: &AxisPlan, anatomy: &Anatomy) -> Result<Map, Error> {
        let AxisPlan { axis, from, to, .. } = *plan;
        if from == to {
            return Ok(Map::Keep);
        }
        let whole = to.is_multiple_of(from);
        let residual = axis == Axis::Residual;
        let depth_alone = |other: &str| {
            Err(Error::Size {
                what: format!("the {}", axis.words()),
                from,
                to,
                why: format!("`{}` grows depth alone; {other}", self.name()),
            })
        };
        match self {
            Self::Preserve | Self::Lemon if axis == Axis::HeadDim => {
                Ok(if whole { Map::Tile } else { Map::Pad })
            }
            Self::Preserve | Self::Lemon if !residual => Ok(Map::Split),
            Self::Preserve | Self::Lemon if whole => Ok(Map::Tile),
            Self::Preserve
                if anatomy.placement == Placement::Post && anatomy.norm == Norm::Layer =>
            {
                // Nothing is exact here, and uneven copies are nearest.
                Ok(Map::Select)
            }
            Self::Preserve | Self::Lemon => Ok(Map::Average),
            Self::Net2Net | Self::Bert2BertFpi | Self::Bert2BertAki => Ok(Map::Select),
            Self::HyperCloning | Self::Compound => Ok(Map::Tile),
            Self::Pad | Self::Msg => Ok(Map::Pad),
            Self::Stack | Self::Interleave => depth_alone("`compound` and `preserve` grow both"),
            Self::LlamaPro | Self::Solar | Self::Mslt => depth_alone("`preserve` grows both"),
        }
    }

    /// The plan by which a model of this anatomy grows to the sizes asked for.
    ///
    /// # Errors
    /// Where nothing would grow, a size does not follow or shrinks, or the method cannot do it.
    pub fn plan(self, anatomy: &Anatomy, target: &Target, seed: u64) -> Result<GrowthPlan, Error> {
        let shape = target.resolve(anatomy)?;
        if shape == anatomy.shape {
            return Err(Error::Cannot(format!(
                "nothing would grow: the model has {shape} already"
            )));
        }
        if self == Self::Msg && anatomy.placement == Placement::Post {
            return Err(Error::Cannot(
                "`msg` hides what is new behind masks inside the model, and where norms come after \
                 each sum no weights have the same effect; `preserve` starts from the same function"
                    .to_owned(),
            ));
        }
        let mut plan = GrowthPlan {
            method: self.name().to_owned(),
            seed,
            blocks: self.blocks(anatomy.shape.layers, shape.layers)?,
            fill: if self == Self::Bert2BertAki { Fill::NextLayer } else { Fill::Normal },
            trains: match self {
                Self::LlamaPro => Trains::New,
                Self::Mslt => Trains::NewAndHead,
                _ => Trains::All,
            },
            ..GrowthPlan::keep(anatomy)
        };
        for axis in Axis::ALL {
            let wanted = AxisPlan { to: shape.size(axis), ..plan.axis(axis) };
            let map = self.map(&wanted, anatomy)?;
            plan.axes[axis as usize] = AxisPlan { map, ..wanted };
        }
        let pads = plan.axis(Axis::Residual).map == Map::Pad && anatomy.norm == Norm::Layer;
        let can_untie = anatomy.family.head_name().is_some();
        if anatomy.lm_head == LmHead::Tied && pads && can_untie {
            plan.tied = TiedHead::Untie;
        }
        plan.check(anatomy)?;
        Ok(plan)
    }
}

impl Target {
    /// The sizes of the grown model.
    fn resolve(&self, anatomy: &Anatomy) -> Result<Shape, Error> {
        let old = anatomy.shape;
        let hidden = self.hidden.unwrap_or(old.hidden);
        let refuse = |what: &str, from, to, why: String| {
            Err(Error::Size { what: what.to_owned(), from, to, why })
        };
        if hidden < old.hidden {
            let why = "growing takes no units away".to_owned();
            return refuse("the hidden size", old.hidden, hidden, why);
        }
        let asked = [
            ("the hidden size", old.hidden, Some(hidden)),
            ("the number of heads", old.heads(), self.heads),
            ("the intermediate size", old.intermediate, self.intermediate),
        ];
        for (what, from, to) in asked {
            if let Some(to) = to.filter(|&to| to > LARGEST_SIZE) {
                return refuse(
                    what,
                    from,
                    to,
                    format!("no size is read that is larger than {LARGEST_SIZE}"),
                );
            }
        }
        let whole_heads = anatomy.family != Family::Llama;
        let heads = match self.heads {
            Some(heads) => heads,
            None if whole_heads && hidden.is_multiple_of(old.head_dim) => hidden / old.head_dim,
            None if whole_heads => {
                let why =
                    format!("it is no multiple of the head size {}; name the heads", old.head_dim);
                return refuse("the hidden size", old.hidden, hidden, why);
            }
            None if (old.heads() * hidden).is_multiple_of(old.hidden) => {
                old.heads() * hidden / old.hidden
            }
            None => old.heads(),
        };
        if heads < old.heads() || (whole_heads && !hidden.is_multiple_of(heads.max(1))) {
            let why = if heads < old.heads() {
                "growing takes no heads away".to_owned()
            } else {
                format!("heads must divide the hidden size {hidden}")
            };
            return refuse("the number of heads", old.heads(), heads, why);
        }
        let kv_heads = match self.kv_heads {
            Some(kv_heads) => kv_heads,
            None if heads.is_multiple_of(old.group) => heads / old.group,
            None => old.kv_heads,
        };
        if kv_heads < old.kv_heads || !heads.is_multiple_of(kv_heads.max(1)) {
            let why = format!("key and value heads must divide the {heads} heads and not shrink");
            return refuse("the number of key and value heads", old.kv_heads, kv_heads, why);
        }
        if heads / kv_heads < old.group {
            let why = format!(
                "{heads} heads over {kv_heads} of keys and values are fewer than {} each",
                old.group
            );
            return refuse("the number of heads", old.heads(), heads, why);
        }
        let scaled = old.intermediate * hidden;
        let intermediate = match self.intermediate {
            Some(intermediate) => intermediate,
            None if scaled.is_multiple_of(old.hidden) => scaled / old.hidden,
            None => {
                let why = format!(
                    "the intermediate size {} does not grow in proportion; name it",
                    old.intermediate
                );
                return refuse("the hidden size", old.hidden, hidden, why);
            }
        };
        if intermediate < old.intermediate {
            let why = "growing takes no units away".to_owned();
            return refuse("the intermediate size", old.intermediate, intermediate, why);
        }
        Ok(Shape {
            layers: self.layers.unwrap_or(old.layers),
            hidden,
            intermediate,
            kv_heads,
            group: heads / kv_heads,
            head_dim: if whole_heads { hidden / heads } else { old.head_dim },
            ..old
        })
    }
}
