//! Which layer of a source model each layer of a target takes.
//!
//! A student that keeps some of its teacher's layers starts far ahead of one with random weights
//! (DistilBERT, Sanh et al. 2019, arXiv:1910.01108, keeps every second one).

use heirloom_models::{EncoderConfig, split_layer};

use crate::Error;

/// For each layer of the target, the source's layer it is a copy of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerMap(Vec<usize>);

impl LayerMap {
    /// The map that keeps `layers` of a source with `source_layers`, in the order given.
    ///
    /// ```
    /// use heirloom_growth::LayerMap;
    /// let map = LayerMap::select(&[0, 2, 4], 6).unwrap();
    /// let name = "bert.encoder.layer.1.output.dense.bias";
    /// assert_eq!(map.source_name(name), "bert.encoder.layer.2.output.dense.bias");
    /// ```
    pub fn select(layers: &[usize], source_layers: usize) -> Result<Self, Error> {
        if layers.is_empty() {
            return Err(Error::Empty(source_layers));
        }
        match layers.iter().find(|&&layer| layer >= source_layers) {
            Some(&layer) => Err(Error::OutOfRange { layer, layers: source_layers }),
            None => Ok(Self(layers.to_vec())),
        }
    }

    /// The map that keeps `layers` in the order given, already checked by a plan.
    pub fn of(layers: &[usize]) -> Self {
        Self(layers.to_vec())
    }

    /// The target's config: the source's with another number of layers.
    pub fn target_config(&self, source: &EncoderConfig) -> EncoderConfig {
        EncoderConfig { layers: self.0.len(), ..source.clone() }
    }

    /// The source's parameter that fills the target's parameter `name`. Parameters outside the
    /// layers keep their name.
    pub fn source_name(&self, name: &str) -> String {
        match split_layer(name) {
            Some((before, layer, after)) if layer < self.0.len() => {
                format!("{before}{}{after}", self.0[layer])
            }
            _ => name.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_layers_are_renamed() {
        let map = LayerMap::select(&[5, 1], 6).unwrap();
        let rows = [
            (
                "bert.encoder.layer.0.attention.self.key.bias",
                "bert.encoder.layer.5.attention.self.key.bias",
            ),
            (
                "distilbert.transformer.layer.1.ffn.lin1.weight",
                "distilbert.transformer.layer.1.ffn.lin1.weight",
            ),
            ("bert.embeddings.LayerNorm.weight", "bert.embeddings.LayerNorm.weight"),
            ("classifier.bias", "classifier.bias"),
        ];
        for (target, source) in rows {
            assert_eq!(map.source_name(target), source);
        }
    }

    #[test]
    fn layers_that_are_not_there_are_refused() {
        assert_eq!(LayerMap::select(&[], 6), Err(Error::Empty(6)));
        let error = LayerMap::select(&[0, 6], 6).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`student.layers` names layer 6, but the source has layers 0 to 5"
        );
    }
}
