//! Configs of students that grow, and their parameters taken out of a device and put into another.
//!
//! In: a config; a trainer's buffers. Out: what a growth plan must know; tensors as files hold them.
//! Never: which trainer it is of.

use std::collections::BTreeSet;

use heirloom_engine::{Device, Param, Params, Space};
use heirloom_growth::{
    Anatomy, GrowthPlan, LmHead, Map, Moments, MomentsMode, Tensor, Tensors, grow, grow_moments,
};
use heirloom_models::EncoderConfig;

use crate::{Error, LanguageConfig, Learned};

/// A config of a student that may grow.
pub trait Grows: Clone + PartialEq + std::fmt::Debug {
    /// What a plan must know of it.
    fn anatomy(&self) -> Anatomy;

    /// The config after growing by `plan`.
    ///
    /// # Errors
    /// What growing could do and `transformers` would not read.
    fn grown(&self, plan: &GrowthPlan) -> Result<Self, heirloom_growth::Error>;
}

/// A classifier's: it has no language model's head.
impl Grows for EncoderConfig {
    fn anatomy(&self) -> Anatomy {
        Anatomy::of_encoder(self, LmHead::None)
    }

    fn grown(&self, plan: &GrowthPlan) -> Result<Self, heirloom_growth::Error> {
        Ok(plan.grown(&self.anatomy()).encoder_config(self))
    }
}

impl Grows for LanguageConfig {
    fn anatomy(&self) -> Anatomy {
        match self {
            Self::Decoder(config) => Anatomy::of_decoder(config),
            Self::Encoder(config) => Anatomy::of_encoder(config, LmHead::Tied),
        }
    }

    fn grown(&self, plan: &GrowthPlan) -> Result<Self, heirloom_growth::Error> {
        let grown = plan.grown(&self.anatomy());
        Ok(match self {
            Self::Decoder(config) => Self::Decoder(grown.decoder_config(config, plan)?),
            Self::Encoder(config) => Self::Encoder(grown.encoder_config(config)),
        })
    }
}

/// A trainer's student, as growth sees it.
pub(crate) struct Student<'a> {
    pub(crate) device: &'a mut dyn Device,
    pub(crate) learned: &'a Learned,
    /// A twin of the weights.
    pub(crate) average: Option<Space>,
    /// Parameters of which files hold the transpose, by name.
    pub(crate) turned: BTreeSet<String>,
}

impl Student<'_> {
    /// A twin of the weights, by name, as files hold it.
    pub(crate) fn tensors(&self, space: Space) -> Tensors<f64> {
        let params = &self.learned.params;
        let tensor = |param: &Param| {
            let data = self.device.read_f64(params.view(param, space));
            let tensor = Tensor::new(&param.shape, data);
            let turned = self.turned.contains(&param.name);
            (param.name.clone(), if turned { turn(&tensor) } else { tensor })
        };
        params.index().iter().map(tensor).collect()
    }

    /// Puts back what [`Student::tensors`] gave.
    pub(crate) fn put(&mut self, space: Space, tensors: &Tensors<f64>) {
        let params = &self.learned.params;
        for param in params.index() {
            // What only checkpoints carry has no place in growth, and no number that matters.
            let Some(tensor) = tensors.get(&param.name) else { continue };
            let view = params.view(param, space);
            if self.turned.contains(&param.name) {
                self.device.write_f64(view, &turn(tensor).data);
            } else {
                self.device.write_f64(view, &tensor.data);
            }
        }
    }

    /// The weights.
    pub(crate) fn weights(&self) -> Tensors<f64> {
        self.tensors(self.learned.params.weights())
    }

    /// Puts weights.
    pub(crate) fn put_weights(&mut self, tensors: &Tensors<f64>) {
        self.put(self.learned.params.weights(), tensors);
    }

    /// Grows moments and average of `small` by `plan` into this student's.
    pub(crate) fn grow_from(
        &mut self,
        small: &Student<'_>,
        plan: &GrowthPlan,
        anatomy: &Anatomy,
        mode: MomentsMode,
    ) -> Result<(), Error> {
        let moments = Moments {
            first: small.tensors(small.learned.first),
            second: small.tensors(small.learned.second),
        };
        let moments = grow_moments(plan, anatomy, &moments, mode)?;
        let (first, second) = (self.learned.first, self.learned.second);
        self.put(first, &moments.first);
        self.put(second, &moments.second);
        drop(moments);
        if let (Some(old), Some(new)) = (small.average, self.average) {
            // An average of weights grows as they do, since every map is linear.
            let average = grow(plan, anatomy, &small.tensors(old))?.tensors;
            self.put(new, &average);
        }
        Ok(())
    }
}

/// Names and shapes of parameters as files hold them, without numbers.
pub(crate) fn shapes(params: &Params, turned: &BTreeSet<String>) -> Tensors<f64> {
    let tensor = |param: &Param| {
        let mut shape = param.shape.clone();
        if turned.contains(&param.name) {
            shape.reverse();
        }
        (param.name.clone(), Tensor { shape, data: Vec::new() })
    };
    params.index().iter().map(tensor).collect()
}

/// The transposed matrix.
fn turn(tensor: &Tensor<f64>) -> Tensor<f64> {
    let (rows, columns) = (tensor.shape[0], tensor.shape.get(1).copied().unwrap_or(1));
    let mut data = Vec::with_capacity(tensor.data.len());
    for column in 0..columns {
        data.extend((0..rows).map(|row| tensor.data[row * columns + column]));
    }
    let mut shape = tensor.shape.clone();
    shape.reverse();
    Tensor { shape, data }
}

/// Whether some units of the grown model are copies of others.
pub(crate) fn copies(plan: &GrowthPlan) -> bool {
    let copies = |map| matches!(map, Map::Tile | Map::Select | Map::Split | Map::Average);
    plan.axes.iter().any(|axis| copies(axis.map) && axis.to > axis.from)
}

/// The largest size of a number.
pub(crate) fn largest(numbers: impl Iterator<Item = f64>) -> f64 {
    numbers.fold(0.0, |most, number| most.max(number.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_twice_is_turning_not() {
        let tensor = Tensor::new(&[2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let turned = turn(&tensor);
        assert_eq!(
            (turned.shape.as_slice(), &*turned.data),
            (&[3, 2][..], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0][..])
        );
        assert_eq!(turn(&turned), tensor);
    }
}
