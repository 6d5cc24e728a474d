//! What an objective may look at.

use heirloom_engine::{Ids, View};
use heirloom_models::{Buffers, DeviceBatch};

/// How many items of each kind a whole optimiser step holds. A term divides by one of these, so
/// micro-batches need not know one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sequences, or masked tokens, with a label.
    pub labelled: u64,
    /// Sequences.
    pub sequences: u64,
    /// Tokens.
    pub tokens: u64,
}

/// The labels of a batch on the device.
#[derive(Clone, Copy, Debug)]
pub enum Labels {
    /// A class per row of logits, or [`heirloom_engine::IGNORED`].
    Classes(Ids),
    /// Numbers per row: scores, or 0 and 1 per label.
    Numbers(View),
}

/// What the teacher says about a batch, or several of them, `T`.
#[derive(Clone, Copy, Debug)]
pub struct TeacherSignals<'a> {
    /// Its logits, as many rows and columns as the student's; of several teachers those of each below
    /// the one's before, `[T·R, K]`.
    pub logits: View,
    /// Its hidden states, where it runs live and is looked into.
    pub inside: Option<&'a Buffers>,
}

/// Weights of the label's and each teacher's losses, row by row; constants of the step.
#[derive(Clone, Copy, Debug)]
pub struct Balanced {
    /// Of the label's losses, `[R, 1]`.
    pub label: View,
    /// Of the teacher's, `[R, 1]`; of several teachers those of each below the one's before,
    /// `[T·R, 1]`.
    pub teacher: View,
    /// The teachers' terms' temperature; `None` leaves its own.
    pub temperature: Option<f64>,
}

/// The label's losses as a regularizer makes them, in place of the plain ones.
#[derive(Clone, Copy, Debug)]
pub struct Regularized {
    /// Loss of each row, `[R, 1]`.
    pub losses: View,
    /// Its gradient with respect to the output, `[R, K]`.
    pub gradients: View,
}

/// Everything about one micro-batch.
#[derive(Clone, Copy, Debug)]
pub struct Signals<'a> {
    /// The student's output.
    pub output: View,
    /// Gradient of the output, added to; `None` where only the loss is wanted.
    pub d_output: Option<View>,
    /// The labels.
    pub labels: Labels,
    /// How many rows of this micro-batch have a label.
    pub labelled: u64,
    /// What a regularizer made of the labels of this very output; `None` leaves them plain.
    pub regularized: Option<Regularized>,
    /// The teacher, if there is one.
    pub teacher: Option<TeacherSignals<'a>>,
    /// Weights of rows; `None` weighs all alike.
    pub balance: Option<Balanced>,
    /// The student's hidden states, and where their gradients go.
    pub inside: &'a Buffers,
    /// The packed batch.
    pub batch: &'a DeviceBatch,
}

impl Signals<'_> {
    /// The logits of teacher number `teacher`, for a term that needs them.
    pub(crate) fn teacher_logits(&self, teacher: usize) -> View {
        let all = self.teacher.expect("the plan gives this term a teacher").logits;
        self.rows_of(teacher, all)
    }

    /// The weights of that teacher's losses, where rows are weighed.
    pub(crate) fn teacher_weights(&self, teacher: usize) -> Option<View> {
        Some(self.rows_of(teacher, self.balance?.teacher))
    }

    /// One teacher's rows of what stands teacher below teacher.
    fn rows_of(&self, teacher: usize, all: View) -> View {
        let rows = self.output.rows();
        let at = all.offset() + teacher * rows * all.cols();
        View::matrix(all.space(), at, rows, all.cols())
    }
}
