//! Every target, for tests of what holds for all.

use heirloom_regularize::{
    Adam, Against, BootstrapHard, BootstrapSoft, ClassSimilarity, ConfidencePenalty, Constant,
    Course, Detach, Divergence, GeneralizedEntropy, GeometricMix, LabelSmoothing, Labelled, Labo,
    Learned, LearnedLabo, LearnedSmoothing, Learner, MaxSup, Mbls, Mix, Mlc, MlcShape, OneHot,
    OnlineLabelSmoothing, PerClass, Prior, Rest, Row, Schedule, SelfDistillation, SoftTarget,
    Softening, Spread, Student, Sum, Target, Teacher, Temper, TfKdReg, TfKdSelf, TopK, Uniform,
    Zipf, entropic,
};

/// Features of a row.
pub(crate) const WIDTH: usize = 3;

/// Distributions that need few numbers, whatever the number of classes.
pub(crate) fn soft(classes: usize) -> Vec<Box<dyn SoftTarget>> {
    let ramp = |from, to| Schedule { from, to, course: Course::Linear };
    let smoothing = |spread| LabelSmoothing { epsilon: 0.1, spread };
    let prior: Vec<f64> = {
        let total = (classes * (classes + 1) / 2) as f64;
        (1..=classes).map(|class| class as f64 / total).collect()
    };
    let tf_kd = |softening| TfKdReg { alpha: 0.9, confidence: 0.99, temperature: 20.0, softening };
    let top = |k, rest| TopK { k, temperature: 2.0, rest };
    let student = || Box::new(Student { temperature: 2.0 });
    let teacher = || Box::new(Teacher { temperature: 2.0 });
    let label = || Box::new(smoothing(Spread::AllClasses));
    vec![
        Box::new(OneHot),
        Box::new(Uniform),
        Box::new(Constant { q: prior.clone() }),
        label(),
        Box::new(smoothing(Spread::OtherClasses)),
        Box::new(Prior { epsilon: 0.2, prior }),
        Box::new(tf_kd(Softening::Published)),
        Box::new(tf_kd(Softening::Correct)),
        Box::new(SelfDistillation { temperature: 1.5 }),
        Box::new(BootstrapHard { beta: 0.8 }),
        student(),
        teacher(),
        Box::new(Labo::new(0.4, 2.0)),
        Box::new(Labo::new(ramp(0.0, 1.0), ramp(9.0, 1.0))),
        Box::new(Labo::new(0.5, f64::INFINITY)),
        Box::new(top(1, Rest::Dropped)),
        Box::new(top(2, Rest::Even)),
        Box::new(entropic(vec![(2.0, Box::new(Uniform)), (0.5, teacher()), (0.2, label())])),
        Box::new(GeometricMix {
            parts: vec![(ramp(0.1, 0.9), student()), (0.5.into(), teacher())],
        }),
        Box::new(Mix { parts: vec![(0.5.into(), Box::new(OneHot)), (0.5.into(), label())] }),
        Box::new(Mix::schedule(label(), Box::new(Labo::new(0.3, 3.0)), Course::Cosine)),
        Box::new(Labelled { target: teacher() }),
        Box::new(Temper { target: label(), temperature: ramp(1.0, 4.0) }),
        Box::new(LearnedSmoothing::shared(0.1)),
        Box::new(LearnedSmoothing::per_label(classes, 0.3)),
        Box::new(LearnedLabo::new(0.4, 2.0)),
        Box::new(Mlc::new(mlc(classes, true), 7)),
    ]
}

/// Distributions with a number for each pair of classes.
pub(crate) fn pairs(classes: usize) -> Vec<Box<dyn SoftTarget>> {
    let memory = || Box::new(OnlineLabelSmoothing::new(classes, 0.5, 0.1));
    // Rows of different length and direction.
    let vectors: Vec<f64> = (0..classes * 3).map(|at| (at * at % 7) as f64 + 1.0).collect();
    vec![
        memory(),
        Box::new(ClassSimilarity::new(&vectors, classes, 0.3, 0.2)),
        Box::new(PerClass::new(classes, 0.1)),
        Box::new(entropic(vec![(2.0, Box::new(Uniform)), (0.5, memory())])),
    ]
}

