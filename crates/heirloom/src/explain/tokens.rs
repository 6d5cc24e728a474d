//! Whom a language model's balance policy trusts: λ, the teacher's share, token by token.
//!
//! In: a run folder with a checkpoint. Out: how λ is spread over the tokens of the rows that come next,
//! and the tokens at both ends of it, with what stands beside them and what both models think of them.
//! Never: as [`explain`](super::explain).

use std::collections::BTreeSet;
use std::path::Path;

use heirloom_base::Step;
use heirloom_data::tokens::Tokenizer;
use heirloom_engine::Cpu;
use heirloom_recipe::{AnyPlan, LanguagePlan, PolicyPlan};
use heirloom_store::{Committed, RealDisk};
use heirloom_train::{JudgedToken, LanguageTrainer, RunFolder};
use serde::Serialize;

use super::{Spread, ends, judged, spread};
use crate::failure::Failure;
use crate::language::{KeptTokens, reopen_language};
use crate::places::Places;

/// Rows of the text that are looked at.
const ROWS: usize = 32;

/// What a run's policy makes of some tokens at one checkpoint.
#[derive(Clone, Debug, Serialize)]
pub struct TokenExplanation {
    /// Steps done at the checkpoint.
    pub step: Step,
    /// The policy and its numbers.
    pub policy: PolicyPlan,
    /// The policy in words.
    pub policy_words: String,
    /// Rows of the training text: those that come next, or, where answers were kept, the run's first.
    pub rows: usize,
    /// Their tokens that are learnt.
    pub tokens: usize,
    /// Where their shares lie.
    pub shares: Spread,
    /// The largest shares, largest first.
    pub most: Vec<TokenRow>,
    /// The smallest, smallest first. No token is in both.
    pub least: Vec<TokenRow>,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TokenRow {
    /// The row of the training text, from 0.
    pub row: u32,
    /// λ.
    pub share: f64,
    /// The token that is to be foreseen, or is hidden.
    pub token: String,
    /// What stands before it.
    pub before: String,
    /// What stands behind one that is hidden.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub after: String,
    /// Its probability by the student, at temperature 1.
    pub student: f64,
    /// Its probability by the teacher, likewise; `None` where its kept answers name a few tokens.
    pub teacher: Option<f64>,
}

/// Whether the run in `path` is of a language model, whose tokens are explained by [`tokens`].
///
/// # Errors
/// Where `path` is no run folder.
pub fn is_of_tokens(path: &Path) -> Result<bool, Failure> {
    Ok(matches!(super::any_plan(path)?, AnyPlan::Language(_)))
}

/// Explains the newest checkpoint of a language model's run, with `top` tokens at each end.
///
/// # Errors
/// Where `path` is no such folder, no policy of its run weighs tokens, there is no checkpoint yet, or
/// what it was made from is no longer there.
pub fn tokens(
    path: &Path,
    places: &Places,
    threads: usize,
    top: usize,
) -> Result<TokenExplanation, Failure> {
    let shown = path.display().to_string();
    let AnyPlan::Language(mut plan) = super::any_plan(path)? else {
        return Err(Failure::usage(format!("the run in `{shown}` is of no language model")));
    };
    // The folder may have been moved since.
    plan.output.dir.clone_from(&shown);
    let Some(policy) = weighs(&plan) else {
        return Err(Failure::usage(format!(
            "the run in `{shown}` weighs all tokens alike, so there is none to show; a policy that \
             does not is wsl, ada_kd, dynamic_kd, rw_kd or meta_weight_net, under \
             [objective.balance]. Measure the model with: heirloom eval {shown}",
        )));
    };
    let step = super::newest(path)?;
    let committed = Committed::open_step(&RealDisk, path, step)?;
    let stages = RunFolder::stages(&committed)?;
    let kept = KeptTokens::beside(Path::new(&plan.output.dir));
    let gathered = reopen_language(&plan, places, &kept)?;
    let job = gathered.job;
    let mut trainer = LanguageTrainer::at_stage(job, stages, &mut |_| Box::new(Cpu::new(threads)))?;
    RunFolder::read(&committed, &mut trainer)?;
    let tokenizer = Tokenizer::open(&places.model("tokenizer.path", &plan.tokenizer.path)?)?;
    let found = trainer.judge(ROWS)?;
    let shares: Vec<f64> = found.iter().map(|token| token.share).collect();
    let order = judged(&shares);
    let Some(spread) = spread(&order) else {
        return Err(Failure::usage(format!(
            "the text of the run in `{shown}` has no token to learn"
        )));
    };
    let (most, least) = ends(&order, top);
    let rows = |of: Vec<(u32, f64)>| {
        of.into_iter().map(|(at, _)| row(&found[at as usize], &tokenizer)).collect::<Result<_, _>>()
    };
    Ok(TokenExplanation {
        step,
        policy_words: policy.words(plan.objective.alpha),
        policy,
        rows: found.iter().map(|token| token.row).collect::<BTreeSet<u32>>().len(),
        tokens: found.len(),
        shares: spread,
        most: rows(most)?,
        least: rows(least)?,
    })
}

/// The policy, where it weighs tokens one by one.
fn weighs(plan: &LanguagePlan) -> Option<PolicyPlan> {
    let policy = plan.objective.balance.as_ref().map(|balance| balance.policy.clone())?;
    let alike = matches!(
        policy,
        PolicyPlan::Fixed | PolicyPlan::Schedule { .. } | PolicyPlan::Uncertainty { .. }
    );
    (!alike).then_some(policy)
}

fn row(judged: &JudgedToken, tokenizer: &Tokenizer) -> Result<TokenRow, Failure> {
    let text = |ids: &[u32]| tokenizer.decode(ids);
    let before = text(&judged.before)?;
    // A piece of a word is what it adds to what stands before it.
    let mut with = judged.before.clone();
    with.push(judged.token);
    let with = text(&with)?;
    let token = match with.strip_prefix(&before) {
        Some(token) if !token.is_empty() => token.to_owned(),
        _ => tokenizer.token(judged.token).unwrap_or_default().to_owned(),
    };
    Ok(TokenRow {
        row: judged.row,
        share: judged.share,
        token,
        before,
        after: text(&judged.after)?,
        student: judged.student,
        teacher: judged.teacher,
    })
}
