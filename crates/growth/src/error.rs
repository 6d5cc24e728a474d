//! Why a model cannot be grown.

/// What stands in the way, with both sizes where there are two.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// No layer is left.
    #[error("`student.layers` is empty; name at least one of the source's {0} layers, from 0")]
    Empty(usize),
    /// The source has no such layer.
    #[error("`student.layers` names layer {layer}, but the source has layers 0 to {}", .layers - 1)]
    OutOfRange {
        /// The layer that is missing.
        layer: usize,
        /// Layers of the source.
        layers: usize,
    },
    /// A plan that cannot be carried out on this model.
    #[error("{what} cannot go from {from} to {to}: {why}")]
    Size {
        /// The axis, or the layers.
        what: String,
        /// Before.
        from: usize,
        /// After.
        to: usize,
        /// The reason, and what can be done.
        why: String,
    },
    /// Something other than a size.
    #[error("{0}")]
    Cannot(String),
    /// A plan for another model.
    #[error("the plan is for {what} {planned}, but the model has {found}")]
    OtherModel {
        /// The axis, or the layers.
        what: String,
        /// In the plan.
        planned: usize,
        /// In the model.
        found: usize,
    },
    /// A tensor without a role.
    #[error("`{name}` is no parameter that growing knows for {family:?}; nothing was grown")]
    UnknownTensor {
        /// The tensor.
        name: String,
        /// The family whose names were compared.
        family: crate::Family,
    },
    /// A tensor that is not of the size its role says.
    #[error("`{name}` has shape {found:?}, but its place in the model has {expected:?}")]
    Misshapen {
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// What the sizes of the model make of its role.
        expected: Vec<usize>,
    },
    /// A layer that lacks a tensor.
    #[error("layer {layer} of the model has no `{name}`")]
    MissingTensor {
        /// The layer.
        layer: usize,
        /// The tensor.
        name: String,
    },
    /// Text that is no plan.
    #[error("this is no growth plan: {0}")]
    NotAPlan(String),
    /// A method that does not exist.
    #[error("there is no method `{name}`; the nearest is `{nearest}`, and all are {all}")]
    UnknownMethod {
        /// As it was asked for.
        name: String,
        /// The nearest name.
        nearest: String,
        /// All names.
        all: String,
    },
}

impl Error {
    /// 3 where a model's tensors are not what they should be, 2 where the plan cannot work.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownTensor { .. } | Self::Misshapen { .. } | Self::MissingTensor { .. } => 3,
            _ => 2,
        }
    }
}
