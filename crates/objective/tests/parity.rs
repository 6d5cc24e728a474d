//! Every loss against numbers from autograd (`fixtures/objective.safetensors` and
//! `fixtures/divergences.safetensors`, whose formulas are in the heads of the scripts that make
//! them): each row's loss by the engine's operation, totals and gradients by an [`Objective`].
//!
//! Bounds are relative to the largest element of each tensor.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::path::Path;

use heirloom_engine::{
    Cpu, Device, Divergence, HiddenDistance, IGNORED, Ids, Linear, Reference, Relation,
    RelationMeasure, RowLoss, Target, View,
};
use heirloom_models::{Buffers, Capacity, DeviceBatch, EncoderConfig, Head, Inputs, Purpose};
use heirloom_objective::{
    Counts, HiddenTerm, LabelLoss, Labels, Objective, RelationTerm, Rows, Side, Signals,
    TeacherSignals, TeacherTerm, Term, TermKind,
};
use heirloom_store::TensorFile;
use serde_json::json;

/// Temperature of the mixtures.
const MIX: f64 = 2.0;

/// The fixture on one device.
struct Bench {
    device: Box<dyn Device>,
    bound: f64,
    file: TensorFile,
}

/// Double precision by plain loops, and the device that trains.
fn benches() -> [Bench; 2] {
    benches_of("objective.safetensors")
}

fn benches_of(fixture: &str) -> [Bench; 2] {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures").join(fixture);
    let open = || TensorFile::open(&path).unwrap();
    [
        Bench { device: Box::new(Reference::<f64>::new()), bound: 1e-12, file: open() },
        Bench { device: Box::new(Cpu::new(1)), bound: 1e-5, file: open() },
    ]
}

