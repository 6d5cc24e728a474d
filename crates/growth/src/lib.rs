//! One trained model into another of a different size: a plan is data, applied to parameters by
//! name.
//!
//! In: a [`GrowthPlan`], the [`Anatomy`] of a model, and its parameters as plain tensors. Out: the
//! parameters of the larger model, its anatomy, its optimiser's moments, and before any number is
//! read a [`Prediction`] of whether it computes what the small one did. Never: a file, a device, a
//! forward pass.
//!
//! Every width map gives a pair of matrices per axis, `U` (new units from old) and `D` (how new
//! units are read): a weight becomes `U_out W D_inᵀ`, and what is read stays the same where
//! `Dᵀ U = I` ([`Map`]). Blocks are repeated or inserted by [`Block`]s. `docs/method/growth.md` has
//! the equations.

mod anatomy;
mod apply;
mod axis;
mod clones;
mod decoder;
pub mod depth;
mod descent;
mod encoder;
mod entries;
mod error;
mod family;
mod layers;
mod masks;
mod moments;
mod operator;
mod plan;
mod predict;
mod presets;
mod tensor;

pub use anatomy::{Anatomy, Family, LmHead, Norm, Placement, Shape};
pub use apply::{Grown, count_grown, grow};
pub use axis::{Axis, AxisPlan, Map, Origin, Units};
pub use clones::clone_gap;
pub use depth::Block;
pub use descent::{Descent, descents};
pub use error::Error;
pub use family::{NormSite, Place, Role, is_buffer};
pub use layers::LayerMap;
pub use masks::{Masked, behind_masks, masks};
pub use moments::{Moments, MomentsMode, grow_moments, rate_multipliers};
pub use operator::{Factor, Operator, Part};
pub use plan::{Fill, GrowthPlan, TiedHead, Trains};
pub use predict::{Level, Prediction};
pub use presets::{Method, Target};
pub use tensor::{Number, Tensor, Tensors};
