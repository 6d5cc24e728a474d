//! The gradient of a whole objective through a whole model, against central finite differences in
//! double precision: label, teacher, hidden and relation terms together, with dropout, for every
//! family; and the two laws of a step: how it is cut changes nothing, and what counts nothing adds
//! nothing.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::path::Path;

use heirloom_engine::{
    Cpu, Device, Divergence, HiddenDistance, IGNORED, Ids, Params, Reference, RelationMeasure,
    Space, View,
};
use heirloom_models::{
    Buffers, Capacity, DeviceBatch, EncoderConfig, Head, Inputs, Model, Noise, Purpose,
};
use heirloom_objective::{
    Counts, HiddenTerm, LabelLoss, Labels, Objective, Parts, RelationTerm, Rows, Side, Signals,
    TeacherSignals, TeacherTerm, Term, TermKind,
};
use serde_json::json;

/// Half the distance of the two points of a difference. Its square times a third derivative of
/// size 100 is 1e-10; the rounding of a loss of size 10 over it is 2e-9.
const STEP: f64 = 1e-6;
/// Largest difference allowed: ten times the rounding above, and the same share of the parameter's
/// largest gradient.
const ABSOLUTE: f64 = 2e-8;
const RELATIVE: f64 = 1e-7;

const HEAD: Head = Head::SingleLabel { labels: 3 };
const NOISE: Noise = Noise { seed: 5, step: 3 };
const VOCABULARY: usize = 11;

/// Sequences of these lengths; the second and the last have no label.
const LENGTHS: [usize; 5] = [5, 1, 2, 7, 3];
const LABELS: [u32; 5] = [2, IGNORED, 0, 1, IGNORED];

fn config(family: &str, width: usize, layers: usize, dropout: f64) -> EncoderConfig {
    let json = json!({
        "model_type": family, "vocab_size": VOCABULARY, "max_position_embeddings": 12,
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": 2,
        "intermediate_size": 10, "hidden_dropout_prob": dropout,
        "attention_probs_dropout_prob": dropout, "classifier_dropout": dropout,
        "dim": width, "n_layers": layers, "n_heads": 2, "hidden_dim": 10, "dropout": dropout,
        "attention_dropout": dropout, "seq_classif_dropout": dropout,
    });
    EncoderConfig::from_map(Path::new("config.json"), json.as_object().unwrap().clone()).unwrap()
}

/// Numbers spread over −½..½, the same on every machine.
fn spread(len: usize, seed: u64) -> impl Iterator<Item = f64> {
    let word = move |at| heirloom_base::word(seed, heirloom_base::Purpose::Init, 9, at as u64);
    (0..len).map(move |at| heirloom_base::uniform(word(at)) - 0.5)
}

/// Weights of ordinary size everywhere: no bias is 0, no norm is 1.
fn fill(device: &mut dyn Device, params: &Params, seed: u64) {
    params.init(device, seed);
    let flat = params.flat(params.weights());
    let drawn = device.read_f64(flat);
    let moved: Vec<f64> =
        drawn.iter().zip(spread(flat.len(), seed)).map(|(x, y)| x + 0.8 * y).collect();
    device.write_f64(flat, &moved);
}

/// Every kind of term, on every kind of place. `project` says whether the widths differ.
fn every_term(project: bool) -> Vec<(Term, bool)> {
    let hidden = |distance, student, teacher, rows| {
        TermKind::Hidden(HiddenTerm { distance, student, teacher, rows, projection: None })
    };
    let relation = |sides, student, teacher, measure| {
        TermKind::Relation(RelationTerm { sides, student, teacher, heads: 2, measure })
    };
    let soft = TeacherTerm {
        divergence: Divergence::ForwardKl,
        temperature: 2.0,
        scale_by_temperature_squared: true,
    };
    let (mean_squared, cosine) = (HiddenDistance::MeanSquared, HiddenDistance::Cosine);
    [
        (0.3, TermKind::Label(LabelLoss::CrossEntropy), false),
        (0.7, TermKind::Teacher(soft), false),
        (0.1, TermKind::TeacherNumbers, false),
        (0.5, hidden(mean_squared, 1, 2, Rows::All), true),
        (0.4, hidden(mean_squared, 1, 1, Rows::First), true),
        (1.1, hidden(HiddenDistance::Normalized, 2, 3, Rows::First), project),
        (0.6, hidden(cosine, 0, 0, Rows::All), project),
        (0.9, relation((Side::Value, Side::Value), 2, 3, RelationMeasure::Kl), false),
        (0.8, relation((Side::Query, Side::Key), 1, 1, RelationMeasure::Kl), false),
        (0.2, relation((Side::Query, Side::Key), 2, 2, RelationMeasure::ScoresMse), false),
    ]
    .into_iter()
    .enumerate()
    .map(|(at, (weight, kind, projected))| {
        (Term { name: format!("{at}"), weight, kind }, projected)
    })
    .collect()
}

