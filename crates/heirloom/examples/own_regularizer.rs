//! A label regularizer of one's own: where classes lie in an order, as ratings do, a label's neighbours
//! have a part of it.
//!
//!     cargo run --release --example own_regularizer FOLDER

#![expect(clippy::print_stdout, reason = "an example says what it found")]

use std::path::Path;

use heirloom::regularize::{Needs, Row, SoftTarget, Target, detached};
use heirloom::train::StepRecord;
use heirloom::{Failure, Places, Training, Watch, generated};

/// `q ∝ exp(−|class − label| / width)`.
#[derive(Debug)]
pub(crate) struct Nearby {
    /// In classes, above 0.
    pub(crate) width: f64,
}

// What a row is taught in place of its label: a distribution over its K classes. It may look at the
// student's logits too, at the teacher's, and at how far the run is.
impl SoftTarget for Nearby {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let Some(label) = row.label else { return false }; // the row is left out
        for (class, q) in q.iter_mut().enumerate() {
            *q = (-(class.abs_diff(label) as f64) / self.width).exp();
        }
        let sum: f64 = q.iter().sum();
        q.iter_mut().for_each(|q| *q /= sum);
        true
    }
}

impl Target for Nearby {
    // Rows without a label are left out.
    fn needs(&self) -> Needs {
        Needs { label: true, ..Needs::default() }
    }

    // The loss of a row and its slope along the logits. That of a fixed target is the cross-entropy from
    // it; a loss that is no cross-entropy writes its own slope here, and needs no `SoftTarget`.
    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }
}

/// Listens to a run: its losses, step by step.
struct Losses(Vec<f64>);

impl Watch for Losses {
    fn step(&mut self, record: &StepRecord) {
        self.0.push(record.loss);
    }
}

pub(crate) fn play(folder: &Path) -> Result<Vec<f64>, Failure> {
    generated::write(folder, 7, 480, 120)?; // texts with labels, a vocabulary
    let regularizer = "objective.regularizer={ method = \"own\", called = \"nearby\" }";
    let recipe = generated::recipe(&[regularizer])?;
    let training = Training::new(&recipe, &Places::at(folder), &folder.join("student"))?
        .with_regularizer("nearby", || Nearby { width: 0.5 });
    println!("{}", training.plan()); // what `heirloom plan` says
    let mut losses = Losses(Vec::new());
    let ended = training.run(&mut losses)?;
    println!("best evaluation: {:?}", ended.progress.best);
    Ok(losses.0)
}

fn main() -> Result<(), Failure> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "runs/own_regularizer".to_owned());
    let losses = play(Path::new(&folder))?;
    println!(
        "loss of the first step {:.3}, of the last {:.3}",
        losses[0],
        losses[losses.len() - 1]
    );
    Ok(())
}
