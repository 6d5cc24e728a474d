//! What a program brings of its own: one of Heirloom's that is brought gives the bits of the same one
//! that is named, and what cannot work is refused before anything is computed.

use heirloom_balance::{At, Decision, L2rw, Policy, Samples, Uncertainty};
use heirloom_regularize::{OnlineLabelSmoothing, SelfDistillation, Teacher};
use heirloom_store::RealDisk;
use heirloom_train::{Own, Trainer};
use tempfile::tempdir;

use crate::tiny::{Run, Task, job, run, single};

const CUT: &str = "training.micro_batch_size=5";

fn ran(sets: &[&str], own: Own) -> Run {
    let folder = tempdir().unwrap();
    let sets = [&["training.batch_size=6"], sets].concat();
    let mut job = job(Task::Classification, true, &sets, folder.path());
    job.own = own;
    run(job, single)
}

/// What `Trainer` says to these keys and what is brought.
fn refused(teacher: bool, sets: &[&str], own: Own) -> String {
    let folder = tempdir().unwrap();
    let sets = [&["training.batch_size=6"], sets].concat();
    let mut job = job(Task::Classification, teacher, &sets, folder.path());
    job.own = own;
    let error = Trainer::new(job, &RealDisk, &mut |_| single()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    error.to_string()
}

#[test]
fn a_policy_that_is_brought_gives_the_bits_of_one_that_is_named() {
    let policy = ["objective.balance.policy=uncertainty", "objective.balance.bound=3"];
    let named = ran(&[CUT, policy[0], policy[1]], Own::default());
    let own = Own::default().with_policy("mine", || Uncertainty::new(0.01, 3.0));
    let sets = [CUT, "objective.balance.policy=own", "objective.balance.called=mine"];
    let brought = ran(&sets, own);
    assert_eq!(named.steps, brought.steps);
    assert!(named.weights == brought.weights);
}

#[test]
fn a_regularizer_that_is_brought_gives_the_bits_of_one_that_is_named() {
    let method = ["objective.regularizer.method=online_label_smoothing", "training.max_steps=5"];
    let named = ran(&[CUT, method[0], method[1]], Own::default());
    let own = Own::default().with_regularizer("mine", || OnlineLabelSmoothing::new(3, 0.5, 1.0));
    let called = "objective.regularizer.called=mine";
    let brought = ran(&[CUT, "objective.regularizer.method=own", called, method[1]], own);
    assert_eq!(named.steps, brought.steps);
    assert!(named.weights == brought.weights);
}

#[test]
fn what_it_needs_must_be_there() {
    let policy = ["objective.balance.policy=own", "objective.balance.called=mine"];
    let own = Own::default().with_policy("mine", || L2rw::new(24, 0.5, 0.0));
    assert_eq!(
        refused(true, &policy, own),
        "`mine`, the program's own for `objective.balance.policy`, needs a second set, \
         [objective.balance.meta]"
    );
    let regularizer = ["objective.regularizer.method=own", "objective.regularizer.called=mine"];
    let own = Own::default().with_regularizer("mine", || Teacher { temperature: 1.0 });
    assert!(refused(false, &regularizer, own).ends_with("needs a [teacher]"));
    let own = Own::default().with_regularizer("mine", || SelfDistillation { temperature: 1.0 });
    assert!(refused(true, &regularizer, own).contains("an earlier model"));
    assert!(refused(true, &policy, Own::default()).contains("this one brings none"));
}

#[derive(Debug)]
struct TooFew;

impl Policy for TooFew {
    fn decide(&self, _: &Samples<'_>, _: At) -> Decision {
        Decision::uniform(1, 0.5, 0.5)
    }
}

#[test]
#[should_panic(expected = "a policy decides 6 × 2 weights, samples by losses; TooFew gave 2 by 2")]
fn a_policy_that_decides_for_other_samples_is_stopped() {
    let sets = ["objective.balance.policy=own", "objective.balance.called=mine"];
    ran(&sets, Own::default().with_policy("mine", || TooFew));
}
