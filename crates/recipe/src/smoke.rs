//! A plan cut down to a minute: does everything once, proves nothing about the result.
//!
//! In: a plan. Out: the same plan with few steps and examples. Never: changes a model or a file.

use heirloom_base::Tokens;

use crate::plan::{Batch, EarlyStopping, Evaluate, Limit, Plan, Save, TrainingPlan, Unlabelled};

/// Steps of a smoke run.
const STEPS: u64 = 20;

/// Most examples of a smoke run, to train and to evaluate on.
const EXAMPLES: u64 = 200;

/// Most sequences of one step in a smoke run.
const BATCH: u64 = 16;

/// Cuts `plan` down to 20 steps of at most 16 sequences from at most 200 examples, and as many
/// without a label, evaluated at the end on at most 200.
pub fn smoke(plan: &mut Plan) {
    let (all, unlabelled) = (plan.examples.train, plan.examples.unlabelled);
    let labelled = (all - unlabelled).min(EXAMPLES);
    let few = labelled + unlabelled.min(EXAMPLES);
    plan.data.train_limit = Limit::First(labelled.max(1));
    if let Unlabelled::Some { limit, .. } = &mut plan.data.unlabelled {
        *limit = Limit::First(limit.of(EXAMPLES));
    }
    plan.examples.unlabelled = unlabelled.min(EXAMPLES);
    plan.data.validation_limit = Limit::First(plan.data.validation_limit.of(EXAMPLES));
    plan.examples.validation = plan.examples.validation.min(EXAMPLES);
    let tokens = plan.examples.train_tokens.0 / all.max(1) * few;
    plan.examples.train = few;
    plan.examples.train_tokens = Tokens(tokens.max(1));
    short(&mut plan.training, few, tokens, plan.data.max_length);
}

/// Cuts a language model's `plan` down likewise, to at most 200 rows; the rows themselves are cut by
/// whoever reads them.
pub fn smoke_language(plan: &mut crate::LanguagePlan) {
    plan.text.train_limit = Limit::First(plan.examples.train.clamp(1, EXAMPLES));
    plan.text.validation_limit = Limit::First(plan.examples.validation.clamp(1, EXAMPLES));
    let (rows, tokens) = (plan.examples.train, plan.examples.train_tokens.0);
    short(&mut plan.training, rows, tokens, plan.text.sequence_length);
}

/// Cuts the steps down, of `few` examples with `tokens` tokens, none longer than `longest`.
fn short(training: &mut TrainingPlan, few: u64, tokens: u64, longest: u64) {
    let cut = |batch: Batch| match batch {
        Batch::Sequences(size) => Batch::Sequences(size.min(BATCH)),
        Batch::Tokens(size) => Batch::Tokens(size.min(BATCH * longest)),
    };
    training.batch = cut(training.batch);
    training.micro_batch = cut(training.micro_batch);
    training.steps_per_epoch = match training.batch {
        Batch::Sequences(size) => few.div_ceil(size),
        Batch::Tokens(size) => tokens.max(1).div_ceil(size),
    };
    training.save = Save::WithEvaluation;
    training.early_stopping = EarlyStopping::Never;
    if training.evaluate != Evaluate::Never {
        training.evaluate = Evaluate::AtEnd;
    }
    let steps = training.total_steps.min(STEPS);
    training.set_total_steps(steps);
}
