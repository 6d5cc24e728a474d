//! A decoder's parameters from a model folder and back.

use heirloom_engine::{Device, Param};
use heirloom_store::TensorFolder;

use super::Decoder;
use super::config::DecoderType;
use crate::weights::{Layout, load, transposed};
use crate::{Error, Loaded};

impl Layout for Decoder {
    /// Names begin with `transformer.` or `model.` in a model with a head, and not in one without.
    fn spellings(&self, name: &str) -> Vec<String> {
        let prefix =
            if self.config().model_type == DecoderType::Gpt2 { "transformer." } else { "model." };
        let bare = name.strip_prefix(prefix).map(str::to_owned);
        std::iter::once(name.to_owned()).chain(bare).collect()
    }

    /// Nothing of a decoder is drawn afresh.
    fn may_be_fresh(&self, _: usize, _: &Param) -> bool {
        false
    }

    /// A tied copy of the word embeddings, and constants that old files hold: causal masks,
    /// frequencies.
    fn is_redundant(&self, name: &str) -> bool {
        (self.config().tied && name == "lm_head.weight")
            || name.ends_with(".attn.bias")
            || name.ends_with(".attn.masked_bias")
            || name.ends_with(".rotary_emb.inv_freq")
    }

    /// GPT-2's linear layers lie as `[I, O]` (`Conv1D`).
    fn is_transposed(&self, name: &str) -> bool {
        const CONV1D: [&str; 3] = ["c_attn.weight", "c_proj.weight", "c_fc.weight"];
        self.config().model_type == DecoderType::Gpt2
            && CONV1D.iter().any(|end| name.ends_with(end))
    }
}

impl Decoder {
    /// Fills the parameters from `folder`. The parameter `name` is looked for as `source(name)`,
    /// with and without the family's prefix.
    ///
    /// # Errors
    /// [`Error::Mismatch`] before anything is read, or whatever the store says of the bytes.
    pub fn load(
        &self,
        device: &mut dyn Device,
        folder: &TensorFolder,
        source: &dyn Fn(&str) -> String,
    ) -> Result<Loaded, Error> {
        load(device, self.params(), self, folder, source, None)
    }

    /// Whether files hold the transpose of the parameter `name`: GPT-2's linear layers.
    pub fn lies_transposed(&self, name: &str) -> bool {
        self.is_transposed(name)
    }

    /// Every parameter under its public name and in its public shape: name, shape, numbers.
    pub fn tensors(&self, device: &dyn Device) -> Vec<(String, Vec<usize>, Vec<f32>)> {
        let params = self.params();
        let entry = |param: &Param| {
            let mut values = device.read(params.view(param, params.weights()));
            if self.is_transposed(&param.name) {
                values = transposed(&values, param.shape[1]);
            }
            (param.name.clone(), self.shape(param), values)
        };
        params.index().iter().map(entry).collect()
    }
}
