//! The learning rate against the schedulers of `transformers` 5.
//!
//! The numbers are those of
//!
//! ```python
//! optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=3e-4)
//! scheduler = get_linear_schedule_with_warmup(optimizer, 3, 10)  # or cosine, constant
//! for _ in range(11): print(scheduler.get_last_lr()[0]); optimizer.step(); scheduler.step()
//! ```

use heirloom_base::Step;
use heirloom_recipe::{Schedule, TrainingPlan};
use heirloom_train::learning_rate;
use tempfile::tempdir;

use crate::tiny::{Task, job};

#[track_caller]
fn check(kind: Schedule, warmup_steps: u64, total_steps: u64, want: &[f64]) {
    let folder = tempdir().unwrap();
    let plan = job(Task::Labelled, false, &["training.batch_size=8"], folder.path()).plan;
    let training = TrainingPlan {
        lr_scheduler_type: kind,
        warmup_steps,
        total_steps,
        learning_rate: 3e-4,
        ..plan.training
    };
    for (done, want) in (0..).zip(want) {
        let got = learning_rate(&training, Step(done));
        assert!((got - want).abs() <= 1e-15, "after {done} steps: {got} is not {want}");
    }
}

#[test]
fn linear_with_and_without_a_warm_up() {
    let falling = [
        2.571428571428571e-4,
        2.142857142857143e-4,
        1.714285714285714e-4,
        1.285714285714286e-4,
        8.57142857142857e-5,
        4.285714285714285e-5,
        0.0,
    ];
    let want = [&[0.0, 1e-4, 2e-4, 3e-4], &falling[..]].concat();
    check(Schedule::Linear, 3, 10, &want);
    let want = [3e-4, 2.7e-4, 2.4e-4, 2.1e-4, 1.8e-4, 1.5e-4, 1.2e-4, 9e-5, 6e-5, 3e-5, 0.0];
    check(Schedule::Linear, 0, 10, &want);
}

#[test]
fn a_run_that_is_all_warm_up() {
    check(Schedule::Linear, 4, 4, &[0.0, 7.5e-5, 1.5e-4, 2.25e-4]);
}

#[test]
fn half_a_cosine() {
    let want = [
        0.0,
        1e-4,
        2e-4,
        3e-4,
        2.851453301853628e-4,
        2.4352347027881003e-4,
        1.8337814009344714e-4,
        1.1662185990655284e-4,
        5.6476529721189974e-5,
        1.4854669814637143e-5,
        0.0,
    ];
    check(Schedule::Cosine, 3, 10, &want);
}

#[test]
fn level_after_the_warm_up() {
    let want = [0.0, 1e-4, 2e-4, 3e-4, 3e-4, 3e-4, 3e-4, 3e-4, 3e-4, 3e-4, 3e-4];
    check(Schedule::Constant, 3, 10, &want);
}
