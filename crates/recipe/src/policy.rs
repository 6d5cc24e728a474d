//! Which policy weighs label and teacher, with all its numbers.
//!
//! In: `[objective.balance]`, and the keys it must go together with. Out: a [`BalancePlan`], and
//! what is said about keys without effect. Never: what a policy does; `heirloom-balance` says that.

use crate::balance::{BalancePlan, Estimator, MetaPlan, MetaSource, PolicyPlan};
use crate::choices::{
    Adoption, Course, DivergenceKind, EstimatorKind, MetaAt, MetaFrom, Normalize, PolicyKind,
    TaskKind,
};
use crate::decide::{LARGEST_STEP, batches, missing, needs, value, wrong};
use crate::plan::Batch;
use crate::problem::{Place, ProblemKind, Problems};
use crate::recipe::{At, Balance, Meta, Objective, Recipe};
use crate::task::{data, kind};

use PolicyKind::{
    AdaKd, AnnealingKd, ContinuationKd, Ctkd, DynamicKd, Fixed, GradNorm, L2rw, MetaWeightNet, Own,
    RwKd, Schedule, TgeoKd, Uncertainty, Wsl,
};

/// Policies that learn from a second set.
const LEARN_FROM_A_SECOND_SET: &[PolicyKind] = &[RwKd, L2rw, MetaWeightNet, TgeoKd];

/// Policies that may have one; a program's own has it where the recipe says so.
const MAY_HAVE_A_SECOND_SET: &[PolicyKind] = &[RwKd, L2rw, MetaWeightNet, TgeoKd, Own];

/// Policies with a share of the teacher that they keep or begin with.
const HAVE_A_SHARE: &[PolicyKind] = &[Fixed, DynamicKd, Ctkd, RwKd, L2rw];

/// Policies that weigh several teachers. The others' formulas have one.
const KNOW_SEVERAL_TEACHERS: &[PolicyKind] = &[Fixed, Schedule, Uncertainty, GradNorm, RwKd, Own];

/// Those of them that a language model can have.
const KNOW_SEVERAL_OF_TOKENS: &[PolicyKind] = &[Fixed, Schedule, Uncertainty];

/// Those of them that give all teachers together a share, which their weights part.
const PART_A_SHARE: &[PolicyKind] = &[Fixed, Schedule, RwKd];

impl Recipe {
    /// The policy with all its numbers; `None` where the recipe names none.
    pub fn balance(&self) -> Option<BalancePlan> {
        let balance = value(&self.objective.balance)?;
        let kind = value(&balance.policy)?;
        let written = value(&balance.meta);
        let has_one = LEARN_FROM_A_SECOND_SET.contains(&kind) || (kind == Own && written.is_some());
        let source = |keys: &Meta| source(keys, self.is_language());
        let meta = has_one.then(|| {
            let keys = written.unwrap_or_default();
            meta(&keys, source(&keys))
        });
        Some(BalancePlan { policy: policy(kind, &balance), meta })
    }
}

