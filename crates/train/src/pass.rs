//! One micro-batch through the model: what is uploaded, the forward pass, the losses, the gradient.
//!
//! In: examples of a data set and who answers for the teacher. Out: losses, and gradients added.
//! Never: decides what a step is, or moves a weight.

use std::ops::Range;

use heirloom_balance::{Decision, LABEL, TEACHER};
use heirloom_data::cache::TeacherCache;
use heirloom_data::dataset::Dataset;
use heirloom_data::label::Label;
use heirloom_data::pack::Batch;
use heirloom_engine::{Device, Grads, IGNORED, IdSpace, Ids, View};
use heirloom_models::{Buffers, Capacity, DeviceBatch, Head, Model, Noise, Purpose};
use heirloom_objective::{
    Balanced, Counts, Labels, Objective, Regularized, Signals, TeacherSignals,
};

use crate::predict::inputs;
use crate::regularizing::{Regularizing, Rows};
use crate::teacher::TeacherAnswers;

/// Model and objective, and the room for a micro-batch between them.
pub(crate) struct Pass {
    pub(crate) model: Model,
    pub(crate) objective: Objective,
    pub(crate) buffers: Buffers,
    batch: DeviceBatch,
    pub(crate) host: Batch,
    labels: LabelRoom,
    /// The teachers' answers, `[T·R, K]`, and what of one's is on its way there.
    logits: View,
    host_logits: Vec<f32>,
    /// How many teachers there are, `T`; 1 where there is none.
    teachers: usize,
    /// Weights of rows: label's, `[R, 1]`; teachers', `[T·R, 1]`.
    weights: [View; 2],
    /// What the label becomes, where it is not itself.
    pub(crate) regularizing: Option<Regularizing>,
}

/// A micro-batch that was uploaded.
#[derive(Clone, Copy)]
pub(crate) struct Uploaded {
    labels: Labels,
    labelled: u64,
    /// What a regularizer made of the labels.
    pub(crate) regularized: Option<Regularized>,
    /// The teachers' logits, `[T·R, K]`.
    pub(crate) teacher: Option<View>,
}

/// Labels of a micro-batch, on the device.
struct LabelRoom {
    classes: IdSpace,
    numbers: View,
    /// The same on their way there; room kept from step to step.
    host_classes: Vec<u32>,
    host_numbers: Vec<f32>,
}

impl Pass {
    /// Plans the memory of micro-batches up to `capacity`, with the answers of `teachers`.
    pub(crate) fn new(
        device: &mut dyn Device,
        model: Model,
        objective: Objective,
        capacity: Capacity,
        purpose: &Purpose,
        teachers: usize,
    ) -> Self {
        let teachers = teachers.max(1);
        let buffers = model.buffers(device, capacity, purpose);
        let batch = model.batch(device, capacity);
        let width = model.head().width(model.config());
        let shapes = [(1, width), (teachers, width), (1, 1), (teachers, 1)];
        let [numbers, logits, label_weights, teacher_weights] = shapes.map(|(times, width)| {
            let rows = times * capacity.sequences;
            View::matrix(device.alloc(rows * width), 0, rows, width)
        });
        let labels = LabelRoom {
            classes: device.alloc_ids(capacity.sequences),
            numbers,
            host_classes: Vec::new(),
            host_numbers: Vec::new(),
        };
        Self {
            model,
            objective,
            buffers,
            batch,
            host: Batch::default(),
            labels,
            logits,
            host_logits: Vec::new(),
            teachers,
            weights: [label_weights, teacher_weights],
            regularizing: None,
        }
    }

    /// Packs and uploads `examples`, the first of which is number `first` of its step, with the
    /// teacher's answers to them.
    pub(crate) fn upload(
        &mut self,
        device: &mut dyn Device,
        data: &Dataset,
        examples: &[u32],
        first: usize,
        teacher: &mut TeacherAnswers,
    ) -> Uploaded {
        self.host.refill(data, examples, first);
        self.batch.upload(device, &inputs(&self.host));
        let (labels, labelled) = self.labels.upload(device, self.model.head(), &self.host);
        let teacher = match teacher {
            TeacherAnswers::Nobody => None,
            // Left where it computed them.
            TeacherAnswers::Live(live) => Some(live.answer(device, &self.host)),
            TeacherAnswers::Cached(cache) => Some(self.kept(device, cache, 0)),
            TeacherAnswers::Several(all) => {
                for (at, one) in all.iter_mut().enumerate() {
                    self.gather(device, one, at);
                }
                Some(self.logits.first_rows(all.len() * self.host.sequences()))
            }
        };
        Uploaded { labels, labelled, regularized: None, teacher }
    }

