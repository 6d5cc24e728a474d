//! What a growth adds stands behind a mask that opens.

use std::path::Path;

use heirloom_recipe::{GrownMoments, Size, StagePlan, When};
use heirloom_store::RealDisk;
use heirloom_train::Job;

use crate::growing::{Dying, deeper, go_on, outcome, plain, stage, trainer_of, walk, with};
use crate::tiny::{double, single};

/// Another block and more feed-forward units, after five steps, opening in four.
fn masked(at: u64, mask_steps: u64) -> StagePlan {
    StagePlan {
        mask_steps,
        intermediate_size: Size::To(48),
        moments: GrownMoments::Asymmetric,
        ..deeper(When::Step(at), 3, "msg")
    }
}

#[test]
fn a_closed_mask_keeps_the_function_and_an_open_one_is_no_mask() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = trainer_of(plain(&[masked(5, 4)], folder.path()), double);
    let (steps, growths) = walk(&mut run, 5, double);
    assert!(growths[0].largest_change < 1e-10 && growths[0].largest_output > 0.01, "{growths:?}");
    assert!(steps.iter().all(|step| step.mask.is_none()));
    let named = |run: &mut heirloom_train::Trainer, name: &str| {
        let weights = run.weights();
        weights.into_iter().find(|(found, ..)| found == name).unwrap().2
    };
    let added = "bert.encoder.layer.2.output.dense.weight";
    let wider = "bert.encoder.layer.0.output.dense.weight";
    assert!(named(&mut run, added).iter().all(|&weight| weight == 0.0));
    // [16, 48], of which the last 16 columns are new.
    let new = |weights: Vec<f32>| -> Vec<f32> {
        weights.chunks(48).flat_map(|row| row[32..].to_vec()).collect()
    };
    assert!(new(named(&mut run, wider)).iter().all(|&weight| weight == 0.0));
    let (mut c, mut sizes) = (Vec::new(), Vec::new());
    for step in 6..=11 {
        c.extend(walk(&mut run, step, double).0[0].mask);
        let squares = |weights: Vec<f32>| weights.iter().map(|w| f64::from(w * w)).sum::<f64>();
        sizes.push([named(&mut run, added), new(named(&mut run, wider))].map(squares));
    }
    assert_eq!(c, [0.0, 0.25, 0.5, 0.75]);
    // What is seen grows with c; the squares by more than a half from 3/4 to 1.
    for pair in sizes[..4].windows(2) {
        assert!(pair[1][0] > 1.5 * pair[0][0] && pair[1][1] > 1.5 * pair[0][1], "{sizes:?}");
    }
    assert!(sizes[5][0] < 1.2 * sizes[3][0], "it is open: {sizes:?}");
    assert_eq!(run.stages().unwrap().mask, None);
}

#[test]
fn the_next_growth_waits_until_the_mask_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let early = StagePlan { hidden_size: Size::To(32), ..stage(When::Tokens(1), "preserve") };
    let mut run = trainer_of(plain(&[masked(3, 4), early], folder.path()), single);
    let (_, growths) = walk(&mut run, 12, single);
    let steps: Vec<u64> = growths.iter().map(|growth| growth.step).collect();
    assert_eq!(steps, [3, 7]);
}

fn staged(folder: &Path) -> Job {
    let sets = ["training.max_steps=9", "training.save_steps=2", "training.average=ema"];
    let wider = StagePlan { hidden_size: Size::To(32), ..stage(When::Step(8), "preserve") };
    with(&[masked(3, 4), wider], &sets, folder)
}

#[test]
fn a_masked_run_that_is_killed_at_an_operation_of_the_disk_ends_as_one_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let job = staged(root.path());
    let path = |name: &str| root.path().join(name);
    go_on(&path("alone"), &job, &RealDisk).unwrap();
    let want = outcome(&path("alone"));
    let text = String::from_utf8(want[2].clone()).unwrap();
    assert_eq!(text.matches(r#""mask":"#).count(), 4, "{text}");
    let mut deaths = 0;
    for operations in (0..).step_by(4) {
        let name = format!("round-{operations}");
        if go_on(&path(&name), &job, &Dying::after(operations)).is_ok() {
            break;
        }
        deaths += 1;
        go_on(&path(&name), &job, &Dying::after(usize::MAX)).unwrap();
        assert!(outcome(&path(&name)) == want, "killed after {operations} operations");
        std::fs::remove_dir_all(path(&name)).unwrap();
    }
    assert!(deaths > 15, "only {deaths} deaths");
}

#[test]
fn what_a_mask_cannot_hide_is_refused_before_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let wide = StagePlan { hidden_size: Size::To(32), ..masked(3, 4) };
    let job = with(&[wide], &[], folder.path());
    let plans = heirloom_train::growth_plans(&job.plan.training, &job.student_config);
    let text = plans.unwrap_err().to_string();
    assert!(
        text.starts_with("`stage.0`: the hidden size cannot go from 16 to 32: norms see"),
        "{text}"
    );
}