fn policy(kind: PolicyKind, keys: &Balance) -> PolicyPlan {
    let learning_rate = |usual| value(&keys.learning_rate).unwrap_or(usual);
    let weight_decay = |usual| value(&keys.weight_decay).unwrap_or(usual);
    let pair = |at: &Option<At<Vec<f64>>>, usual| {
        // Two numbers, as the key's rule says.
        value(at).and_then(|list| list.try_into().ok()).unwrap_or(usual)
    };
    // The rule of counts keeps them within 32 bits.
    let levels = u32::try_from(keys.levels()).unwrap_or(u32::MAX);
    match kind {
        Fixed => PolicyPlan::Fixed,
        Schedule => PolicyPlan::Schedule {
            from: keys.from(),
            to: keys.to(),
            course: keys.course(),
            at: keys.at(),
        },
        AnnealingKd => PolicyPlan::AnnealingKd { phase_one: keys.phase_one(), levels },
        ContinuationKd => PolicyPlan::ContinuationKd { levels, margin: keys.margin() },
        Uncertainty => {
            PolicyPlan::Uncertainty { learning_rate: learning_rate(0.01), bound: keys.bound() }
        }
        GradNorm => PolicyPlan::GradNorm {
            asymmetry: keys.asymmetry(),
            learning_rate: learning_rate(0.025),
        },
        Wsl => PolicyPlan::Wsl { weight: keys.weight() },
        AdaKd => PolicyPlan::AdaKd { temperature: keys.temperature() },
        DynamicKd => PolicyPlan::DynamicKd {
            adoption: keys.adoption(),
            share: keys.share(),
            doubt: keys.doubt(),
        },
        // The authors' range.
        Ctkd => PolicyPlan::Ctkd {
            range: pair(&keys.range, [1.0, 20.0]),
            learning_rate: learning_rate(0.01),
            ramp: keys.ramp(),
        },
        RwKd => PolicyPlan::RwKd {
            normalize: keys.normalize(),
            floor: keys.floor(),
            bounds: pair(&keys.bounds, [0.0, 1.0]),
            ema: keys.ema(),
        },
        L2rw => PolicyPlan::L2rw { ema: keys.ema() },
        // The authors' step size and decay.
        MetaWeightNet => PolicyPlan::MetaWeightNet {
            sight: keys.sight(),
            output: keys.output(),
            learning_rate: learning_rate(1e-3),
            weight_decay: weight_decay(1e-4),
        },
        TgeoKd => PolicyPlan::TgeoKd {
            learning_rate: learning_rate(1e-3),
            weight_decay: weight_decay(0.0),
        },
        Own => PolicyPlan::Own { called: value(&keys.called).unwrap_or_default() },
    }
}

/// Where the second set comes from: of a language model, other rows of its text.
fn source(keys: &Meta, is_language: bool) -> MetaFrom {
    let usual = if is_language { MetaFrom::Train } else { MetaFrom::Split };
    value(&keys.source).unwrap_or(usual)
}

fn meta(keys: &Meta, source: MetaFrom) -> MetaPlan {
    MetaPlan {
        source: match source {
            MetaFrom::Split => MetaSource::Split(keys.split()),
            MetaFrom::Train => MetaSource::Train,
            MetaFrom::File => MetaSource::File(value(&keys.path).unwrap_or_default()),
        },
        batch_size: keys.batch_size(),
        every: keys.every(),
        warmup_steps: keys.warmup_steps(),
        loss: keys.loss(),
        estimator: match keys.estimator() {
            EstimatorKind::FiniteDifference => {
                Estimator::FiniteDifference { radius: keys.radius() }
            }
            EstimatorKind::LastLayer => Estimator::LastLayer,
        },
        preconditioner: keys.preconditioner(),
        at: keys.at(),
        check: keys.check(),
        lr_scheduler_type: keys.lr_scheduler_type(),
        max_grad_norm: keys.max_grad_norm(),
    }
}

/// Says so where the policy cannot work, and where a key changes nothing.
pub(crate) fn check(recipe: &Recipe, problems: &mut Problems) {
    let objective = &recipe.objective;
    let Some(at) = &objective.balance else { return };
    let here = "objective.balance";
    if recipe.teacher.place.is_none() {
        needs(at, here, "a `[teacher]`, whom it weighs against the labels", problems);
    }
    if kind(recipe).is_some_and(|kind| kind != TaskKind::Classification) {
        let needed = "`task.kind = \"classification\"`, as policies weigh one label against one \
                      distribution";
        needs(at, here, needed, problems);
    }
    let Some(policy) = &at.value.policy else {
        let place = at.value.place.clone().unwrap_or(Place::Whole);
        let meaning = "how label and teacher are weighed, such as \"rw_kd\"; or remove \
                       [objective.balance]";
        return missing(place, "objective.balance.policy", meaning, problems);
    };
    check_keys(&at.value, policy.value, problems);
    if policy.value == Own && at.value.called.is_none() {
        let meaning = "the name that the program gives its policy, such as \"doubt\"";
        missing(policy.place.clone(), "objective.balance.called", meaning, problems);
    }
    check_teachers(recipe, policy, problems);
    check_objective(objective, policy, problems);
    if let Some(adoption) = &at.value.adoption
        && adoption.value != Adoption::Sample
        && policy.value == DynamicKd
    {
        check_together(recipe, adoption, problems);
    }
    if let Some(meta) = &at.value.meta {
        check_meta(recipe, meta, policy.value, problems);
    }
}

