//! The numerics: flat parameters, memory planned before the run, and about thirty operations, each
//! a forward and a hand-written backward.
//!
//! In: [`View`]s and [`Ids`] (handles; where a buffer lives is the device's business) and shapes.
//! Out: numbers written into views.
//! Never: an automatic graph, a slice of device memory in a caller's hand, an allocation in the
//! steady state of a step.
//!
//! [`Cpu`] is the fast implementation in `f32`; [`Reference`] holds the same operations as plain
//! loops, generic over `f32` and `f64`, and is the oracle of every test. The law the tests hold:
//! both give the same outputs and gradients, and the reference's gradients are those of central
//! finite differences.

mod arena;
mod cpu;
mod device;
mod divergence;
mod gradients;
mod operations;
mod params;
mod precision;
mod profiled;
mod reference;
mod sparse;
mod view;

pub use arena::{ArenaPlan, Mark};
pub use cpu::{Cpu, exponentials, sum};
pub use device::{
    Activation, AdamW, AdamWRows, AddNorm, AddNormBackward, Ahead, Attention, AttentionBackward,
    CachedAttention, Device, Dropout, Gate, GateBackward, HiddenDistance, IGNORED, Linear,
    LinearBackward, Mask, Move, Relation, RelationMeasure, RmsNorm, RmsNormBackward, Rotary,
    RotaryAngles, RowLoss, Slope, Span, Target, Update,
};
pub use divergence::Divergence;
pub use gradients::{Frozen, Grads};
pub use params::{Init, Param, Params, ParamsBuilder, Role};
pub use precision::Precision;
pub use profiled::Profiled;
pub use reference::{Real, Reference};
pub use sparse::{Missing, SparseLoss, SparseTarget};
pub use view::{IdSpace, Ids, Space, View};