    /// Writes teacher number `at`'s answers below those of the teachers before it.
    fn gather(&mut self, device: &mut dyn Device, teacher: &mut TeacherAnswers, at: usize) {
        match teacher {
            TeacherAnswers::Cached(cache) => _ = self.kept(device, cache, at),
            TeacherAnswers::Live(live) => {
                let answers = live.answer(device, &self.host);
                device.copy(answers, self.place(at));
            }
            TeacherAnswers::Nobody | TeacherAnswers::Several(_) => {
                unreachable!("each of several teachers is one")
            }
        }
    }

    /// Where teacher number `at`'s answers to the micro-batch stand.
    fn place(&self, at: usize) -> View {
        let (rows, cols) = (self.host.sequences(), self.logits.cols());
        let offset = self.logits.offset() + at * rows * cols;
        View::matrix(self.logits.space(), offset, rows, cols)
    }

    /// Writes a teacher's kept answers there.
    fn kept(&mut self, device: &mut dyn Device, cache: &TeacherCache, at: usize) -> View {
        let place = self.place(at);
        let rows = self.host.examples.iter().flat_map(|&example| cache.row(example as usize));
        self.host_logits.clear();
        self.host_logits.extend(rows);
        device.write(place, &self.host_logits);
        place
    }

    /// The teachers' answers to the micro-batch uploaded last, `[R, T, K]`; none without a teacher.
    pub(crate) fn teacher_rows(&self, device: &dyn Device, uploaded: Uploaded) -> Vec<f32> {
        let Some(view) = uploaded.teacher else { return Vec::new() };
        let stacked = device.read(view);
        if self.teachers == 1 {
            return stacked;
        }
        let (rows, cols) = (view.rows() / self.teachers, view.cols());
        let places = (0..rows).flat_map(|row| (0..self.teachers).map(move |at| at * rows + row));
        places.flat_map(|at| &stacked[at * cols..(at + 1) * cols]).copied().collect()
    }

    /// Where the terms of label and teachers are among the objective's.
    pub(crate) fn weighed(&self) -> Range<usize> {
        LABEL..TEACHER + self.teachers
    }

    /// The model's output for the micro-batch uploaded last.
    pub(crate) fn forward(&self, device: &mut dyn Device, noise: Option<Noise>) -> View {
        self.model.forward(device, &self.batch, &self.buffers, noise)
    }

    /// The micro-batch with its labels regularized for this `output`: for what is trained on.
    pub(crate) fn regularize(
        &mut self,
        device: &mut dyn Device,
        uploaded: Uploaded,
        output: View,
    ) -> Uploaded {
        if self.regularizing.is_none() {
            return uploaded;
        }
        let rows = self.rows(device, uploaded, output);
        let Some(regularizing) = &mut self.regularizing else { return uploaded };
        Uploaded { regularized: Some(regularizing.apply(device, &rows)), ..uploaded }
    }

    /// The same, and the regularizer hears what was answered: for the pass that moves weights, once
    /// for each micro-batch.
    pub(crate) fn regularize_heard(
        &mut self,
        device: &mut dyn Device,
        uploaded: Uploaded,
        output: View,
    ) -> Uploaded {
        if self.regularizing.is_none() {
            return uploaded;
        }
        let rows = self.rows(device, uploaded, output);
        let Some(regularizing) = &mut self.regularizing else { return uploaded };
        let regularized = regularizing.apply(device, &rows);
        regularizing.observe(&rows);
        Uploaded { regularized: Some(regularized), ..uploaded }
    }

    /// What a regularizer sees of the micro-batch uploaded last.
    pub(crate) fn rows(&self, device: &dyn Device, uploaded: Uploaded, output: View) -> Rows {
        let sees_features =
            self.regularizing.as_ref().is_some_and(|regularizing| regularizing.sees_features());
        let first = |view: View| device.read_f64(view.first_rows(output.rows()));
        Rows {
            labels: self.classes(),
            logits: device.read_f64(output),
            teacher: uploaded.teacher.map(first).unwrap_or_default(),
            features: match sees_features {
                true => self.features(device, output.rows()).into_iter().map(f64::from).collect(),
                false => Vec::new(),
            },
        }
    }

    /// Empties the gradient of `output`, and those of all taps.
    pub(crate) fn clear(&self, device: &mut dyn Device, output: View) -> View {
        let d_output = self.model.d_output(&self.buffers, output.rows());
        device.fill(d_output, 0.0);
        self.buffers.clear_taps(device, self.batch.tokens());
        d_output
    }