/// Says so where there are several teachers and the policy knows one, or decides their weights.
fn check_teachers(recipe: &Recipe, policy: &At<PolicyKind>, problems: &mut Problems) {
    if recipe.other_teachers.is_empty() {
        return;
    }
    let kind = policy.value;
    let some = if recipe.is_language() { KNOW_SEVERAL_OF_TOKENS } else { KNOW_SEVERAL_TEACHERS };
    if !some.contains(&kind) {
        let needed =
            format!("one `[teacher]` for {kind}; several can be weighed by `{}", one_of(some));
        return needs(policy, "objective.balance.policy", &needed, problems);
    }
    for (path, teacher) in recipe.teachers() {
        if let Some(at) = teacher.weight.as_ref().filter(|_| !PART_A_SHARE.contains(&kind)) {
            let needed = format!("a policy that keeps it or begins with it; {kind} decides it");
            needs(at, &format!("{path}.weight"), &needed, problems);
        }
    }
}

/// Names keys that the policy, or another of its keys, leaves without effect.
fn check_keys(keys: &Balance, policy: PolicyKind, problems: &mut Problems) {
    let belong: [(&str, Option<&Place>, &[PolicyKind]); 25] = [
        ("called", place(&keys.called), &[Own]),
        ("from", place(&keys.from), &[Schedule]),
        ("to", place(&keys.to), &[Schedule]),
        ("course", place(&keys.course), &[Schedule]),
        ("at", place(&keys.at), &[Schedule]),
        ("phase_one", place(&keys.phase_one), &[AnnealingKd]),
        ("levels", place(&keys.levels), &[AnnealingKd, ContinuationKd]),
        ("margin", place(&keys.margin), &[ContinuationKd]),
        (
            "learning_rate",
            place(&keys.learning_rate),
            &[Uncertainty, GradNorm, Ctkd, MetaWeightNet, TgeoKd],
        ),
        ("bound", place(&keys.bound), &[Uncertainty]),
        ("asymmetry", place(&keys.asymmetry), &[GradNorm]),
        ("weight", place(&keys.weight), &[Wsl]),
        ("temperature", place(&keys.temperature), &[AdaKd]),
        ("adoption", place(&keys.adoption), &[DynamicKd]),
        ("share", place(&keys.share), &[DynamicKd]),
        ("doubt", place(&keys.doubt), &[DynamicKd]),
        ("range", place(&keys.range), &[Ctkd]),
        ("ramp", place(&keys.ramp), &[Ctkd]),
        ("normalize", place(&keys.normalize), &[RwKd]),
        ("floor", place(&keys.floor), &[RwKd]),
        ("bounds", place(&keys.bounds), &[RwKd]),
        ("ema", place(&keys.ema), &[RwKd, L2rw]),
        ("sight", place(&keys.sight), &[MetaWeightNet]),
        ("output", place(&keys.output), &[MetaWeightNet]),
        ("weight_decay", place(&keys.weight_decay), &[MetaWeightNet, TgeoKd]),
    ];
    let second = ("meta", place(&keys.meta), MAY_HAVE_A_SECOND_SET);
    for (key, place, policies) in belong.into_iter().chain([second]) {
        if !policies.contains(&policy) {
            unused(key, place, &format!("`policy = {}", one_of(policies)), problems);
        }
    }
    if policy == Schedule && keys.course() != Course::Step {
        unused("at", place(&keys.at), "`course = \"step\"`", problems);
    }
    if policy == DynamicKd && keys.adoption() != Adoption::Select {
        unused("share", place(&keys.share), "`adoption = \"select\"`", problems);
        unused("doubt", place(&keys.doubt), "`adoption = \"select\"`", problems);
    }
    if policy == RwKd && keys.normalize() != Normalize::Terms {
        let needed = "`normalize = \"terms\"`, as shares are what it bounds";
        unused("bounds", place(&keys.bounds), needed, problems);
    }
}

