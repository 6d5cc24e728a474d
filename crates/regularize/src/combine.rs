//! Targets from targets: sums of losses, mixes of distributions, softening, holding fixed.
//!
//! A combinator's state is that of its parts, one after another.

use crate::divergence::detached;
use crate::numbers::{softmax, through_softmax, times};
use crate::{Needs, Restored, Row, Schedule, SoftTarget, Target};

/// The hooks of a target that has `parts` and `parts_mut`.
macro_rules! through_parts {
    () => {
        fn observe(&mut self, row: &Row<'_>) {
            self.parts_mut().for_each(|part| part.observe(row));
        }

        fn end_of_step(&mut self) {
            self.parts_mut().for_each(|part| part.end_of_step());
        }

        fn end_of_epoch(&mut self) {
            self.parts_mut().for_each(|part| part.end_of_epoch());
        }

        fn state(&self) -> Vec<f64> {
            self.parts().flat_map(|part| part.state()).collect()
        }

        fn restore(&mut self, state: &[f64]) -> Result<(), Restored> {
            let lengths: Vec<usize> = self.parts().map(|part| part.state().len()).collect();
            let expected = lengths.iter().sum();
            if expected != state.len() {
                return Err(Restored { expected, found: state.len() });
            }
            let mut rest = state;
            for (part, length) in self.parts_mut().zip(lengths) {
                let (own, after) = rest.split_at(length);
                part.restore(own)?;
                rest = after;
            }
            Ok(())
        }
    };
}

/// What several parts need together: a row without a label is left out where all leave it out.
fn together<'a>(parts: impl Iterator<Item = &'a dyn Target>) -> Needs {
    let join = |a: Needs, b: Needs| Needs {
        label: a.label && b.label,
        teacher: a.teacher || b.teacher,
        earlier: a.earlier || b.earlier,
        features: a.features || b.features,
        second_set: a.second_set || b.second_set,
    };
    parts.map(|part| part.needs()).reduce(join).unwrap_or_default()
}

/// Turns `p` into the slope along it, where `slope` is along `e·ln p` and `e` the exponent; none at 0.
fn power_slope(slope: &[f64], exponent: f64, p: &mut [f64]) {
    for (p, slope) in p.iter_mut().zip(slope) {
        *p = if *p > 0.0 { exponent * slope / *p } else { 0.0 };
    }
}

/// `Σ w·loss`: losses of any kind, with weights that may change over the run.
#[derive(Debug)]
pub struct Sum {
    /// Weights and losses.
    pub parts: Vec<(Schedule, Box<dyn Target>)>,
}

impl Sum {
    fn parts(&self) -> impl Iterator<Item = &dyn Target> {
        self.parts.iter().map(|(_, part)| &**part)
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn Target>> {
        self.parts.iter_mut().map(|(_, part)| part)
    }
}

impl Target for Sum {
    fn needs(&self) -> Needs {
        together(self.parts())
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        d_logits.fill(0.0);
        let (mut total, mut slope) = (0.0, vec![0.0; row.classes()]);
        for (weight, part) in &self.parts {
            let weight = weight.at(row.progress);
            total += times(weight, part.loss(row, &mut slope));
            d_logits.iter_mut().zip(&slope).for_each(|(d, slope)| *d += weight * slope);
        }
        total
    }

    fn hear(&mut self, row: &Row<'_>, d_q: &[f64]) {
        for (weight, part) in &mut self.parts {
            let weight = weight.at(row.progress);
            part.hear(row, &d_q.iter().map(|d| weight * d).collect::<Vec<f64>>());
        }
    }

    through_parts!();
}

/// `q = Σ w·qₘ`, with weights that may change over the run; its sum is that of the weights.
///
/// A part that leaves a row out adds nothing: without a label, the label and a teacher are the
/// teacher with its own weight. [`Labelled`] is for parts that should be silent there.
#[derive(Debug)]
pub struct Mix {
    /// Weights, at least 0, and distributions.
    pub parts: Vec<(Schedule, Box<dyn SoftTarget>)>,
}

impl Mix {
    /// From one target to another over the run.
    pub fn schedule(
        from: Box<dyn SoftTarget>,
        to: Box<dyn SoftTarget>,
        course: crate::Course,
    ) -> Self {
        let down = Schedule { from: 1.0, to: 0.0, course };
        Self { parts: vec![(down, from), (Schedule { from: 0.0, to: 1.0, course }, to)] }
    }

    fn parts(&self) -> impl Iterator<Item = &dyn Target> {
        self.parts.iter().map(|(_, part)| &**part as &dyn Target)
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn SoftTarget>> {
        self.parts.iter_mut().map(|(_, part)| part)
    }
}

impl Target for Mix {
    fn needs(&self) -> Needs {
        together(self.parts())
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }

    fn hear(&mut self, row: &Row<'_>, d_q: &[f64]) {
        for (weight, part) in &mut self.parts {
            let weight = weight.at(row.progress);
            part.hear(row, &d_q.iter().map(|d| weight * d).collect::<Vec<f64>>());
        }
    }

