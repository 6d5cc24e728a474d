//! What stands on top of an encoder: classifiers, a regressor, a tied masked-language-model
//! decoder, a mean-pooled embedding. Each forward beside its backward.

use heirloom_engine::{
    Activation, AddNorm, AddNormBackward, ArenaPlan, Device, Dropout, Grads, Init, Linear,
    LinearBackward, ParamsBuilder, Role, View,
};

use crate::buffers::Buffers;
use crate::encoder::{
    Affine, Encoder, Noise, Norm, add_affine, add_norm, backward_through, head_site, site,
};
use crate::{Capacity, DeviceBatch, EncoderConfig, ModelType};

/// The task a model's outputs are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// One of `labels` classes per sequence: logits `[S, labels]`.
    SingleLabel {
        /// Number of classes.
        labels: usize,
    },
    /// Any subset of `labels`: logits `[S, labels]`.
    MultiLabel {
        /// Number of labels.
        labels: usize,
    },
    /// One number per sequence: `[S, 1]`.
    Regression,
    /// The token at each masked row: logits `[M, V]`, through the transposed word embeddings.
    MaskedLm,
    /// Mean of the last hidden states of a sequence: `[S, C]`.
    Embedding,
}

impl Head {
    /// Columns of the output.
    pub fn width(self, config: &EncoderConfig) -> usize {
        match self {
            Self::SingleLabel { labels } | Self::MultiLabel { labels } => labels,
            Self::Regression => 1,
            Self::MaskedLm => config.vocab_size,
            Self::Embedding => config.hidden_size,
        }
    }

    /// The class that `transformers` loads a saved folder with.
    pub fn architecture(self, config: &EncoderConfig) -> String {
        let family = config.class_prefix();
        let task = match self {
            Self::SingleLabel { .. } | Self::MultiLabel { .. } | Self::Regression => {
                "ForSequenceClassification"
            }
            Self::MaskedLm => "ForMaskedLM",
            Self::Embedding => "Model",
        };
        format!("{family}{task}")
    }

    /// `problem_type` in a config.
    pub fn problem_type(self) -> Option<&'static str> {
        match self {
            Self::SingleLabel { .. } => Some("single_label_classification"),
            Self::MultiLabel { .. } => Some("multi_label_classification"),
            Self::Regression => Some("regression"),
            Self::MaskedLm | Self::Embedding => None,
        }
    }
}

/// Views of a head's parameters.
#[derive(Clone, Debug)]
pub(crate) enum HeadParams {
    Classifier { dense: Affine, out: Affine },
    MaskedLm { dense: Affine, norm: Norm, bias: View },
    Embedding,
}

/// Activations of a head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeadBuffers {
    /// Rows taken from the encoder: first tokens or masked tokens.
    taken: View,
    /// Before and after the activation.
    dense: View,
    pub(crate) active: View,
    /// After the norm (masked language model).
    normal: View,
    stats: View,
    pub(crate) output: View,
    pub(crate) d_output: View,
    d_active: View,
    d_taken: View,
}

impl HeadBuffers {
    pub(crate) fn plan(
        plan: &mut ArenaPlan,
        config: &EncoderConfig,
        head: &Head,
        capacity: Capacity,
        train: bool,
    ) -> Self {
        let c = config.hidden_size;
        let rows = if *head == Head::MaskedLm { capacity.masked } else { capacity.sequences };
        let inside = if *head == Head::Embedding { 0 } else { rows };
        let norms = if *head == Head::MaskedLm { rows } else { 0 };
        let back = |rows| if train { rows } else { 0 };
        Self {
            taken: plan.take(inside, c),
            dense: plan.take(inside, c),
            active: plan.take(inside, c),
            normal: plan.take(norms, c),
            stats: plan.take(norms, 2),
            output: plan.take(rows, head.width(config)),
            d_output: plan.take(back(rows), head.width(config)),
            d_active: plan.take(back(inside), c),
            d_taken: plan.take(back(inside), c),
        }
    }
}