/// Student, teacher and objective on one device.
struct Bench<'d> {
    device: &'d mut dyn Device,
    student: Model,
    teacher: Model,
    objective: Objective,
    student_buffers: Buffers,
    teacher_buffers: Buffers,
    student_batch: DeviceBatch,
    teacher_batch: DeviceBatch,
    labels: Ids,
    grads: Space,
    projection_grads: Space,
}

impl<'d> Bench<'d> {
    fn new(
        device: &'d mut dyn Device,
        family: &str,
        teacher_width: usize,
        dropout: f64,
        terms: Vec<(Term, bool)>,
    ) -> Self {
        let tokens = LENGTHS.iter().sum();
        let capacity = Capacity { tokens, sequences: LENGTHS.len(), masked: 0 };
        let student = Model::new(device, config(family, 8, 2, dropout), HEAD);
        let teacher = Model::new(device, config(family, teacher_width, 3, 0.0), HEAD);
        let (terms, projected): (Vec<Term>, Vec<bool>) = terms.into_iter().unzip();
        let taps = Objective::taps(&terms);
        let config = student.config();
        let objective =
            Objective::new(device, terms, &projected, config, Some(teacher.config()), capacity);
        fill(device, student.params(), 1);
        fill(device, teacher.params(), 2);
        fill(device, objective.params(), 3);
        Self {
            student_buffers: student.buffers(device, capacity, &Purpose::Train(taps)),
            teacher_buffers: teacher.buffers(device, capacity, &Purpose::Inspect),
            student_batch: student.batch(device, capacity),
            teacher_batch: teacher.batch(device, capacity),
            labels: Ids::at(device.alloc_ids(LENGTHS.len()), 0, LENGTHS.len()),
            grads: device.alloc(student.params().len()),
            projection_grads: device.alloc(objective.params().len()),
            device,
            student,
            teacher,
            objective,
        }
    }

    /// The learned buffers: weights and gradients of student and projections.
    fn learned(&self) -> [(Params, Space); 2] {
        [
            (self.student.params().clone(), self.grads),
            (self.objective.params().clone(), self.projection_grads),
        ]
    }

    /// Evaluates the sequences of `range`; adds gradients where `backward`.
    fn part(
        &mut self,
        range: std::ops::Range<usize>,
        labels: &[u32],
        counts: Counts,
        backward: bool,
    ) -> Parts {
        let (mut ids, mut positions, mut rows, mut starts) = (vec![], vec![], vec![], vec![0]);
        for sequence in range.clone() {
            for at in 0..LENGTHS[sequence] {
                ids.push(((7 * sequence + 3 * at + at * at) % VOCABULARY) as u32);
                positions.push(at as u32);
                rows.push((sequence << 16 | at) as u32);
            }
            starts.push(ids.len() as u32);
        }
        let types = vec![0; ids.len()];
        let inputs = Inputs {
            ids: &ids,
            types: &types,
            positions: &positions,
            rows: &rows,
            starts: &starts,
            masked: &[],
        };
        let device = &mut *self.device;
        self.student_batch.upload(device, &inputs);
        self.teacher_batch.upload(device, &inputs);
        let classes = self.labels.first(range.len());
        device.write_ids(classes, &labels[range.clone()]);
        let (batch, buffers) = (&self.teacher_batch, &self.teacher_buffers);
        let logits = self.teacher.forward(device, batch, buffers, None);
        let (batch, buffers) = (&self.student_batch, &self.student_buffers);
        let output = self.student.forward(device, batch, buffers, Some(NOISE));
        let d_output = self.student.d_output(buffers, output.rows());
        device.fill(d_output, 0.0);
        buffers.clear_taps(device, batch.tokens());
        let signals = Signals {
            output,
            d_output: backward.then_some(d_output),
            labels: Labels::Classes(classes),
            labelled: labelled(&labels[range]),
            regularized: None,
            teacher: Some(TeacherSignals { logits, inside: Some(&self.teacher_buffers) }),
            balance: None,
            inside: buffers,
            batch,
        };
        let grads = backward.then_some(self.projection_grads);
        let parts = self.objective.evaluate(device, &signals, counts, grads);
        if backward {
            self.student.backward(device, batch, buffers, self.grads, Some(NOISE));
        }
        parts
    }