    through_parts!();
}

impl SoftTarget for Mix {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        q.fill(0.0);
        let (mut any, mut part_q) = (false, vec![0.0; q.len()]);
        for (weight, part) in &self.parts {
            if part.target(row, &mut part_q) {
                any = true;
                let weight = weight.at(row.progress);
                q.iter_mut().zip(&part_q).for_each(|(q, part)| *q += weight * part);
            }
        }
        any
    }
}

/// `q ∝ Π qₘ^eₘ`, with exponents that may change over the run.
///
/// A row is left out where any part leaves it out. A class that has probability 0 in a part with an
/// exponent has 0; where that leaves no class, the row is left out too.
#[derive(Debug)]
pub struct GeometricMix {
    /// Exponents, at least 0 and not all 0, and distributions.
    pub parts: Vec<(Schedule, Box<dyn SoftTarget>)>,
}

impl GeometricMix {
    fn parts(&self) -> impl Iterator<Item = &dyn Target> {
        self.parts.iter().map(|(_, part)| &**part as &dyn Target)
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn SoftTarget>> {
        self.parts.iter_mut().map(|(_, part)| part)
    }
}

impl Target for GeometricMix {
    fn needs(&self) -> Needs {
        Needs { label: self.parts().any(|part| part.needs().label), ..together(self.parts()) }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }

    /// `∂q/∂qₘ` of the row: `e·(diag q − q qᵀ)/qₘ`.
    fn hear(&mut self, row: &Row<'_>, d_q: &[f64]) {
        let mut slope = d_q.to_vec();
        let mut q = vec![0.0; d_q.len()];
        if !SoftTarget::target(self, row, &mut q) {
            return;
        }
        through_softmax(&q, &mut slope);
        for (exponent, part) in &mut self.parts {
            part.target(row, &mut q);
            power_slope(&slope, exponent.at(row.progress), &mut q);
            part.hear(row, &q);
        }
    }

    through_parts!();
}

impl SoftTarget for GeometricMix {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let mut ln_q = vec![0.0; q.len()];
        for (exponent, part) in &self.parts {
            if !part.ln_target(row, q) {
                return false;
            }
            let exponent = exponent.at(row.progress);
            ln_q.iter_mut().zip(&*q).for_each(|(sum, &ln_q)| *sum += times(exponent, ln_q));
        }
        q.copy_from_slice(&softmax(&ln_q, 1.0));
        ln_q.iter().any(|&ln_q| ln_q > f64::NEG_INFINITY)
    }
}

/// `q^(1/T)` scaled to sum 1: a target made softer, T above 1, or harder.
#[derive(Debug)]
pub struct Temper {
    /// What is tempered.
    pub target: Box<dyn SoftTarget>,
    /// T, above 0.
    pub temperature: Schedule,
}

impl Temper {
    fn parts(&self) -> impl Iterator<Item = &dyn Target> {
        std::iter::once(&*self.target as &dyn Target)
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn SoftTarget>> {
        std::iter::once(&mut self.target)
    }
}

impl Target for Temper {
    fn needs(&self) -> Needs {
        self.target.needs()
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }

    /// `∂q/∂p` of the row, `p` before: `(diag q − q qᵀ)/(T·p)`.
    fn hear(&mut self, row: &Row<'_>, d_q: &[f64]) {
        let mut slope = d_q.to_vec();
        let mut q = vec![0.0; d_q.len()];
        if !SoftTarget::target(self, row, &mut q) {
            return;
        }
        through_softmax(&q, &mut slope);
        self.target.target(row, &mut q);
        power_slope(&slope, 1.0 / self.temperature.at(row.progress), &mut q);
        self.target.hear(row, &q);
    }

    through_parts!();
}

impl SoftTarget for Temper {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        let any = self.target.ln_target(row, q);
        q.copy_from_slice(&softmax(q, self.temperature.at(row.progress)));
        any
    }
}

/// Any loss as cross-entropy to its effective target, held fixed: another value, the same gradient.
///
/// The target may have entries of either sign.
#[derive(Debug)]
pub struct Detach {
    /// What is held fixed.
    pub target: Box<dyn Target>,
}

impl Detach {
    fn parts(&self) -> impl Iterator<Item = &dyn Target> {
        std::iter::once(&*self.target)
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn Target>> {
        std::iter::once(&mut self.target)
    }
}

impl Target for Detach {
    fn needs(&self) -> Needs {
        self.target.needs()
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }

    fn hear(&mut self, row: &Row<'_>, d_q: &[f64]) {
        self.target.hear(row, d_q);
    }

    through_parts!();
}

impl SoftTarget for Detach {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        self.target.effective_target(row, q);
        row.label.is_some() || !self.needs().label
    }
}

/// A target for rows with a label alone; the others are left out.
#[derive(Debug)]
pub struct Labelled {
    /// What those rows are taught.
    pub target: Box<dyn SoftTarget>,
}

impl Labelled {
    fn parts(&self) -> impl Iterator<Item = &dyn Target> {
        std::iter::once(&*self.target as &dyn Target)
    }

    fn parts_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn SoftTarget>> {
        std::iter::once(&mut self.target)
    }
}

impl Target for Labelled {
    fn needs(&self) -> Needs {
        Needs { label: true, ..self.target.needs() }
    }

    fn loss(&self, row: &Row<'_>, d_logits: &mut [f64]) -> f64 {
        detached(self, row, d_logits)
    }

    fn hear(&mut self, row: &Row<'_>, d_q: &[f64]) {
        if row.label.is_some() {
            self.target.hear(row, d_q);
        }
    }

    through_parts!();
}

impl SoftTarget for Labelled {
    fn target(&self, row: &Row<'_>, q: &mut [f64]) -> bool {
        row.label.is_some() && self.target.target(row, q)
    }
}
