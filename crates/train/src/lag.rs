//! Which of several ways of growing is kept: the student grows by each, trains for a while, and the one
//! with the lowest loss stays (LAG; Karp et al. 2024, arXiv:2406.02469). The loss right after growing
//! says little: what keeps the function begins lowest and need not learn fastest.
//!
//! In: the stages of a run, and how to grow by one of a stage's candidates. Out: the stages where the
//! best is kept, and what each came to. Never: a step of the run: the small model and its place in the
//! data stay as they are. So the best is grown anew and its steps are taken again, to the same bits,
//! and evaluations, checkpoints and records among them are those of any steps.

use heirloom_recipe::Lag;
use serde::{Deserialize, Serialize};

use crate::grows::Grows;
use crate::stages::Stages;
use crate::{Error, Trains};

/// What a way of growing came to that was tried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// The method's name.
    pub method: String,
    /// Mean loss of the last quarter of its steps; `None` where it was not finite.
    pub loss: Option<f64>,
    /// Steps it was trained for: fewer than the plan says where the run ends before, or where they
    /// were no longer finite.
    pub steps: u64,
    /// Tokens read; training reads them again.
    pub tokens: u64,
    /// Floating-point operations of its steps.
    pub flops: u64,
}

/// Tries the candidates of the coming stage. `raise` gives the trainer of the student grown by it.
/// Where the stage has one method alone, nothing is tried.
///
/// # Errors
/// Where a candidate cannot be raised, or a step of it fails otherwise than by diverging.
pub(crate) fn choose<C: Grows, T: Trains>(
    stages: &Stages<C>,
    raise: &mut dyn FnMut(&Stages<C>) -> Result<T, Error>,
) -> Result<(Stages<C>, Vec<Candidate>), Error> {
    let Some((stage, _)) = stages.next() else { return Ok((stages.clone(), Vec::new())) };
    let Some(Lag { candidates, steps }) = &stage.lag else {
        return Ok((stages.clone(), Vec::new()));
    };
    let mut tried = Vec::new();
    for (at, method) in candidates.iter().enumerate() {
        // One at a time is in memory.
        let mut large = raise(&stages.keeping(at)?)?;
        tried.push(attempt(&mut large, method, *steps)?);
    }
    Ok((stages.keeping(best(&tried))?, tried))
}

/// The first with the lowest loss; the first of all where no loss is finite.
fn best(tried: &[Candidate]) -> usize {
    let loss = |at: &usize| tried[*at].loss.unwrap_or(f64::INFINITY);
    (0..tried.len()).min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap_or_default()
}

/// Trains for at most `steps` steps.
fn attempt(trainer: &mut impl Trains, method: &str, steps: u64) -> Result<Candidate, Error> {
    let before = trainer.device().operations();
    let (mut losses, mut tokens) = (Vec::new(), 0);
    while (losses.len() as u64) < steps && !trainer.progress().finished {
        match trainer.step() {
            Ok(record) => {
                losses.push(record.loss);
                tokens += record.tokens;
            }
            // It has lost. Should all of them, the run meets the same and says so.
            Err(Error::Diverged(_)) => {
                losses.push(f64::NAN);
                break;
            }
            Err(error) => return Err(error),
        }
    }
    let last = &losses[losses.len() - losses.len().div_ceil(4)..];
    let loss = last.iter().sum::<f64>() / last.len() as f64;
    Ok(Candidate {
        method: method.to_owned(),
        loss: loss.is_finite().then_some(loss),
        steps: losses.len() as u64,
        tokens,
        flops: trainer.device().operations() - before,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_loss_wins_the_first_of_equal_ones_and_never_one_that_is_not_finite() {
        let of = |losses: &[Option<f64>]| {
            let candidate = |&loss: &Option<f64>| Candidate {
                method: String::new(),
                loss,
                steps: 1,
                tokens: 1,
                flops: 1,
            };
            best(&losses.iter().map(candidate).collect::<Vec<_>>())
        };
        assert_eq!(of(&[Some(2.0), Some(1.0), Some(1.5)]), 1);
        assert_eq!(of(&[Some(2.0), Some(1.0), Some(1.0)]), 1);
        assert_eq!(of(&[None, Some(7.0)]), 1);
        assert_eq!(of(&[None, None]), 0);
    }
}
