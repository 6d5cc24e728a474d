//! How large the demo is: amounts of text, shapes of the models, lengths of the runs.

/// The shape of a model.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) layers: usize,
    pub(super) hidden: usize,
    pub(super) heads: usize,
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Labelled texts that the teacher learns from.
    pub(super) teacher_texts: usize,
    /// Labelled texts that the students learn from; the teacher has not seen them.
    pub(super) student_texts: usize,
    /// Texts that every model is judged on.
    pub(super) test_texts: usize,
    pub(super) teacher: Shape,
    pub(super) student: Shape,
    /// Passes over the texts. With more of them, students on labels alone learn the labels by heart
    /// and their probabilities get worse.
    pub(super) teacher_epochs: usize,
    pub(super) student_epochs: usize,
    /// Students of each kind.
    pub(super) seeds: u64,
}

/// Fewest texts of a kind: some batches, with every class among them.
const FEWEST_TEXTS: usize = 64;

impl Sizes {
    /// The demo as it is shown: about a minute on two quiet cores, most of it the teacher's.
    const FULL: Self = Self {
        teacher_texts: 60_000,
        student_texts: 4000,
        test_texts: 4000,
        teacher: Shape { layers: 2, hidden: 64, heads: 4 },
        student: Shape { layers: 2, hidden: 32, heads: 4 },
        teacher_epochs: 2,
        student_epochs: 8,
        seeds: 3,
    };

    /// The demo with a share of its texts; the models stay as they are.
    pub(super) fn of(scale: f64) -> Self {
        let full = Self::FULL;
        let texts = |count: usize| ((count as f64 * scale) as usize).max(FEWEST_TEXTS);
        Self {
            teacher_texts: texts(full.teacher_texts),
            student_texts: texts(full.student_texts),
            test_texts: texts(full.test_texts),
            ..full
        }
    }
}