impl HeadParams {
    pub(crate) fn new(builder: &mut ParamsBuilder, config: &EncoderConfig, head: Head) -> Self {
        let (c, std) = (config.hidden_size, config.initializer_range);
        match head {
            Head::SingleLabel { .. } | Head::MultiLabel { .. } | Head::Regression => {
                let (dense, out) = match config.model_type {
                    ModelType::Bert => ("bert.pooler.dense", "classifier"),
                    ModelType::Roberta => ("classifier.dense", "classifier.out_proj"),
                    ModelType::DistilBert => ("pre_classifier", "classifier"),
                };
                Self::Classifier {
                    dense: add_affine(builder, dense, [c, c], std),
                    out: add_affine(builder, out, [head.width(config), c], std),
                }
            }
            Head::MaskedLm => {
                let (dense, norm, bias) = match config.model_type {
                    ModelType::Bert => (
                        "cls.predictions.transform.dense",
                        "cls.predictions.transform.LayerNorm",
                        "cls.predictions.bias",
                    ),
                    ModelType::Roberta => ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias"),
                    ModelType::DistilBert => {
                        ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias")
                    }
                };
                Self::MaskedLm {
                    dense: add_affine(builder, dense, [c, c], std),
                    norm: add_norm(builder, norm, c),
                    bias: builder.add(bias, &[config.vocab_size], Role::Bias, Init::Zeros),
                }
            }
            Head::Embedding => {
                // `BertModel` and `RobertaModel` have a pooler that a mean does not look at; it
                // goes along so that `transformers` finds every tensor it expects.
                if config.model_type != ModelType::DistilBert {
                    let init = Init::Normal(std);
                    builder.add("pooler.dense.weight", &[c, c], Role::Carried, init);
                    builder.add("pooler.dense.bias", &[c], Role::Carried, Init::Zeros);
                }
                Self::Embedding
            }
        }
    }

    /// The output of the head; see [`Head`] for its shape.
    pub(crate) fn forward(
        &self,
        device: &mut dyn Device,
        config: &EncoderConfig,
        encoder: &Encoder,
        batch: &DeviceBatch,
        buffers: &Buffers,
        noise: Option<Noise>,
    ) -> View {
        let hidden = buffers.hidden(config.layers).first_rows(batch.tokens());
        let rows = self.rows(batch);
        let kept = buffers.head;
        let output = kept.output.first_rows(rows);
        match self {
            Self::Embedding => device.mean_rows(hidden, batch.starts(), output),
            Self::Classifier { dense, out } => {
                let (taken, active) = (kept.taken.first_rows(rows), kept.active.first_rows(rows));
                device.embed(&[(hidden, batch.starts().first(rows))], taken);
                if let Some(dropout) = input_dropout(config, noise, batch) {
                    device.dropout(&dropout, taken);
                }
                device.linear(&Linear {
                    x: taken,
                    w: dense.w,
                    b: Some(dense.b),
                    y: kept.dense.first_rows(rows),
                    activated: Some((classifier_activation(config), active)),
                });
                if let Some(dropout) = output_dropout(config, noise, batch) {
                    device.dropout(&dropout, active);
                }
                device.linear(&Linear {
                    x: active,
                    w: out.w,
                    b: Some(out.b),
                    y: output,
                    activated: None,
                });
            }
            Self::MaskedLm { dense, norm, bias } => {
                let (taken, active) = (kept.taken.first_rows(rows), kept.active.first_rows(rows));
                let normal = kept.normal.first_rows(rows);
                device.embed(&[(hidden, batch.masked())], taken);
                device.linear(&Linear {
                    x: taken,
                    w: dense.w,
                    b: Some(dense.b),
                    y: kept.dense.first_rows(rows),
                    activated: Some((decoder_activation(config), active)),
                });
                device.add_norm(&AddNorm {
                    x: active,
                    residual: None,
                    dropout: None,
                    gamma: norm.gamma,
                    beta: norm.beta,
                    eps: config.layer_norm_eps,
                    sum: active,
                    stats: kept.stats.first_rows(rows),
                    y: normal,
                });
                let w = encoder.word_embeddings;
                device.linear(&Linear { x: normal, w, b: Some(*bias), y: output, activated: None });
            }
        }
        output
    }

