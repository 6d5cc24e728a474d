//! A balance policy of one's own: a sample hears its teacher the more, the more the student doubts its
//! label.
//!
//!     cargo run --release --example own_policy FOLDER

#![expect(clippy::print_stdout, reason = "an example says what it found")]

use std::path::Path;

use heirloom::balance::{At, Decision, LABEL, Policy, Restored, Samples};
use heirloom::{Ended, Failure, Places, Training, generated};

/// λ = ½ · doubt / usual doubt, at most 1; doubt = 1 − the student's probability of the label.
#[derive(Debug)]
pub(crate) struct ByDoubt {
    /// The mean doubt of the last step: what this policy learns.
    pub(crate) usual: f64,
    /// Sum and number of the step under way.
    pub(crate) heard: (f64, f64),
}

fn doubt(samples: &Samples<'_>, row: usize) -> f64 {
    1.0 - (-samples.losses(row)[LABEL]).exp() // the label's loss is −ln p
}

impl Policy for ByDoubt {
    // Weights of label and teacher, for each sample of a micro-batch.
    fn decide(&self, samples: &Samples<'_>, _: At) -> Decision {
        let share = |row| (0.5 * doubt(samples, row) / self.usual).min(1.0);
        let weights = (0..samples.len()).flat_map(|row| [1.0 - share(row), share(row)]).collect();
        Decision { weights, ..Decision::default() }
    }
    // The same samples, once in a step. What is learnt changes at its end alone: a step may be cut into
    // micro-batches, and must not depend on where.
    fn observe(&mut self, samples: &Samples<'_>, _: At) {
        self.heard.0 += (0..samples.len()).map(|row| doubt(samples, row)).sum::<f64>();
        self.heard.1 += samples.len() as f64;
    }
    fn learn(&mut self, _: &[f64], _: At) {
        let (sum, count) = std::mem::take(&mut self.heard);
        self.usual = (sum / count).max(1e-6);
    }
    // A step that was not finite is as if it had not been.
    fn leave_out(&mut self) {
        self.heard = Default::default();
    }
    // All that is learnt is part of a checkpoint: a run that was killed goes on with the same bits.
    fn state(&self) -> Vec<f64> {
        vec![self.usual]
    }
    fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
        let &[usual] = state else { return Err(Restored { expected: 1, found: state.len() }) };
        self.usual = usual;
        Ok(())
    }
}

pub(crate) fn play(folder: &Path) -> Result<Ended, Failure> {
    generated::write(folder, 7, 480, 120)?; // texts with labels, a vocabulary
    let places = Places::at(folder); // where relative paths of recipes lead
    let teacher = generated::recipe(&["student.config.num_hidden_layers=2"])?;
    Training::new(&teacher, &places, &folder.join("teacher"))?.run(&mut ())?;
    let balance = "objective.balance={ policy = \"own\", called = \"by_doubt\" }";
    let student = generated::recipe(&["teacher.model=teacher/best", balance])?;
    let training = Training::new(&student, &places, &folder.join("student"))?
        .with_policy("by_doubt", || ByDoubt { usual: 1.0, heard: (0.0, 0.0) });
    println!("{}", training.plan()); // what `heirloom plan` says
    training.run(&mut ())
}

fn main() -> Result<(), Failure> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "runs/own_policy".to_owned());
    println!("best evaluation: {:?}", play(Path::new(&folder))?.progress.best);
    println!("which sentences hear whom: heirloom explain {folder}/student");
    Ok(())
}