/// `"a"`, `"b"` or `"c"`, each in quotes; the first follows an opening mark of code.
fn one_of(policies: &[PolicyKind]) -> String {
    let rest: Vec<String> = policies[1..].iter().map(|kind| format!("`\"{kind}\"`")).collect();
    let others = match rest.split_last() {
        Some((last, [])) => format!(" or {last}"),
        Some((last, some)) => format!(", {} or {last}", some.join(", ")),
        None => String::new(),
    };
    format!("\"{}\"`{others}", policies[0])
}

fn unused(key: &str, place: Option<&Place>, needed: &str, problems: &mut Problems) {
    if let Some(place) = place {
        let (key, needs) = (format!("objective.balance.{key}"), needed.to_owned());
        problems.push(place.clone(), ProblemKind::Needs { key, needs });
    }
}

/// What a policy asks of the rest of `[objective]`.
fn check_objective(objective: &Objective, policy: &At<PolicyKind>, problems: &mut Problems) {
    let key = "objective.balance.policy";
    let kind = policy.value;
    if let Some(at) = objective.alpha.as_ref().filter(|_| !HAVE_A_SHARE.contains(&kind)) {
        let needed = format!("a policy that keeps a share or begins with one; {kind} decides it");
        needs(at, "objective.alpha", &needed, problems);
    }
    let divergence = objective.divergence();
    if matches!(kind, AnnealingKd | ContinuationKd) && divergence != DivergenceKind::MseLogits {
        let needed = format!(
            "`objective.divergence = \"mse_logits\"` for {kind}, whose teacher grows by a factor \
             on its logits"
        );
        needs(policy, key, &needed, problems);
    }
    let centred = value(&objective.divergence_centred).unwrap_or(true);
    if kind == ContinuationKd && divergence == DivergenceKind::MseLogits && centred {
        let needed = "`objective.divergence_centred = false` for continuation_kd, whose margin is \
                      around the logits as they are";
        needs(policy, key, needed, problems);
    }
    if kind == Ctkd {
        let needed = "for ctkd, whose temperature climbs that divergence, times T²";
        forward(objective, policy, key, needed, problems);
        if let Some(at) = &objective.temperature {
            let needed = "another policy; ctkd decides it, within `objective.balance.range`";
            needs(at, "objective.temperature", needed, problems);
        }
    }
}

/// Says so where the teacher's term is not the forward divergence times T².
fn forward<T>(objective: &Objective, at: &At<T>, key: &str, why: &str, problems: &mut Problems) {
    if objective.divergence() != DivergenceKind::ForwardKl {
        needs(at, key, &format!("`objective.divergence = \"forward_kl\"` {why}"), problems);
    } else if !objective.scale_by_temperature_squared() {
        let needed = format!("`objective.scale_by_temperature_squared = true` {why}");
        needs(at, key, &needed, problems);
    }
}

/// Says so where a step may be cut, and the policy would see a part of it in place of the whole.
fn check_together(recipe: &Recipe, adoption: &At<Adoption>, problems: &mut Problems) {
    let longest = recipe.task.max_length();
    let whole = match batches(recipe) {
        (Batch::Sequences(step), Batch::Sequences(micro)) => step <= micro,
        (Batch::Sequences(step), Batch::Tokens(micro)) => step.saturating_mul(longest) <= micro,
        (Batch::Tokens(step), Batch::Tokens(micro)) => step.max(longest) <= micro,
        // Any number of short sequences may be in a step of tokens.
        (Batch::Tokens(_), Batch::Sequences(_)) => false,
    };
    if !whole {
        let needed = format!(
            "steps of one micro-batch, as \"{}\" looks at a whole step at once; raise \
             `training.micro_batch_tokens`, or lower the batch",
            adoption.value
        );
        needs(adoption, "objective.balance.adoption", &needed, problems);
    }
}

