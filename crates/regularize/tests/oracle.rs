//! Every target against `fixtures/regularizers.safetensors`: losses, gradients and, for those that
//! learn, pulled-back gradients, all by PyTorch's automatic differentiation in double precision.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use heirloom_regularize::{
    Against, BootstrapHard, BootstrapSoft, ClassSimilarity, ConfidencePenalty, Course, Divergence,
    GeneralizedEntropy, GeometricMix, LabelSmoothing, Labo, Learned, LearnedLabo, LearnedSmoothing,
    MaxSup, Mbls, Mlc, MlcShape, OneHot, OnlineLabelSmoothing, PerClass, Prior, Rest, Row,
    Schedule, SelfDistillation, SoftTarget, Softening, Spread, Student, Sum, Target, Teacher,
    Temper, TfKdReg, TfKdSelf, TopK, Uniform, Zipf, entropic,
};
use safetensors::SafeTensors;

const FILE: &[u8] = include_bytes!("../../../fixtures/regularizers.safetensors");

/// Sums of a few terms of size 1 in another order, and definitions that are not stable forms.
const BOUND: f64 = 1e-12;

struct Group {
    file: SafeTensors<'static>,
    name: &'static str,
    classes: usize,
}

impl Group {
    fn numbers(&self, name: &str) -> Vec<f64> {
        let tensor = self.file.tensor(&format!("{}.{name}", self.name)).unwrap();
        tensor.data().as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect()
    }

    fn labels(&self, name: &str) -> Vec<usize> {
        let tensor = self.file.tensor(&format!("{}.{name}", self.name)).unwrap();
        let bytes = tensor.data().as_chunks().0;
        bytes.iter().map(|&bytes| i64::from_le_bytes(bytes) as usize).collect()
    }

