//! A step of a classifier: an encoder, two classes of sequences, and the teacher's logits of them.

use std::path::Path;

use heirloom::failure::Failure;
use heirloom_engine::{Device, Divergence, Ids, View};
use heirloom_models::{Buffers, Capacity, DeviceBatch, EncoderConfig, Head, Model, Noise};
use heirloom_objective::{
    Counts, LabelLoss, Labels, Objective, Signals, TeacherSignals, TeacherTerm, Term, TermKind,
};
use heirloom_store::{Array, Values};
use serde_json::{Map, Value, json};

use super::learning::Learning;
use super::{
    ALPHA, Drawn, LONGEST, SEED, Shape, Steps, TEMPERATURE, buffers_for, dump, random,
    teacher_logits, upload, words,
};
use crate::args::BenchStepArgs;

/// BERT's vocabulary (Devlin et al. 2019, arXiv:1810.04805).
pub(super) const VOCABULARY: u32 = 30_522;
pub(super) const LABELS: usize = 2;

/// A student with its optimiser, its batch, and what it is held against.
pub(super) struct Classifier {
    model: Model,
    objective: Objective,
    buffers: Buffers,
    batch: DeviceBatch,
    labels: Ids,
    teacher: View,
    counts: Counts,
    /// Where gradient and moments are; `None` where only the forward pass is timed.
    learning: Option<Learning>,
}

impl Classifier {
    pub(super) fn new(
        device: &mut dyn Device,
        shape: Shape,
        args: &BenchStepArgs,
    ) -> Result<Self, Failure> {
        let (batch, seq) = (args.batch, args.seq);
        let capacity = Capacity { tokens: batch * seq, sequences: batch, masked: 0 };
        let model =
            Model::new(device, config(shape, args.dropout)?, Head::SingleLabel { labels: LABELS });
        model.init(device, SEED);
        let ids = words(VOCABULARY, batch * seq);
        let table = Some(model.word_embeddings());
        let learning =
            (!args.infer).then(|| Learning::new(device, model.params(), table, ids.clone(), args));
        let buffers = model.buffers(device, capacity, &buffers_for(args));
        let objective =
            Objective::new(device, terms(), &[false; 2], model.config(), None, capacity);
        let mut room = model.batch(device, capacity);
        upload(device, &mut room, &ids, batch, seq);
        let labels = Ids::at(device.alloc_ids(batch), 0, batch);
        device.write_ids(labels, &classes(batch));
        let teacher = View::matrix(device.alloc(batch * LABELS), 0, batch, LABELS);
        device.write(teacher, &teacher_logits(batch * LABELS));
        let tokens = (batch * seq) as u64;
        let counts = Counts { labelled: batch as u64, sequences: batch as u64, tokens };
        Ok(Self { model, objective, buffers, batch: room, labels, teacher, counts, learning })
    }

    fn loss(&self, device: &mut dyn Device, output: View, d_output: Option<View>) -> f64 {
        let signals = Signals {
            output,
            d_output,
            labels: Labels::Classes(self.labels),
            labelled: self.counts.labelled,
            regularized: None,
            teacher: Some(TeacherSignals { logits: self.teacher, inside: None }),
            balance: None,
            inside: &self.buffers,
            batch: &self.batch,
        };
        let parts = self.objective.evaluate(device, &signals, self.counts, None);
        self.objective.total(&parts)
    }
}

impl Steps for Classifier {
    fn parameters(&self) -> usize {
        self.model.params().count()
    }

    fn infer(&mut self, device: &mut dyn Device) -> f64 {
        let output = self.model.forward(device, &self.batch, &self.buffers, None);
        self.loss(device, output, None)
    }

    fn train(&mut self, device: &mut dyn Device, at: u64) -> f64 {
        let noise = Some(Noise { seed: SEED, step: at });
        let mut learning = self.learning.take().expect("a step that trains has its moments");
        learning.see(device);
        let output = self.model.forward(device, &self.batch, &self.buffers, noise);
        let d_output = self.model.d_output(&self.buffers, output.rows());
        device.fill(d_output, 0.0);
        let loss = self.loss(device, output, Some(d_output));
        self.model.backward(device, &self.batch, &self.buffers, learning.learned.grads, noise);
        learning.step(device, at);
        self.learning = Some(learning);
        loss
    }

    fn dump(
        &self,
        device: &dyn Device,
        args: &BenchStepArgs,
        folder: &Path,
    ) -> Result<(), Failure> {
        let (batch, seq) = (args.batch, args.seq);
        let (ids, labels) =
            (dump::wide(&words(VOCABULARY, batch * seq)), dump::wide(&classes(batch)));
        let logits = teacher_logits(batch * LABELS);
        let arrays = [
            Array { name: "ids", shape: &[batch, seq], values: Values::I64(&ids) },
            Array { name: "labels", shape: &[batch], values: Values::I64(&labels) },
            Array { name: "teacher_logits", shape: &[batch, LABELS], values: Values::F32(&logits) },
        ];
        let (config, tensors) = (self.model.config_json(&[]), self.model.tensors(device));
        dump::write(folder, &config, &tensors, &arrays)
    }
}

fn config(shape: Shape, dropout: f32) -> Result<EncoderConfig, Failure> {
    let keys = json!({
        "model_type": "bert",
        "vocab_size": VOCABULARY,
        "max_position_embeddings": LONGEST,
        "type_vocab_size": 2,
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.inner,
    });
    let keys: Map<String, Value> = keys.as_object().cloned().unwrap_or_default();
    let config = EncoderConfig::from_map(std::path::Path::new(shape.name), keys)?;
    Ok(EncoderConfig {
        hidden_dropout: dropout,
        attention_dropout: dropout,
        classifier_dropout: dropout,
        ..config
    })
}

fn terms() -> Vec<Term> {
    let teacher = TeacherTerm {
        divergence: Divergence::ForwardKl,
        temperature: TEMPERATURE,
        scale_by_temperature_squared: true,
    };
    let label = TermKind::Label(LabelLoss::CrossEntropy);
    vec![
        Term { name: "label".to_owned(), weight: 1.0 - ALPHA, kind: label },
        Term { name: "teacher".to_owned(), weight: ALPHA, kind: TermKind::Teacher(teacher) },
    ]
}

/// The labels of `batch` sequences.
fn classes(batch: usize) -> Vec<u32> {
    random(Drawn::Labels, batch).map(|number| (LABELS as f64 * number) as u32).collect()
}