    /// From the gradient of the output (`buffers.head.d_output`) to that of the last hidden state
    /// (written, where a parameter below needs it) and of the head's parameters (added).
    #[expect(clippy::too_many_arguments, reason = "one call site, and each is a different thing")]
    pub(crate) fn backward(
        &self,
        device: &mut dyn Device,
        config: &EncoderConfig,
        encoder: &Encoder,
        batch: &DeviceBatch,
        buffers: &Buffers,
        grads: Grads<'_>,
        noise: Option<Noise>,
    ) {
        let rows = self.rows(batch);
        let kept = buffers.head;
        let d_hidden = buffers.backward().d_hidden.first_rows(batch.tokens());
        let d_output = kept.d_output.first_rows(rows);
        let (taken, active) = (kept.taken, kept.active);
        match self {
            Self::Embedding => device.mean_rows_backward(d_output, batch.starts(), d_hidden),
            Self::Classifier { dense, out } => {
                let d_active = kept.d_active.first_rows(rows);
                let d_taken = kept.d_taken.first_rows(rows);
                let active = active.first_rows(rows);
                backward_through(device, *out, grads, active, d_output, Some(d_active), false);
                if let Some(dropout) = output_dropout(config, noise, batch) {
                    device.dropout(&dropout, d_active);
                }
                let before = kept.dense.first_rows(rows);
                device.activation_backward(
                    classifier_activation(config),
                    before,
                    d_active,
                    d_active,
                );
                let taken = taken.first_rows(rows);
                let below = grads.any_before(dense.w.offset()).then_some(d_taken);
                backward_through(device, *dense, grads, taken, d_active, below, false);
                if below.is_none() {
                    return;
                }
                if let Some(dropout) = input_dropout(config, noise, batch) {
                    device.dropout(&dropout, d_taken);
                }
                device.fill(d_hidden, 0.0);
                device.embed_backward(d_taken, &[(d_hidden, batch.starts().first(rows))]);
            }
            Self::MaskedLm { dense, norm, bias } => {
                let d_active = kept.d_active.first_rows(rows);
                let d_taken = kept.d_taken.first_rows(rows);
                device.linear_backward(&LinearBackward {
                    x: kept.normal.first_rows(rows),
                    w: encoder.word_embeddings,
                    dy: d_output,
                    dx: Some(d_active),
                    add_to_dx: false,
                    through: None,
                    dw: grads.of(encoder.word_embeddings),
                    db: grads.of(*bias),
                });
                device.add_norm_backward(&AddNormBackward {
                    dy: d_active,
                    sum: active.first_rows(rows),
                    stats: kept.stats.first_rows(rows),
                    gamma: norm.gamma,
                    d_sum: d_active,
                    dx: None,
                    d_gamma: grads.of(norm.gamma),
                    d_beta: grads.of(norm.beta),
                });
                let before = kept.dense.first_rows(rows);
                device.activation_backward(decoder_activation(config), before, d_active, d_active);
                let taken = taken.first_rows(rows);
                let below = grads.any_before(dense.w.offset()).then_some(d_taken);
                backward_through(device, *dense, grads, taken, d_active, below, false);
                if below.is_none() {
                    return;
                }
                device.fill(d_hidden, 0.0);
                device.embed_backward(d_taken, &[(d_hidden, batch.masked())]);
            }
        }
    }

    fn rows(&self, batch: &DeviceBatch) -> usize {
        match self {
            Self::MaskedLm { .. } => batch.masked().len(),
            Self::Classifier { .. } | Self::Embedding => batch.sequences(),
        }
    }
}

fn classifier_activation(config: &EncoderConfig) -> Activation {
    if config.model_type == ModelType::DistilBert { Activation::Relu } else { Activation::Tanh }
}

/// RoBERTa's decoder has GELU whatever the config says.
fn decoder_activation(config: &EncoderConfig) -> Activation {
    if config.model_type == ModelType::Roberta { Activation::Gelu } else { config.activation }
}

/// Dropout of the first token's state, which only RoBERTa's classifier has.
fn input_dropout(
    config: &EncoderConfig,
    noise: Option<Noise>,
    batch: &DeviceBatch,
) -> Option<Dropout> {
    if config.model_type != ModelType::Roberta {
        return None;
    }
    let dropout = site(config.classifier_dropout, noise, batch, head_site(config, 0))?;
    Some(Dropout { rows: batch.first_rows(), ..dropout })
}

fn output_dropout(
    config: &EncoderConfig,
    noise: Option<Noise>,
    batch: &DeviceBatch,
) -> Option<Dropout> {
    let dropout = site(config.classifier_dropout, noise, batch, head_site(config, 1))?;
    Some(Dropout { rows: batch.first_rows(), ..dropout })
}