    /// Each of the fixture's rows, halfway through the run.
    fn each(&self, mut of: impl FnMut(usize, &Row<'_>)) {
        let [student, teacher, earlier, features] =
            ["student", "teacher", "earlier", "features"].map(|name| self.numbers(name));
        let labels = self.labels("labels");
        for (at, &label) in labels.iter().enumerate() {
            let own =
                |of: &'_ [f64]| at * of.len() / labels.len()..(at + 1) * of.len() / labels.len();
            let row = Row {
                label: Some(label),
                logits: &student[own(&student)],
                teacher: Some(&teacher[own(&teacher)]),
                earlier: Some(&earlier[own(&earlier)]),
                features: Some(&features[own(&features)]),
                progress: 0.5,
            };
            of(at, &row);
        }
    }

    fn check(&self, name: &str, target: &dyn Target) {
        let (mut losses, mut gradient) = (Vec::new(), Vec::new());
        self.each(|_, row| {
            let mut d = vec![f64::NAN; self.classes];
            losses.push(target.loss(row, &mut d));
            gradient.extend(d);
        });
        self.near(&format!("{name}.loss"), &losses);
        self.near(&format!("{name}.grad"), &gradient);
    }

    fn check_learned(&self, name: &str, mut target: impl Learned) {
        target.parameters_mut().copy_from_slice(&self.numbers(&format!("{name}.parameters")));
        self.check(name, &target);
        let (d_q, mut pulled) = (self.numbers("d_q"), vec![0.0; target.parameters().len()]);
        self.each(|at, row| {
            target.pull_back(row, &d_q[at * self.classes..][..self.classes], &mut pulled);
        });
        self.near(&format!("{name}.pulled"), &pulled);
    }

    fn near(&self, name: &str, got: &[f64]) {
        let want = self.numbers(name);
        assert_eq!(got.len(), want.len(), "{}.{name}", self.name);
        for (at, (got, want)) in got.iter().zip(want).enumerate() {
            let near = (got - want).abs() < BOUND;
            assert!(near, "{}.{name}[{at}] is {got}, should be {want}", self.name);
        }
    }
}

fn both(of: impl Fn(&Group)) {
    for (name, classes) in [("five", 5), ("two", 2)] {
        of(&Group { file: SafeTensors::deserialize(FILE).unwrap(), name, classes });
    }
}

fn teacher(temperature: f64) -> Box<dyn SoftTarget> {
    Box::new(Teacher { temperature })
}

fn smoothing(spread: Spread) -> LabelSmoothing {
    LabelSmoothing { epsilon: 0.1, spread }
}

fn ramp(from: f64, to: f64) -> Schedule {
    Schedule { from, to, course: Course::Linear }
}

#[test]
fn labels_smoothed_and_not() {
    both(|group| {
        group.check("one_hot", &OneHot);
        group.check("smoothing.all", &smoothing(Spread::AllClasses));
        group.check("smoothing.others", &smoothing(Spread::OtherClasses));
        group.check("prior", &Prior { epsilon: 0.2, prior: group.numbers("prior") });
        let temper = |target: Box<dyn SoftTarget>| Temper { target, temperature: 3.0.into() };
        group.check("temper", &temper(Box::new(smoothing(Spread::AllClasses))));
        let tf_kd =
            |softening| TfKdReg { alpha: 0.8, confidence: 0.9, temperature: 20.0, softening };
        group.check("tf_kd.published", &tf_kd(Softening::Published));
        group.check("tf_kd.correct", &tf_kd(Softening::Correct));
        let vectors = group.numbers("vectors");
        let similarity = ClassSimilarity::new(&vectors, group.classes, 0.3, 0.2);
        group.check("class_similarity", &similarity);
    });
}

#[test]
fn penalties() {
    both(|group| {
        group.check("confidence_penalty", &ConfidencePenalty { beta: 0.3 });
        group.check("generalized_entropy.0.0", &GeneralizedEntropy { beta: 0.7, skew: 0.0 });
        group.check("generalized_entropy.0.4", &GeneralizedEntropy { beta: 0.7, skew: 0.4 });
        group.check("generalized_entropy.1.0", &GeneralizedEntropy { beta: 0.7, skew: 1.0 });
        group.check("zipf", &Zipf { lambda: 0.1 });
        group.check("mbls", &Mbls { alpha: 0.1, margin: 0.5 });
        group.check("max_sup", &MaxSup { alpha: ramp(0.1, 0.2) });
    });
}

#[test]
fn the_student_teaches_itself() {
    both(|group| {
        group.check("tf_kd.self", &TfKdSelf { alpha: 0.9, temperature: 4.0 });
        group.check("self_distillation", &SelfDistillation { temperature: 1.5 });
        group.check("bootstrap.soft", &BootstrapSoft { beta: 0.95 });
        group.check("bootstrap.hard", &BootstrapHard { beta: 0.8 });
        group.check("labo", &Labo::new(0.4, 2.0));
        group.check("labo.scheduled", &Labo::new(ramp(0.0, 1.0), ramp(9.0, 1.0)));
        let label = || Box::new(smoothing(Spread::AllClasses));
        let anchors: Vec<(f64, Box<dyn SoftTarget>)> =
            vec![(2.0, Box::new(Uniform)), (0.5, teacher(2.0)), (0.25, label())];
        group.check("entropic", &entropic(anchors));
        let mut online = OnlineLabelSmoothing::new(group.classes, 0.5, 0.1);
        let seen = group.numbers("seen");
        for (logits, label) in seen.chunks_exact(group.classes).zip(group.labels("seen_labels")) {
            online.observe(&Row::new(Some(label), logits));
        }
        online.end_of_epoch();
        group.check("online", &online);
    });
}

#[test]
fn teachers() {
    both(|group| {
        group.check("teacher", &*teacher(2.0));
        let against = |divergence| Against { target: teacher(3.0), divergence };
        group.check("teacher.kl", &against(Divergence::Kl { temperature: 3.0 }));
        group.check("teacher.reverse", &against(Divergence::ReverseKl { temperature: 3.0 }));
        let student = Box::new(Student { temperature: 1.0 });
        let parts: Vec<(Schedule, Box<dyn SoftTarget>)> =
            vec![(0.3.into(), student), (0.7.into(), teacher(1.0))];
        group.check("geometric", &GeometricMix { parts });
        for k in if group.classes > 3 { vec![1, 3] } else { vec![1] } {
            let top = |rest| TopK { k, temperature: 2.0, rest };
            group.check(&format!("top.{k}.dropped"), &top(Rest::Dropped));
            group.check(&format!("top.{k}.even"), &top(Rest::Even));
        }
        // Half of the label's with its penalty of 0.3, and twice the teacher's.
        let penalty = Box::new(ConfidencePenalty { beta: 0.6 });
        let parts: Vec<(Schedule, Box<dyn Target>)> =
            vec![(0.5.into(), penalty), (2.0.into(), teacher(2.0))];
        group.check("sum", &Sum { parts });
    });
}

#[test]
fn targets_that_learn() {
    both(|group| {
        let classes = group.classes;
        group.check_learned("per_class", PerClass::new(classes, 0.1));
        group.check_learned("smoothing.shared", LearnedSmoothing::shared(0.1));
        group.check_learned("smoothing.per_label", LearnedSmoothing::per_label(classes, 0.1));
        group.check_learned("labo.learned", LearnedLabo::new(0.5, 2.0));
        let mlc =
            |skip| Mlc::new(MlcShape { features: 3, classes, embedding: 2, hidden: 4, skip }, 1);
        group.check_learned("mlc", mlc(false));
        group.check_learned("mlc.skip", mlc(true));
    });
}
