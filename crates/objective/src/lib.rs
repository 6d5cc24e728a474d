//! What a batch is worth: terms that are sums with counts, and their gradients on logits and hidden
//! states.
//!
//! In: the student's outputs, the labels, the teacher's outputs, and how many items the *whole*
//! optimiser step holds. Out: per term a sum in nats with its count; gradients added where the
//! model's backward pass begins.
//! Never: a division before all parts of a step have met, or a look at the model's parameters.
//!
//! The law the tests hold: however a step is cut into micro-batches, or a language model's tokens into
//! chunks, loss and gradient are the same.

mod chunk_plan;
mod chunked;
mod dense;
mod hidden;
mod inside;
mod label;
mod objective;
mod relation;
mod signals;
mod sparse;
mod teacher;
mod vocabulary;
mod weighing;

pub use chunk_plan::{ChunkPlan, LOGITS_BUDGET};
pub use chunked::{
    ChunkedHead, TeacherTokens, TokenCounts, TokenGradients, TokenLoss, TokenSignals, TokenTerm,
};
pub use dense::{DenseLosses, DenseSignals};
pub use hidden::{HiddenTerm, Rows};
pub use inside::{Inside, Insides};
pub use label::LabelLoss;
pub use objective::{Objective, Parts, Term, TermKind};
pub use relation::{RelationTerm, Side};
pub use signals::{Balanced, Counts, Labels, Regularized, Signals, TeacherSignals};
pub use sparse::{KnownTokens, SparseTerm};
pub use teacher::TeacherTerm;
pub use vocabulary::{SortedTerm, TeacherVocabulary};
pub use weighing::{TokenMeasure, TokenWeights, WeighTokens, Weighing};