    /// What the objective looks at.
    pub(crate) fn signals<'a>(
        &'a self,
        uploaded: Uploaded,
        output: View,
        d_output: Option<View>,
        inside: Option<&'a Buffers>,
        balance: Option<Balanced>,
    ) -> Signals<'a> {
        Signals {
            output,
            d_output,
            labels: uploaded.labels,
            labelled: uploaded.labelled,
            regularized: uploaded.regularized,
            teacher: uploaded.teacher.map(|logits| TeacherSignals { logits, inside }),
            balance,
            inside: &self.buffers,
            batch: &self.batch,
        }
    }

    /// Adds the gradients that `grads` has a place for, from that of the output and the taps.
    pub(crate) fn backward<'g>(
        &self,
        device: &mut dyn Device,
        grads: impl Into<Grads<'g>>,
        noise: Option<Noise>,
    ) {
        self.model.backward(device, &self.batch, &self.buffers, grads, noise);
    }

    /// Losses of each row, `[R, 1 + T]`: label, each teacher. Without a gradient.
    pub(crate) fn row_losses(
        &self,
        device: &mut dyn Device,
        uploaded: Uploaded,
        output: View,
    ) -> Vec<f64> {
        let signals = self.signals(uploaded, output, None, None, None);
        let terms = self.weighed().map(|place| {
            let losses = self.objective.row_losses(device, &signals, place);
            device.read_f64(losses)
        });
        let terms: Vec<Vec<f64>> = terms.collect();
        (0..output.rows()).flat_map(|row| terms.iter().map(move |losses| losses[row])).collect()
    }

    /// What the last layer saw of each row, `[R, C]`.
    pub(crate) fn features(&self, device: &dyn Device, rows: usize) -> Vec<f32> {
        self.model.features(&self.buffers, rows).map(|view| device.read(view)).unwrap_or_default()
    }

    /// The gradient of each row's loss of one term on its logits, `[R, K]`, without weights. Leaves
    /// the gradient of the output empty.
    pub(crate) fn logit_gradients(
        &self,
        device: &mut dyn Device,
        uploaded: Uploaded,
        output: View,
        place: usize,
    ) -> Vec<f64> {
        let d_output = self.clear(device, output);
        let signals = self.signals(uploaded, output, Some(d_output), None, None);
        // A mean over one row: the gradients of each row's own loss.
        let one = Counts { labelled: 1, sequences: 1, tokens: 1 };
        self.objective.evaluate_some(device, &signals, one, None, place..place + 1);
        let gradients = device.read_f64(d_output);
        device.fill(d_output, 0.0);
        gradients
    }

    /// Uploads the weights of a decision.
    pub(crate) fn weigh(&self, device: &mut dyn Device, decision: &Decision) -> Balanced {
        let Decision { weights, terms, temperature, .. } = decision;
        let rows = weights.len() / terms;
        let [label, teacher] = self.weights;
        let views = [label.first_rows(rows), teacher.first_rows((terms - 1) * rows)];
        let column = |term: usize| weights.iter().skip(term).step_by(*terms).copied();
        device.write_f64(views[0], &column(LABEL).collect::<Vec<_>>());
        device.write_f64(views[1], &(TEACHER..*terms).flat_map(column).collect::<Vec<_>>());
        Balanced { label: views[0], teacher: views[1], temperature: *temperature }
    }

    /// The class of each row, where it has one.
    pub(crate) fn classes(&self) -> Vec<Option<u32>> {
        let class = |label: &Label| match label {
            Label::Class(class) => Some(*class),
            _ => None,
        };
        self.host.labels.iter().map(class).collect()
    }
}

impl LabelRoom {
    /// Copies the labels in; also says how many rows have one.
    fn upload(&mut self, device: &mut dyn Device, head: Head, batch: &Batch) -> (Labels, u64) {
        let labelled = batch.labels.iter().filter(|label| **label != Label::None).count() as u64;
        let rows = batch.sequences();
        if let Head::SingleLabel { .. } = head {
            let class = |label: &Label| match label {
                Label::Class(class) => *class,
                _ => IGNORED,
            };
            let ids = Ids::at(self.classes, 0, rows);
            self.host_classes.clear();
            self.host_classes.extend(batch.labels.iter().map(class));
            device.write_ids(ids, &self.host_classes);
            return (Labels::Classes(ids), labelled);
        }
        let view = self.numbers.first_rows(rows);
        let numbers = &mut self.host_numbers;
        numbers.clear();
        for label in &batch.labels {
            match label {
                Label::Score(score) => numbers.push(*score),
                Label::Multi(marks) => numbers.extend_from_slice(marks),
                Label::None | Label::Class(_) => {
                    unreachable!("the data of this task was read with scores or label sets")
                }
            }
        }
        device.write(view, numbers);
        (Labels::Numbers(view), labelled)
    }
}
