//! The head of a language model, dense: logits `[N, V]` through the word embeddings or a matrix of
//! its own. Forward beside backward.

use heirloom_engine::{Device, Grads, Init, Linear, LinearBackward, ParamsBuilder, Role, View};

use super::config::DecoderConfig;

/// The head's matrix, `[V, C]`.
#[derive(Clone, Copy, Debug)]
pub(super) struct LmHead {
    w: View,
}

impl LmHead {
    /// A tied head has no parameter of its own.
    pub(super) fn new(
        builder: &mut ParamsBuilder,
        config: &DecoderConfig,
        word_embeddings: View,
    ) -> Self {
        if config.tied {
            return Self { w: word_embeddings };
        }
        let (shape, init) =
            ([config.vocab_size, config.hidden_size], Init::Normal(config.initializer_range));
        Self { w: builder.add("lm_head.weight", &shape, Role::Weight, init) }
    }

    /// `[V, C]`.
    pub(super) fn matrix(self) -> View {
        self.w
    }

    /// `[N, C]` to `[N, V]`.
    pub(super) fn forward(self, device: &mut dyn Device, x: View, logits: View) {
        device.linear(&Linear { x, w: self.w, b: None, y: logits, activated: None });
    }

    /// Writes the gradient of `x` and adds that of the matrix.
    pub(super) fn backward(
        self,
        device: &mut dyn Device,
        grads: Grads<'_>,
        x: View,
        d_logits: View,
        dx: View,
    ) {
        device.linear_backward(&LinearBackward {
            x,
            w: self.w,
            dy: d_logits,
            dx: Some(dx),
            add_to_dx: false,
            through: None,
            dw: grads.of(self.w),
            db: None,
        });
    }
}