    /// The step cut at `cuts`; gradients are begun anew where `backward`.
    fn step(&mut self, cuts: &[usize], labels: &[u32], backward: bool) -> f64 {
        let counts = Counts {
            labelled: labelled(labels),
            sequences: LENGTHS.len() as u64,
            tokens: LENGTHS.iter().sum::<usize>() as u64,
        };
        if backward {
            for (params, grads) in self.learned() {
                self.device.fill(params.flat(grads), 0.0);
            }
        }
        let mut parts = Parts::default();
        let ends = cuts.iter().copied().chain([LENGTHS.len()]);
        let mut start = 0;
        for end in ends {
            parts.add(&self.part(start..end, labels, counts, backward));
            start = end;
        }
        self.objective.total(&parts)
    }

    fn loss(&mut self) -> f64 {
        self.step(&[], &LABELS, false)
    }

    fn gradients(&self) -> Vec<f64> {
        let read = |(params, grads): &(Params, Space)| self.device.read_f64(params.flat(*grads));
        self.learned().iter().flat_map(read).collect()
    }

    /// Slope of the loss where `view` is moved along `direction`.
    fn slope(&mut self, views: &[(View, Vec<f64>)]) -> f64 {
        let before: Vec<Vec<f64>> =
            views.iter().map(|(view, _)| self.device.read_f64(*view)).collect();
        let mut at = |distance: f64| {
            for ((view, direction), before) in views.iter().zip(&before) {
                let moved: Vec<f64> =
                    before.iter().zip(direction).map(|(x, d)| x + distance * d).collect();
                self.device.write_f64(*view, &moved);
            }
            self.loss()
        };
        let slope = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        at(0.0);
        slope
    }
}

fn labelled(labels: &[u32]) -> u64 {
    labels.iter().filter(|&&label| label != IGNORED).count() as u64
}

#[track_caller]
fn check(family: &str, teacher_width: usize) {
    let mut device = Reference::<f64>::new();
    let terms = every_term(teacher_width != 8);
    let mut bench = Bench::new(&mut device, family, teacher_width, 0.1, terms);
    let evaluated = bench.step(&[], &LABELS, true);
    assert!((evaluated - bench.loss()).abs() < 1e-14, "the loss is the same without gradients");
    let gradients: Vec<Vec<f64>> =
        bench.learned().iter().map(|(p, g)| bench.device.read_f64(p.flat(*g))).collect();
    for ((params, _), flat) in bench.learned().into_iter().zip(&gradients) {
        for param in params.index() {
            let gradient = &flat[param.offset..param.offset + param.len()];
            let largest = gradient.iter().fold(0.0_f64, |size, d| size.max(d.abs()));
            let bound = ABSOLUTE + RELATIVE * largest;
            // All numbers of a small parameter, and some forty spread over a large one.
            for at in (0..param.len()).step_by((param.len() / 40).max(1)) {
                let place = View::matrix(params.weights(), param.offset + at, 1, 1);
                let want = bench.slope(&[(place, vec![1.0])]);
                let name = &param.name;
                let off = (gradient[at] - want).abs();
                assert!(off <= bound, "{family} {name}[{at}]: {} is not {want}", gradient[at]);
            }
        }
    }
    // Every number at once, along a direction of length about √n.
    let directions: Vec<(View, Vec<f64>)> = bench
        .learned()
        .iter()
        .map(|(params, _)| {
            let flat = params.flat(params.weights());
            (flat, spread(flat.len(), 77).collect())
        })
        .collect();
    let along = |(gradient, (_, direction)): (&Vec<f64>, &(View, Vec<f64>))| -> f64 {
        gradient.iter().zip(direction).map(|(g, d)| g * d).sum()
    };
    let got: f64 = gradients.iter().zip(&directions).map(along).sum();
    let want = bench.slope(&directions);
    // A direction this long has larger third derivatives.
    assert!(
        (got - want).abs() <= 1e-6 * (1.0 + want.abs()),
        "{family}: {got} along, is not {want}"
    );
}