impl Bench {
    fn numbers(&self, name: &str) -> Vec<f64> {
        self.file.read(name).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// A tensor of the fixture on the device; a vector is one row.
    fn place(&mut self, name: &str) -> View {
        let values = self.numbers(name);
        let shape = self.file.shape(name).unwrap();
        let cols = *shape.last().unwrap();
        let view = self.room(values.len() / cols, cols);
        self.device.write_f64(view, &values);
        view
    }

    /// Zeros.
    fn room(&mut self, rows: usize, cols: usize) -> View {
        let space = self.device.alloc(rows * cols);
        View::matrix(space, 0, rows, cols)
    }

    fn ids(&mut self, values: &[u32]) -> Ids {
        let ids = Ids::at(self.device.alloc_ids(values.len()), 0, values.len());
        self.device.write_ids(ids, values);
        ids
    }

    fn classes(&mut self, name: &str) -> (Ids, u64) {
        let labels: Vec<i64> = self.file.read(name).unwrap();
        let classes: Vec<u32> =
            labels.iter().map(|&label| u32::try_from(label).unwrap_or(IGNORED)).collect();
        let labelled = classes.iter().filter(|&&class| class != IGNORED).count() as u64;
        (self.ids(&classes), labelled)
    }

    #[track_caller]
    fn close(&self, what: &str, got: &[f64], stored: &str) {
        let want = self.numbers(stored);
        assert_eq!(got.len(), want.len(), "{what}: length");
        let size = want.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
        for (at, (got, want)) in got.iter().zip(&want).enumerate() {
            let off = (got - want).abs();
            assert!(
                off <= self.bound * size,
                "{what}[{at}]: {got} is not {want}; {off:e} > {:e} · {size}",
                self.bound,
            );
        }
    }

    /// Each row's loss, and the gradient of their sum over `count`, without an objective between.
    #[track_caller]
    fn check_rows(&mut self, name: &str, x: View, target: Target, count: u64) {
        let losses = self.room(x.rows(), 1);
        let dx = self.room(x.rows(), x.cols());
        let scale = 1.0 / count as f64;
        self.device.row_loss(&RowLoss { x, target, scale, weights: None, losses, dx: Some(dx) });
        self.close(&format!("{name}.rows"), &self.device.read_f64(losses), &format!("{name}.rows"));
        if self.file.has(&format!("{name}.grad.weight")) {
            return;
        }
        let stored = format!("{name}.grad.student");
        self.close(&stored, &self.device.read_f64(dx), &stored);
    }

    /// Total and gradient of an objective on logits: the case `name`, whose inputs are `inputs`.
    #[track_caller]
    fn check_logits(
        &mut self,
        name: &str,
        inputs: &str,
        terms: Vec<Term>,
        labels: Labels,
        labelled: u64,
    ) {
        let output = self.place(&format!("{inputs}.student"));
        let d_output = self.room(output.rows(), output.cols());
        let teacher = format!("{inputs}.teacher");
        let logits = self.file.has(&teacher).then(|| self.place(&teacher));
        let held = Held::new(&mut *self.device, terms, &[], (8, 8), &vec![1; output.rows()]);
        let signals = Signals {
            output,
            d_output: Some(d_output),
            labels,
            labelled,
            regularized: None,
            teacher: logits.map(|logits| TeacherSignals { logits, inside: None }),
            balance: None,
            inside: &held.student,
            batch: &held.batch,
        };
        let total = held.total(&mut *self.device, &signals);
        self.close(&format!("{name}.total"), &[total], &format!("{name}.total"));
        let stored = format!("{name}.grad.student");
        let gradient = self.device.read_f64(d_output);
        self.close(&stored, &gradient, &stored);
        if matches!(labels, Labels::Classes(_)) && labelled == output.rows() as u64 {
            let taught = held.objective.effective_targets(&mut *self.device, &signals);
            self.check_taught(name, output, &gradient, &taught);
            let left = self.device.read_f64(d_output);
            assert!(left.iter().all(|d| *d == 0.0), "{name}: the room is empty afterwards");
        }
    }

    /// Targets against the gradient that PyTorch found: `R` times it is `s − q` where all rows count.
    #[track_caller]
    fn check_taught(&mut self, name: &str, output: View, gradient: &[f64], taught: &[f64]) {
        let (rows, cols) = (output.rows(), output.cols());
        let logits = self.device.read_f64(output);
        for row in 0..rows {
            let logits = &logits[row * cols..][..cols];
            let total: f64 = logits.iter().map(|z| z.exp()).sum();
            let mut sum = 0.0;
            for (at, z) in logits.iter().enumerate() {
                let q = taught[row * cols + at];
                let want = z.exp() / total - rows as f64 * gradient[row * cols + at];
                let near = (q - want).abs() <= 100.0 * self.bound;
                assert!(near, "{name}: q[{row}, {at}] is {q}, should be {want}");
                sum += q;
            }
            assert!((sum - 1.0).abs() <= 100.0 * self.bound, "{name}: q sums to {sum}");
        }
    }

    /// Total and gradients of one term on the inside of two models of one block.
    #[track_caller]
    fn check_inside(&mut self, name: &str, inputs: &str, kind: TermKind, lengths: &[usize]) {
        let (student, teacher) = (format!("{inputs}.student"), format!("{inputs}.teacher"));
        let width = |name: &str| self.file.shape(name).unwrap()[1];
        let widths = (width(&student), width(&teacher));
        let (student, teacher) = (self.numbers(&student), self.numbers(&teacher));
        let projected = self.file.has(&format!("{name}.grad.weight"));
        let terms = vec![Term { name: name.to_owned(), weight: 1.0, kind }];
        let device = &mut *self.device;
        let held = Held::new(device, terms, &[projected], widths, lengths);
        let tokens = held.batch.tokens();
        let side = |buffers: &Buffers, width: usize| match kind {
            TermKind::Relation(RelationTerm { sides: (side, _), .. }) => {
                let part = side as usize * width;
                buffers.qkv(1).first_rows(tokens).columns(part..part + width)
            }
            _ => buffers.hidden(1).first_rows(tokens),
        };
        device.write_f64(side(&held.student, widths.0), &student);
        device.write_f64(side(&held.teacher, widths.1), &teacher);
        held.student.clear_taps(device, tokens);
        let params = held.objective.params();
        let grads = device.alloc(params.len());
        if projected {
            let weight: Vec<f64> = self.file.read(&format!("{inputs}.weight")).unwrap();
            let view = params.view(&params.index()[0], params.weights());
            self.device.write_f64(view, &weight);
        }
        let nothing = self.room(held.batch.sequences(), 1);
        let signals = Signals {
            output: nothing,
            d_output: Some(nothing),
            labels: Labels::Numbers(nothing),
            labelled: 0,
            regularized: None,
            teacher: Some(TeacherSignals { logits: nothing, inside: Some(&held.teacher) }),
            balance: None,
            inside: &held.student,
            batch: &held.batch,
        };
        let counts = held.counts(&signals);
        let parts = held.objective.evaluate(&mut *self.device, &signals, counts, Some(grads));
        let total = held.objective.total(&parts);
        self.close(&format!("{name}.total"), &[total], &format!("{name}.total"));
        let tap = match kind {
            TermKind::Relation(RelationTerm { sides: (side, _), .. }) => {
                let part = side as usize * widths.0;
                held.student.d_qkv_tap(1).unwrap().columns(part..part + widths.0)
            }
            _ => held.student.d_hidden_tap(1).unwrap(),
        };
        let stored = format!("{name}.grad.student");
        self.close(&stored, &self.device.read_f64(tap.first_rows(tokens)), &stored);
        if projected {
            let stored = format!("{name}.grad.weight");
            let view = params.view(&params.index()[0], grads);
            self.close(&stored, &self.device.read_f64(view), &stored);
        }
    }
}

/// An objective with the buffers of two models and a batch of sequences of the given lengths.
struct Held {
    objective: Objective,
    student: Buffers,
    teacher: Buffers,
    batch: DeviceBatch,
}

impl Held {
    fn new(
        device: &mut dyn Device,
        terms: Vec<Term>,
        projected: &[bool],
        widths: (usize, usize),
        lengths: &[usize],
    ) -> Self {
        let tokens: usize = lengths.iter().sum();
        let capacity = Capacity { tokens, sequences: lengths.len(), masked: 0 };
        let (student, teacher) = (config(widths.0), config(widths.1));
        let head = Head::Regression;
        let purpose = Purpose::Train(Objective::taps(&terms));
        let student_buffers = Buffers::new(device, &student, &head, capacity, &purpose);
        let teacher_buffers = Buffers::new(device, &teacher, &head, capacity, &Purpose::Inspect);
        let objective =
            Objective::new(device, terms, projected, &student, Some(&teacher), capacity);
        let mut starts = vec![0];
        lengths.iter().for_each(|&length| starts.push(starts[starts.len() - 1] + length as u32));
        let zeros = vec![0; tokens];
        let mut batch = DeviceBatch::new(device, capacity, 0);
        batch.upload(
            device,
            &Inputs {
                ids: &zeros,
                types: &zeros,
                positions: &zeros,
                rows: &zeros,
                starts: &starts,
                masked: &[],
            },
        );
        Self { objective, student: student_buffers, teacher: teacher_buffers, batch }
    }