fn check_meta(recipe: &Recipe, at: &At<Meta>, policy: PolicyKind, problems: &mut Problems) {
    let keys = &at.value;
    let source = source(keys, recipe.is_language());
    let name = |key: &str| format!("objective.balance.meta.{key}");
    if let Some(split) = keys.split.as_ref().filter(|_| source != MetaFrom::Split) {
        needs(split, &name("split"), "`source = \"split\"`", problems);
    }
    match (&keys.path, source) {
        (Some(path), MetaFrom::File) => check_path(recipe, path, &name("path"), problems),
        (Some(path), _) => needs(path, &name("path"), "`source = \"file\"`", problems),
        (None, MetaFrom::File) => {
            let place = keys.place.clone().unwrap_or(Place::Whole);
            let meaning = "the file with the second set, in `task.path`";
            missing(place, &name("path"), meaning, problems);
        }
        (None, _) => {}
    }
    if let Some(size) = keys.batch_size.as_ref().filter(|size| size.value > LARGEST_STEP) {
        let (found, expected) = (size.value.to_string(), format!("at most {LARGEST_STEP}"));
        wrong(size, &name("batch_size"), found, expected, None, problems);
    }
    if let Some(estimator) = keys.estimator.as_ref()
        && estimator.value == EstimatorKind::LastLayer
    {
        let why = "for last_layer, whose closed form is that divergence's, times T²";
        forward(&recipe.objective, estimator, &name("estimator"), why, problems);
        let needed = "`estimator = \"finite_difference\"`";
        if let Some(radius) = &keys.radius {
            needs(radius, &name("radius"), needed, problems);
        }
        if let Some(preconditioner) = &keys.preconditioner {
            needs(preconditioner, &name("preconditioner"), needed, problems);
        }
        if let Some(at) = keys.at.as_ref().filter(|at| at.value == MetaAt::Ahead) {
            needs(at, &name("at"), needed, problems);
        }
        if let Some(check) = keys.check.as_ref().filter(|check| check.value) {
            needs(check, &name("check"), needed, problems);
        }
    }
    let looks_inside = value(&recipe.objective.hidden).is_some_and(|hidden| !hidden.is_empty());
    if let Some(at) = keys.at.as_ref().filter(|at| at.value == MetaAt::Ahead && looks_inside) {
        let needed =
            "no `[[objective.hidden]]`; the step it looks ahead to is label's and teacher's";
        needs(at, &name("at"), needed, problems);
    }
    if !matches!(policy, MetaWeightNet | TgeoKd) {
        let needed = "`policy = \"meta_weight_net\"` or `\"tgeo_kd\"`, whose network it is for";
        if let Some(schedule) = &keys.lr_scheduler_type {
            needs(schedule, &name("lr_scheduler_type"), needed, problems);
        }
        if let Some(norm) = &keys.max_grad_norm {
            needs(norm, &name("max_grad_norm"), needed, problems);
        }
    }
}

/// Says so where the second set is one of the sets that models are compared on: it is trained on in
/// all but name.
pub(crate) fn check_path(recipe: &Recipe, path: &At<String>, key: &str, problems: &mut Problems) {
    let mut quiet = Problems::new(&recipe.file);
    let Some(data) = data(recipe, &mut quiet) else { return };
    if data.validation.contains(&path.value) || data.test.contains(&path.value) {
        let needed = "a file that models are not compared on, as the second set decides what the \
                      student learns";
        needs(path, key, needed, problems);
    }
    if data.train.contains(&path.value) {
        needs(path, key, "another file than `task.train`, or `source = \"train\"`", problems);
    }
}

fn place<T>(at: &Option<At<T>>) -> Option<&Place> {
    at.as_ref().map(|at| &at.place)
}
