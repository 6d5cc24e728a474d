//! Hidden states held against the teacher's, layer by layer, with a learned projection where the
//! widths differ.
//!
//! `cosine`: 1 − cos per token (DistilBERT; Sanh et al. 2019, arXiv:1910.01108). `normalized`:
//! squared distance of unit vectors (patient distillation; Sun et al. 2019, arXiv:1908.09355; on
//! first tokens in the paper). `mean_squared` with projection: TinyBERT (Jiao et al. 2020,
//! arXiv:1909.10351, eq. 8), the mean over the width in place of its sum.

use heirloom_engine::{
    Device, HiddenDistance, Linear, LinearBackward, Params, RowLoss, Space, Target, View,
};

use crate::Insides;
use crate::objective::Scratch;

/// Which rows of a hidden state count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Every token.
    All,
    /// The first token of each sequence.
    First,
}

/// One pair of layers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct HiddenTerm {
    /// The distance of two rows.
    pub distance: HiddenDistance,
    /// Student's hidden state: 0 after the embeddings, i after block i.
    pub student: usize,
    /// Teacher's, likewise.
    pub teacher: usize,
    /// Which rows.
    pub rows: Rows,
    /// The learned projection `[Cₜ, Cₛ]`, laid out by [`crate::Objective`]; without bias.
    pub projection: Option<View>,
}

impl HiddenTerm {
    /// Writes each row's loss and returns their view; adds gradients where `scale` is given.
    pub(crate) fn losses(
        &self,
        device: &mut dyn Device,
        insides: &Insides<'_>,
        scratch: &Scratch,
        projection_grads: Option<Space>,
        scale: Option<f64>,
    ) -> View {
        let Insides { student, teacher, batch } = *insides;
        let (tokens, sequences) = (batch.tokens(), batch.sequences());
        let first = batch.starts().first(sequences);
        let student_all = student.hidden(self.student).first_rows(tokens);
        let teacher_all = teacher.hidden(self.teacher).first_rows(tokens);
        let (x, t) = match self.rows {
            Rows::All => (student_all, teacher_all),
            Rows::First => {
                let x = scratch.student.reshaped_rows(sequences, student_all.cols());
                let t = scratch.teacher.reshaped_rows(sequences, teacher_all.cols());
                device.embed(&[(student_all, first)], x);
                device.embed(&[(teacher_all, first)], t);
                (x, t)
            }
        };
        let rows = x.rows();
        let y = match self.projection {
            None => x,
            Some(w) => {
                let y = scratch.projected.reshaped_rows(rows, t.cols());
                device.linear(&Linear { x, w, b: None, y, activated: None });
                y
            }
        };
        let losses = scratch.losses.first_rows(rows);
        let target = Target::Distance(self.distance, t);
        let tap = student.d_hidden_tap(self.student).map(|tap| tap.first_rows(tokens));
        let (Some(scale), Some(tap)) = (scale, tap) else {
            device.row_loss(&RowLoss { x: y, target, scale: 0.0, weights: None, losses, dx: None });
            return losses;
        };
        // Straight into the tap where nothing lies between; through scratch otherwise.
        if self.projection.is_none() && self.rows == Rows::All {
            device.row_loss(&RowLoss { x: y, target, scale, weights: None, losses, dx: Some(tap) });
            return losses;
        }
        let dy = scratch.d_projected.reshaped_rows(rows, y.cols());
        device.fill(dy, 0.0);
        device.row_loss(&RowLoss { x: y, target, scale, weights: None, losses, dx: Some(dy) });
        let dx = match (self.projection, projection_grads) {
            (Some(w), Some(grads)) => {
                let dx = scratch.d_student.reshaped_rows(rows, x.cols());
                device.linear_backward(&LinearBackward {
                    x,
                    w,
                    dy,
                    dx: Some(dx),
                    add_to_dx: false,
                    through: None,
                    dw: Some(Params::twin(w, grads)),
                    db: None,
                });
                dx
            }
            _ => dy,
        };
        match self.rows {
            Rows::All => device.add_scaled(1.0, dx, tap),
            Rows::First => device.embed_backward(dx, &[(tap, first)]),
        }
        losses
    }
}