    fn counts(&self, signals: &Signals<'_>) -> Counts {
        Counts {
            labelled: signals.labelled,
            sequences: self.batch.sequences() as u64,
            tokens: self.batch.tokens() as u64,
        }
    }

    fn total(&self, device: &mut dyn Device, signals: &Signals<'_>) -> f64 {
        let parts = self.objective.evaluate(device, signals, self.counts(signals), None);
        self.objective.total(&parts)
    }
}

fn config(width: usize) -> EncoderConfig {
    let json = json!({
        "model_type": "bert", "vocab_size": 1, "hidden_size": width, "num_hidden_layers": 1,
        "num_attention_heads": 1, "intermediate_size": 1, "max_position_embeddings": 8,
    });
    EncoderConfig::from_map(Path::new("config.json"), json.as_object().unwrap().clone()).unwrap()
}

fn term(name: &str, weight: f64, kind: TermKind) -> Term {
    Term { name: name.to_owned(), weight, kind }
}

fn forward(temperature: f64) -> TeacherTerm {
    let divergence = Divergence::ForwardKl;
    TeacherTerm { divergence, temperature, scale_by_temperature_squared: true }
}

#[test]
fn cross_entropy_counts_labelled_rows_alone() {
    for mut bench in benches() {
        let (classes, labelled) = bench.classes("ce.labels");
        assert_eq!((classes.len(), labelled), (6, 4), "the fixture has rows without a label");
        let x = bench.place("ce.student");
        bench.check_rows("ce", x, Target::Labels(classes), labelled);
        let terms = vec![term("label", 1.0, TermKind::Label(LabelLoss::CrossEntropy))];
        bench.check_logits("ce", "ce", terms, Labels::Classes(classes), labelled);
    }
}

#[test]
fn binary_cross_entropy_and_squared_error() {
    for mut bench in benches() {
        let (x, y) = (bench.place("bce.student"), bench.place("bce.labels"));
        bench.check_rows("bce", x, Target::Binary(y), 4);
        let terms = vec![term("label", 1.0, TermKind::Label(LabelLoss::BinaryCrossEntropy))];
        bench.check_logits("bce", "bce", terms, Labels::Numbers(y), 4);

        let (x, y) = (bench.place("mse.student"), bench.place("mse.labels"));
        bench.check_rows("mse", x, Target::Distance(HiddenDistance::MeanSquared, y), 5);
        let terms = vec![term("label", 1.0, TermKind::Label(LabelLoss::MeanSquaredError))];
        bench.check_logits("mse", "mse", terms, Labels::Numbers(y), 5);
    }
}

#[test]
fn divergence_from_the_teacher_at_each_temperature() {
    for mut bench in benches() {
        let nothing = bench.room(6, 5);
        for (name, temperature) in [("kd.t1", 1.0), ("kd.t2", 2.0), ("kd.t4", 4.0)] {
            let (x, logits) = (bench.place("kd.student"), bench.place("kd.teacher"));
            let factor = temperature * temperature;
            let divergence = Divergence::ForwardKl;
            let target = Target::Teacher { logits, divergence, temperature, factor, labels: None };
            bench.check_rows(name, x, target, 6);
            let terms = vec![term("teacher", 1.0, TermKind::Teacher(forward(temperature)))];
            bench.check_logits(name, "kd", terms, Labels::Numbers(nothing), 0);
        }
    }
}

#[test]
fn every_other_divergence_from_the_teacher() {
    use Divergence::{
        AlphaBeta, Decoupled, JensenShannon, MeanSquaredLogits, ReverseKl, SkewKl, SkewReverseKl,
        Symmetric, TotalVariation,
    };
    let cases = [
        ("reverse", ReverseKl),
        ("symmetric", Symmetric),
        ("js.0.1", JensenShannon { beta: 0.1 }),
        ("js.0.5", JensenShannon { beta: 0.5 }),
        ("js.0.9", JensenShannon { beta: 0.9 }),
        ("skew.0.1", SkewKl { alpha: 0.1 }),
        ("skew.0.7", SkewKl { alpha: 0.7 }),
        ("skew_reverse.0.1", SkewReverseKl { alpha: 0.1 }),
        ("skew_reverse.0.7", SkewReverseKl { alpha: 0.7 }),
        ("ab.0.2.0.7", AlphaBeta { alpha: 0.2, beta: 0.7 }),
        ("ab.0.5.0.5", AlphaBeta { alpha: 0.5, beta: 0.5 }),
        ("ab.1.0.1.0", AlphaBeta { alpha: 1.0, beta: 1.0 }),
        ("ab.1.5.-0.5", AlphaBeta { alpha: 1.5, beta: -0.5 }),
        ("tv", TotalVariation),
        ("dkd.1.0.8.0", Decoupled { alpha: 1.0, beta: 8.0 }),
        ("dkd.0.5.0.0", Decoupled { alpha: 0.5, beta: 0.0 }),
        ("mse", MeanSquaredLogits { centred: false }),
        ("mse_centred", MeanSquaredLogits { centred: true }),
    ];
    for mut bench in benches_of("divergences.safetensors") {
        let (classes, labelled) = bench.classes("soft.labels");
        assert_eq!((classes.len(), labelled), (6, 5), "one row has no label");
        let (x, logits) = (bench.place("soft.student"), bench.place("soft.teacher"));
        for (name, divergence) in cases {
            for temperature in [1.0, 2.0] {
                let name = format!("{name}.t{temperature}");
                let squared = matches!(divergence, MeanSquaredLogits { .. });
                if squared && temperature != 1.0 {
                    continue; // The temperature has no part in it.
                }
                let (factor, labels) = (temperature * temperature, Some(classes));
                let target = Target::Teacher { logits, divergence, temperature, factor, labels };
                bench.check_rows(&name, x, target, 6);
                // An objective asked for T² leaves it out where the temperature has no part.
                let temperature = if squared { 3.0 } else { temperature };
                let term =
                    TeacherTerm { divergence, temperature, scale_by_temperature_squared: true };
                let terms = vec![self::term("teacher", 1.0, TermKind::Teacher(term))];
                bench.check_logits(&name, "soft", terms, Labels::Classes(classes), labelled);
            }
        }
    }
}

#[test]
fn mixtures_of_teacher_and_labels() {
    for mut bench in benches() {
        for (name, alpha) in
            [("mix.a0.0.t2", 0.0), ("mix.a0.3.t2", 0.3), ("mix.a0.5.t2", 0.5), ("mix.a1.0.t2", 1.0)]
        {
            let (classes, labelled) = bench.classes("mix.labels");
            let label = term("label", 1.0 - alpha, TermKind::Label(LabelLoss::CrossEntropy));
            let teacher = term("teacher", alpha, TermKind::Teacher(forward(MIX)));
            let terms = vec![label, teacher];
            assert_eq!(labelled, classes.len() as u64, "so that targets are looked at too");
            bench.check_logits(name, "mix", terms, Labels::Classes(classes), labelled);
        }
    }
}

#[test]
fn distances_of_hidden_states() {
    for mut bench in benches() {
        for (name, distance) in [
            ("cosine", HiddenDistance::Cosine),
            ("hidden", HiddenDistance::MeanSquared),
            ("pkd", HiddenDistance::Normalized),
        ] {
            let (x, t) = (bench.place("tokens.student"), bench.place("tokens.teacher"));
            bench.check_rows(name, x, Target::Distance(distance, t), 7);
            bench.check_inside(name, "tokens", hidden(distance), &[5, 2]);
        }
    }
}

#[test]
fn a_distance_through_a_projection_reaches_student_and_projection() {
    for mut bench in benches() {
        let names = ["projected.student", "projected.teacher", "projected.weight"];
        let [x, t, w] = names.map(|name| bench.place(name));
        let y = bench.room(t.rows(), t.cols());
        bench.device.linear(&Linear { x, w, b: None, y, activated: None });
        bench.check_rows("projected", y, Target::Distance(HiddenDistance::MeanSquared, t), 7);
        let kind = hidden(HiddenDistance::MeanSquared);
        bench.check_inside("projected", "projected", kind, &[1, 6]);
    }
}

fn hidden(distance: HiddenDistance) -> TermKind {
    let rows = Rows::All;
    TermKind::Hidden(HiddenTerm { distance, student: 1, teacher: 1, rows, projection: None })
}

#[test]
fn relations_of_queries_keys_and_values() {
    for mut bench in benches() {
        for (name, heads) in [("relation.r2", 2), ("relation.r4", 4)] {
            check_relation_rows(&mut bench, name, heads);
            for side in [Side::Query, Side::Key, Side::Value] {
                let kind = TermKind::Relation(RelationTerm {
                    sides: (side, side),
                    student: 1,
                    teacher: 1,
                    heads,
                    measure: RelationMeasure::Kl,
                });
                bench.check_inside(name, "relation", kind, &[5, 3]);
            }
        }
    }
}

/// Our row is a token's, the mean over heads; the stored rows are `[token, head]`.
#[track_caller]
fn check_relation_rows(bench: &mut Bench, name: &str, heads: usize) {
    let (x, t) = (bench.place("relation.student"), bench.place("relation.teacher"));
    let lengths: Vec<i64> = bench.file.read("relation.lengths").unwrap();
    assert_eq!(lengths, [5, 3]);
    let starts = bench.ids(&[0, 5, 8]);
    let losses = bench.room(8, 1);
    bench.device.relation(&Relation {
        a: x,
        b: x,
        teacher_a: t,
        teacher_b: t,
        heads,
        starts,
        longest: 5,
        measure: RelationMeasure::Kl,
        scale: 0.0,
        losses,
        gradients: None,
    });
    let rows = bench.numbers(&format!("{name}.rows"));
    let got = bench.device.read_f64(losses);
    assert_eq!(rows.len(), got.len() * heads);
    let size = rows.iter().fold(0.0_f64, |size, x| size.max(x.abs()));
    for (at, (row, got)) in rows.chunks(heads).zip(got).enumerate() {
        let want = row.iter().sum::<f64>() / heads as f64;
        assert!((got - want).abs() <= bench.bound * size, "{name}.rows[{at}]: {got} is not {want}");
    }
}