#[test]
fn of_bert_with_a_teacher_of_its_width() {
    check("bert", 8);
}

#[test]
fn of_bert_with_a_wider_teacher() {
    check("bert", 12);
}

#[test]
fn of_roberta() {
    check("roberta", 12);
}

#[test]
fn of_distilbert() {
    check("distilbert", 8);
}

#[test]
fn a_step_cut_anywhere_has_the_same_loss_and_gradient() {
    let mut device = Reference::<f64>::new();
    let mut bench = Bench::new(&mut device, "bert", 12, 0.1, every_term(true));
    let whole = (bench.step(&[], &LABELS, true), bench.gradients());
    for cuts in [&[3][..], &[1, 2], &[1, 2, 3, 4]] {
        let loss = bench.step(cuts, &LABELS, true);
        assert!((loss - whole.0).abs() <= 1e-14 * whole.0, "cut at {cuts:?}: {loss}");
        for (at, (got, want)) in bench.gradients().iter().zip(&whole.1).enumerate() {
            assert!((got - want).abs() <= 1e-13, "cut at {cuts:?}, [{at}]: {got} is not {want}");
        }
    }
}

#[test]
fn a_step_without_a_label_has_loss_and_gradient_exactly_zero() {
    let mut device = Reference::<f64>::new();
    let label = every_term(false).into_iter().take(1).collect();
    let mut bench = Bench::new(&mut device, "bert", 8, 0.1, label);
    assert_eq!(bench.step(&[2], &[IGNORED; 5], true), 0.0);
    assert!(bench.gradients().iter().all(|&gradient| gradient == 0.0));
    assert!(bench.step(&[2], &LABELS, true) > 0.0, "and one with labels has not");
    assert!(bench.gradients().iter().any(|&gradient| gradient != 0.0));
}

#[test]
fn a_step_without_a_label_leaves_the_other_terms_whole() {
    let mut device = Reference::<f64>::new();
    let terms = every_term(false);
    let mut all = Bench::new(&mut device, "bert", 8, 0.1, terms);
    let without = (all.step(&[], &[IGNORED; 5], true), all.gradients());
    let mut device = Reference::<f64>::new();
    let mut others = Bench::new(&mut device, "bert", 8, 0.1, every_term(false).split_off(1));
    assert_eq!(others.step(&[], &[IGNORED; 5], true), without.0);
    assert_eq!(others.gradients(), without.1);
}

#[test]
fn huge_logits_have_finite_loss_and_gradient_on_both_devices() {
    let devices: [&mut dyn Device; 2] = [&mut Reference::<f64>::new(), &mut Cpu::new(1)];
    for device in devices {
        let mut bench = Bench::new(device, "bert", 12, 0.1, every_term(true));
        for model in [&bench.student, &bench.teacher] {
            let params = model.params();
            let classifier = params.find("classifier.weight").unwrap();
            bench.device.scale(1e5, params.view(classifier, params.weights()));
        }
        let loss = bench.step(&[], &LABELS, true);
        assert!(loss.is_finite() && loss > 1e3, "{loss}");
        assert!(bench.gradients().iter().all(|gradient| gradient.is_finite()));
    }
}
