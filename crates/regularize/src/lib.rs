//! Label regularizers: what a sample is taught in place of its label.
//!
//! In: one row: a label, the student's logits, and where a method asks for them the teacher's, an
//! earlier model's, features. Out: a loss and its gradient on the student's logits, and the
//! *effective target* `q = s − ∂loss/∂z`, the distribution that the row is in fact taught. Never: a
//! device, a file, a batch.
//!
//! Distillation and label regularization are one thing here. Any loss on logits that adding a
//! constant to them does not change has a gradient that sums to 0, so `q` sums to 1, and the
//! gradient on the student's parameters is that of `CE(q, s)` with `q` held fixed. Where `q` is a
//! distribution ([`SoftTarget`]) the method is a label regularizer in the narrow sense; a temperature
//! other than 1, a penalty on confidence, or a reverse divergence makes it signed.
//!
//! With `y` the label, `z` and `s = softmax(z)` the student, `t^T` the teacher and `e^T` an earlier
//! model at temperature T, `u` the even distribution:
//!
//! | target | loss | source |
//! |---|---|---|
//! | [`OneHot`] | CE(y, s) | |
//! | [`LabelSmoothing`] | CE((1 − ε)y + εu, s) | Szegedy et al. 2016 |
//! | [`Prior`] | CE((1 − ε)y + επ, s) | Pereyra et al. 2017 |
//! | [`ConfidencePenalty`] | CE(y, s) − βH(s) | Pereyra et al. 2017 |
//! | [`GeneralizedEntropy`] | CE(y, s) + βJ(u, s) | Meister et al. 2020 |
//! | [`TfKdReg`] | CE((1 − α)y + αp, s), p a virtual teacher | Yuan et al. 2020 |
//! | [`TfKdSelf`] | (1 − α)CE(y, s) + αT²KL(e^T, s^T) | Yuan et al. 2020 |
//! | [`SelfDistillation`] | CE(e^T, s) | Furlanello et al. 2018 |
//! | [`OnlineLabelSmoothing`] | CE((1 − α)y + αS\[y\], s), S the classes' memory | Zhang et al. 2021 |
//! | [`Zipf`] | CE(y, s) + λKL(1/rank, s without y) | Liang et al. 2022 |
//! | [`Mbls`] | CE(y, s) + α mean max(0, max z − z − m) | Liu et al. 2022 |
//! | [`MaxSup`] | CE(y, s) + α(max z − mean z) | Zhou et al. 2025 |
//! | [`BootstrapSoft`] | βCE(y, s) + (1 − β)H(s) | Reed et al. 2015 |
//! | [`BootstrapHard`] | CE(βy + (1 − β)argmax, s) | Reed et al. 2015 |
//! | [`Labo`] | CE((1 − α)y + α softmax(z/τ), s) | Lu et al. 2023 |
//! | [`entropic()`] | CE(q, s), q ∝ s^c Π π^b | Lu et al. 2023 |
//! | [`Teacher`] | CE(t^T, s) | Hinton et al. 2015 |
//! | [`TopK`] | CE(the k largest of t^T, s) | Tang et al. 2020 |
//! | [`ClassSimilarity`] | CE((1 − α)y + α softmax(cos(w, w_y)/T), s) | Tang et al. 2020 |
//! | [`PerClass`] | CE(softmax(φ\[y\]), s), φ learnt | |
//! | [`LearnedSmoothing`] | CE((1 − ε)y + εu, s), ε learnt | |
//! | [`LearnedLabo`] | as [`Labo`], α and τ learnt | Lu et al. 2023 |
//! | [`Mlc`] | CE(q, s), q a network of features and y | Zheng et al. 2021 |
//!
//! All but [`ConfidencePenalty`], [`GeneralizedEntropy`], [`TfKdSelf`], [`Zipf`], [`Mbls`],
//! [`MaxSup`] and [`BootstrapSoft`] are distributions, which [`Mix`], [`GeometricMix`] and [`Temper`]
//! join and [`Against`] holds the student to by another divergence. [`Sum`] adds losses of any kind;
//! [`Detach`] turns any of them into its effective target. A [`Learner`] moves a learnt target's
//! parameters, wherever it stands in a mix.

mod anchors;
mod bootstrap;
mod class_similarity;
mod combine;
mod confidence_penalty;
mod divergence;
mod entropic;
mod generalized_entropy;
mod label_smoothing;
mod labo;
mod learned_labo;
mod learned_smoothing;
mod learner;
mod max_sup;
mod mbls;
mod mlc;
mod network;
mod numbers;
mod one_hot;
mod online_label_smoothing;
mod per_class;
mod prior;
mod row;
mod schedule;
mod self_distillation;
mod target;
mod tf_kd_reg;
mod tf_kd_self;
mod top_k;
mod zipf;

pub use anchors::{Constant, Student, Teacher, Uniform};
pub use bootstrap::{BootstrapHard, BootstrapSoft};
pub use class_similarity::ClassSimilarity;
pub use combine::{Detach, GeometricMix, Labelled, Mix, Sum, Temper};
pub use confidence_penalty::ConfidencePenalty;
pub use divergence::{Against, Divergence, detached};
pub use entropic::entropic;
pub use generalized_entropy::GeneralizedEntropy;
pub use label_smoothing::{LabelSmoothing, Spread};
pub use labo::Labo;
pub use learned_labo::LearnedLabo;
pub use learned_smoothing::LearnedSmoothing;
pub use learner::{Adam, Learner};
pub use max_sup::MaxSup;
pub use mbls::Mbls;
pub use mlc::{Mlc, MlcShape};
pub use numbers::{cross_entropy, entropy, kl, ln_softmax, softmax};
pub use one_hot::OneHot;
pub use online_label_smoothing::OnlineLabelSmoothing;
pub use per_class::PerClass;
pub use prior::Prior;
pub use row::Row;
pub use schedule::{Course, Schedule};
pub use self_distillation::SelfDistillation;
pub use target::{Learned, Needs, Restored, SoftTarget, Target};
pub use tf_kd_reg::{Softening, TfKdReg};
pub use tf_kd_self::TfKdSelf;
pub use top_k::{Rest, TopK};
pub use zipf::Zipf;
