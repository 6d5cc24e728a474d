//! Parameter names in public checkpoints, family by family.
//!
//! The code's structure and the names meet here and nowhere else.

use crate::ModelType;

/// The names of one family's encoder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names {
    /// Prefix of a checkpoint with a head: `bert.` and the like.
    pub(crate) prefix: &'static str,
    /// Before the layer's number.
    pub(crate) layer: &'static str,
    pub(crate) query: &'static str,
    pub(crate) key: &'static str,
    pub(crate) value: &'static str,
    pub(crate) attention_out: &'static str,
    pub(crate) attention_norm: &'static str,
    pub(crate) inner: &'static str,
    pub(crate) outer: &'static str,
    pub(crate) output_norm: &'static str,
}

const BERT: Names = Names {
    prefix: "bert.",
    layer: "encoder.layer.",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attention_out: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    inner: "intermediate.dense",
    outer: "output.dense",
    output_norm: "output.LayerNorm",
};

const DISTILBERT: Names = Names {
    prefix: "distilbert.",
    layer: "transformer.layer.",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attention_out: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    inner: "ffn.lin1",
    outer: "ffn.lin2",
    output_norm: "output_layer_norm",
};

impl Names {
    pub(crate) fn of(model_type: ModelType) -> Self {
        match model_type {
            ModelType::Bert => BERT,
            ModelType::Roberta => Names { prefix: "roberta.", ..BERT },
            ModelType::DistilBert => DISTILBERT,
        }
    }
}

/// The layer a parameter belongs to, and the name before and after its number:
/// `bert.encoder.layer.3.output.dense.bias` → (`bert.encoder.layer.`, 3, `.output.dense.bias`).
pub fn split_layer(name: &str) -> Option<(&str, usize, &str)> {
    let start = name.find("layer.")? + "layer.".len();
    let end = start + name[start..].find('.')?;
    Some((&name[..start], name[start..end].parse().ok()?, &name[end..]))
}

/// Other spellings under which a tensor may lie in a file: without the family's prefix (a bare
/// encoder), with it (an encoder taken from a model with a head), and with the names that layer
/// norms had in the first public checkpoints.
pub(crate) fn spellings(model_type: ModelType, name: &str) -> Vec<String> {
    let prefix = Names::of(model_type).prefix;
    let mut spellings = vec![name.to_owned()];
    match name.strip_prefix(prefix) {
        Some(bare) => spellings.push(bare.to_owned()),
        None => spellings.push(format!("{prefix}{name}")),
    }
    for at in 0..spellings.len() {
        let old = spellings[at]
            .replace("LayerNorm.weight", "LayerNorm.gamma")
            .replace("LayerNorm.bias", "LayerNorm.beta");
        if old != spellings[at] {
            spellings.push(old);
        }
    }
    spellings
}

/// Whether a tensor in a file may be left unread without a word: constants, and tied copies of
/// the word embeddings.
pub(crate) fn is_redundant(name: &str) -> bool {
    name.ends_with("embeddings.position_ids")
        || name.ends_with("embeddings.token_type_ids")
        || matches!(
            name,
            "cls.predictions.decoder.weight"
                | "cls.predictions.decoder.bias"
                | "lm_head.decoder.weight"
                | "lm_head.decoder.bias"
                | "vocab_projector.weight"
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_found_in_the_names_of_every_family() {
        let rows = [
            (
                "bert.encoder.layer.3.output.dense.bias",
                Some(("bert.encoder.layer.", 3, ".output.dense.bias")),
            ),
            (
                "transformer.layer.11.ffn.lin1.weight",
                Some(("transformer.layer.", 11, ".ffn.lin1.weight")),
            ),
            ("bert.embeddings.LayerNorm.weight", None),
            ("lm_head.layer_norm.bias", None),
        ];
        for (name, want) in rows {
            assert_eq!(split_layer(name), want, "{name}");
        }
    }

    #[test]
    fn old_layer_norm_names_and_bare_encoders_are_looked_for() {
        let got = spellings(ModelType::Bert, "bert.embeddings.LayerNorm.weight");
        let want = [
            "bert.embeddings.LayerNorm.weight",
            "embeddings.LayerNorm.weight",
            "bert.embeddings.LayerNorm.gamma",
            "embeddings.LayerNorm.gamma",
        ];
        assert_eq!(got, want);
    }
}