/// The rest: losses whose gradient goes through all of them, what they hold fixed being the same
/// near any logits without equals.
pub(crate) fn losses() -> Vec<Box<dyn Target>> {
    let skew = |skew| GeneralizedEntropy { beta: 0.7, skew };
    let teacher = || Box::new(Teacher { temperature: 2.0 });
    let against = |divergence| Against { target: teacher(), divergence };
    let penalty = || Box::new(ConfidencePenalty { beta: 0.3 });
    vec![
        penalty(),
        Box::new(skew(0.0)),
        Box::new(skew(0.4)),
        Box::new(skew(1.0)),
        Box::new(TfKdSelf { alpha: 0.9, temperature: 4.0 }),
        Box::new(Zipf { lambda: 0.1 }),
        Box::new(Mbls { alpha: 0.1, margin: 0.5 }),
        Box::new(MaxSup { alpha: Schedule { from: 0.1, to: 0.2, course: Course::Linear } }),
        Box::new(BootstrapSoft { beta: 0.95 }),
        Box::new(against(Divergence::CrossEntropy)),
        Box::new(against(Divergence::Kl { temperature: 2.0 })),
        Box::new(against(Divergence::ReverseKl { temperature: 2.0 })),
        Box::new(Sum { parts: vec![(0.5.into(), penalty()), (2.0.into(), teacher())] }),
    ]
}

/// Targets that learn.
pub(crate) fn learned(classes: usize) -> Vec<Box<dyn Learned>> {
    vec![
        Box::new(PerClass::new(classes, 0.1)),
        Box::new(LearnedSmoothing::shared(0.1)),
        Box::new(LearnedSmoothing::per_label(classes, 0.3)),
        Box::new(LearnedLabo::new(0.4, 2.0)),
        Box::new(Mlc::new(mlc(classes, true), 7)),
        Box::new(Mlc::new(mlc(classes, false), 8)),
    ]
}

/// A target that learns in every place of a combinator.
pub(crate) fn learners(classes: usize) -> Vec<Box<dyn SoftTarget>> {
    let adam = Adam { learning_rate: 0.1, weight_decay: 0.01 };
    let learner = || Box::new(Learner::new(Box::new(PerClass::new(classes, 0.2)), adam));
    let network = || {
        let network = Box::new(Mlc::new(mlc(classes, true), 7));
        Box::new(Learner::new(network, adam))
    };
    let student = || Box::new(Student { temperature: 2.0 });
    let ramp = Schedule { from: 0.2, to: 0.9, course: Course::Linear };
    vec![
        learner(),
        Box::new(Mix { parts: vec![(0.4.into(), Box::new(OneHot)), (ramp, learner())] }),
        Box::new(GeometricMix { parts: vec![(ramp, student()), (0.7.into(), network())] }),
        Box::new(Temper { target: network(), temperature: 3.0.into() }),
        Box::new(Labelled { target: learner() }),
        Box::new(entropic(vec![(2.0, Box::new(Uniform)), (0.5, learner())])),
    ]
}

/// All of them, and one held fixed.
pub(crate) fn all(classes: usize) -> Vec<Box<dyn Target>> {
    let mut all = losses();
    all.extend(soft(classes).into_iter().map(|target| target as Box<dyn Target>));
    all.extend(pairs(classes).into_iter().map(|target| target as Box<dyn Target>));
    all.extend(learners(classes).into_iter().map(|target| target as Box<dyn Target>));
    all.push(Box::new(Detach { target: Box::new(Zipf { lambda: 0.2 }) }));
    all
}

fn mlc(classes: usize, skip: bool) -> MlcShape {
    MlcShape { features: WIDTH, classes, embedding: 2, hidden: 4, skip }
}

/// A row, owned.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) label: Option<usize>,
    pub(crate) logits: Vec<f64>,
    pub(crate) teacher: Vec<f64>,
    pub(crate) earlier: Vec<f64>,
    pub(crate) features: Vec<f64>,
    pub(crate) progress: f64,
}

impl Sample {
    pub(crate) fn row(&self) -> Row<'_> {
        Row {
            label: self.label,
            logits: &self.logits,
            teacher: Some(&self.teacher),
            earlier: Some(&self.earlier),
            features: Some(&self.features),
            progress: self.progress,
        }
    }
}
