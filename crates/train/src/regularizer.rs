//! From a plan's regularizer to the function that regularizes.
//!
//! In: the plan's words and numbers, and how often each class is in the training set. Out: a target
//! as it is before the first step. Never: a default; the recipe has decided them all.

use heirloom_recipe::{Learning, Line, RegularizerPlan, Smoothed, Softening};
use heirloom_regularize as regularize;
use heirloom_regularize::{
    Adam, Learned, Learner, Mix, MlcShape, OneHot, Schedule, SoftTarget, Sum, Target,
};

/// The regularizer of a plan, before it has gathered anything. `class_counts` are those of the
/// training set, `[K]`.
///
/// `features` is the width of what the classifier sees; what is drawn at random follows from `seed`.
///
/// # Panics
/// Where the plan's regularizer is a program's own, which no plan can make ([`crate::Own`]).
pub fn regularizer(
    plan: &RegularizerPlan,
    class_counts: &[usize],
    features: usize,
    seed: u64,
) -> Box<dyn Target> {
    let classes = class_counts.len();
    match *plan {
        RegularizerPlan::LabelSmoothing { alpha, smoothed } => {
            let spread = match smoothed {
                Smoothed::All => regularize::Spread::AllClasses,
                Smoothed::Others => regularize::Spread::OtherClasses,
            };
            along(alpha, |epsilon| Box::new(regularize::LabelSmoothing { epsilon, spread }))
        }
        RegularizerPlan::Prior { alpha } => along(alpha, |epsilon| {
            Box::new(regularize::Prior { epsilon, prior: shares(class_counts) })
        }),
        RegularizerPlan::ConfidencePenalty { weight } => {
            along(weight, |beta| Box::new(regularize::ConfidencePenalty { beta }))
        }
        RegularizerPlan::GeneralizedEntropy { weight, skew } => {
            along(weight, |beta| Box::new(regularize::GeneralizedEntropy { beta, skew }))
        }
        RegularizerPlan::TfKd { alpha, peak, temperature, softening } => {
            let softening = match softening {
                Softening::Logits => regularize::Softening::Correct,
                Softening::Probabilities => regularize::Softening::Published,
            };
            along(alpha, |alpha| {
                let confidence = peak;
                Box::new(regularize::TfKdReg { alpha, confidence, temperature, softening })
            })
        }
        RegularizerPlan::OnlineLabelSmoothing { alpha } => {
            // Nothing was answered yet, so nothing is preferred.
            along(alpha, |alpha| {
                Box::new(regularize::OnlineLabelSmoothing::new(classes, alpha, 1.0))
            })
        }
        RegularizerPlan::Zipf { weight } => {
            along(weight, |lambda| Box::new(regularize::Zipf { lambda }))
        }
        RegularizerPlan::Margin { weight, margin } => {
            along(weight, |alpha| Box::new(regularize::Mbls { alpha, margin }))
        }
        RegularizerPlan::MaxSup { weight } => {
            Box::new(regularize::MaxSup { alpha: schedule(weight) })
        }
        RegularizerPlan::Bootstrap { alpha, hard: false } => {
            along(alpha, |alpha| Box::new(regularize::BootstrapSoft { beta: 1.0 - alpha }))
        }
        RegularizerPlan::Bootstrap { alpha, hard: true } => {
            along(alpha, |alpha| Box::new(regularize::BootstrapHard { beta: 1.0 - alpha }))
        }
        RegularizerPlan::Labo { alpha, temperature } => {
            Box::new(regularize::Labo::new(schedule(alpha), schedule(temperature)))
        }
        RegularizerPlan::Entropic { alpha, uniform, teacher, prior } => {
            let anchors: [(f64, Box<dyn SoftTarget>); 3] = [
                (uniform, Box::new(regularize::Uniform)),
                (teacher, Box::new(regularize::Teacher { temperature: 1.0 })),
                (prior, Box::new(regularize::Constant { q: shares(class_counts) })),
            ];
            let anchors = anchors.into_iter().filter(|(strength, _)| *strength > 0.0).collect();
            let compromise: Box<dyn SoftTarget> = Box::new(regularize::entropic(anchors));
            let label: Box<dyn SoftTarget> = Box::new(OneHot);
            Box::new(Mix { parts: vec![(rest(alpha), label), (schedule(alpha), compromise)] })
        }
        RegularizerPlan::LearnedSmoothing { alpha, learning } => {
            learner(Box::new(regularize::LearnedSmoothing::shared(alpha)), learning)
        }
        RegularizerPlan::LearnedLabo { alpha, temperature, learning } => {
            learner(Box::new(regularize::LearnedLabo::new(alpha, temperature)), learning)
        }
        RegularizerPlan::PerClass { alpha, learning } => {
            learner(Box::new(regularize::PerClass::new(classes, alpha)), learning)
        }
        RegularizerPlan::PerInstance { learning } => {
            // The sizes of the published code, but for its much wider features.
            let shape = MlcShape { features, classes, embedding: 64, hidden: 64, skip: true };
            learner(Box::new(regularize::Mlc::new(shape, seed)), learning)
        }
        RegularizerPlan::Own { .. } => {
            unreachable!("a program's own regularizer is the program's to make")
        }
    }
}

fn learner(target: Box<dyn Learned>, learning: Learning) -> Box<dyn Target> {
    let Learning { learning_rate, weight_decay } = learning;
    Box::new(Learner::new(target, Adam { learning_rate, weight_decay }))
}

/// A method whose loss is the plain one and a strength times something: at a strength that goes
/// along a line, it is the plain loss and the method at strength 1, in parts that do.
fn along(strength: Line, method: impl Fn(f64) -> Box<dyn Target>) -> Box<dyn Target> {
    if strength.from == strength.to {
        return method(strength.from);
    }
    let plain: Box<dyn Target> = Box::new(OneHot);
    Box::new(Sum { parts: vec![(rest(strength), plain), (schedule(strength), method(1.0))] })
}

fn schedule(line: Line) -> Schedule {
    Schedule { from: line.from, to: line.to, course: regularize::Course::Linear }
}

fn rest(line: Line) -> Schedule {
    schedule(Line { from: 1.0 - line.from, to: 1.0 - line.to })
}

/// How often each class is in the training set; one that is not there counts as a part of an
/// example, so that its logarithm is finite.
fn shares(class_counts: &[usize]) -> Vec<f64> {
    let count = |count: usize| (count as f64).max(0.5);
    let total: f64 = class_counts.iter().map(|&n| count(n)).sum();
    class_counts.iter().map(|&n| count(n) / total).collect()
}
