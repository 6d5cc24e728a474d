//! Where the gradients of a model's parameters go, and of which there are none.
//!
//! A frozen parameter needs no gradient, and what lies below the lowest parameter that moves needs no
//! pass backward at all. Who computes gradients asks [`Grads`]; who moves parameters says what is
//! [`Frozen`].

use std::ops::Range;

use crate::{Params, Space, View};

/// Runs of a model's flat buffer that stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frozen {
    /// Ascending, apart from one another by more than padding.
    runs: Vec<Range<usize>>,
}

impl Frozen {
    /// These runs, in any order.
    pub fn new(runs: impl IntoIterator<Item = Range<usize>>) -> Self {
        let mut all: Vec<Range<usize>> = runs.into_iter().filter(|run| !run.is_empty()).collect();
        all.sort_unstable_by_key(|run| run.start);
        let mut runs: Vec<Range<usize>> = Vec::with_capacity(all.len());
        for run in all {
            match runs.last_mut() {
                Some(last) if Params::adjoin(last.end, run.start) => {
                    last.end = last.end.max(run.end);
                }
                _ => runs.push(run),
            }
        }
        Self { runs }
    }

    /// Whether all of `run` stays as it is.
    fn holds(&self, run: &Range<usize>) -> bool {
        let after = self.runs.partition_point(|frozen| frozen.start <= run.start);
        after > 0 && run.end <= self.runs[after - 1].end
    }
}

/// The space that gradients are added to, a twin of the weights', and whose there are.
///
/// A [`Space`] alone stands for those of all parameters.
#[derive(Clone, Copy, Debug)]
pub struct Grads<'a> {
    space: Space,
    frozen: Option<&'a Frozen>,
}

impl From<Space> for Grads<'_> {
    fn from(space: Space) -> Self {
        Self { space, frozen: None }
    }
}

impl<'a> Grads<'a> {
    /// The gradients of all but `frozen`.
    pub fn without(space: Space, frozen: &'a Frozen) -> Self {
        Self { space, frozen: Some(frozen) }
    }

    /// Where the gradient of `weights` goes, one parameter or several that are one matrix; `None`
    /// where all of it is frozen.
    pub fn of(self, weights: View) -> Option<View> {
        let run = weights.offset()..weights.offset() + weights.len();
        let frozen = self.frozen.is_some_and(|frozen| frozen.holds(&run));
        (!frozen).then(|| Params::twin(weights, self.space))
    }

    /// Whether some parameter before `offset` in the buffer has a gradient. Models lay parameters out
    /// in the order of the forward pass, so that one that has none there needs no gradient of what
    /// comes out of it either.
    pub fn any_before(self, offset: usize) -> bool {
        let frozen_up_to = self.frozen.and_then(|frozen| frozen.runs.first());
        let all = |run: &Range<usize>| run.start == 0 && Params::adjoin(run.end, offset);
        offset > 0 && !frozen_up_to.is_some_and(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Device, Reference};

    #[test]
    fn runs_join_over_padding_and_hold_what_lies_within_one() {
        let frozen = Frozen::new([64..70, 0..20, 32..40, 5..7, 9..9]);
        assert_eq!(frozen.runs, [0..40, 64..70]);
        let mut device = Reference::<f32>::new();
        let (weights, space) = (device.alloc(128), device.alloc(128));
        let grads = Grads::without(space, &frozen);
        let of = |run: Range<usize>| grads.of(View::matrix(weights, run.start, 1, run.len()));
        for (run, has) in [
            (0..20, false),
            (33..40, false),
            (32..41, true),
            (40..64, true),
            (64..70, false),
            (60..70, true),
            (100..128, true),
        ] {
            assert_eq!(of(run.clone()).is_some(), has, "{run:?}");
        }
        assert_eq!(of(100..128), Some(View::matrix(space, 100, 1, 28)));
        let all = Grads::from(space);
        assert!(all.of(View::matrix(weights, 0, 1, 20)).is_some() && all.any_before(1));
    }

    #[test]
    fn nothing_before_what_is_frozen_from_the_start_on_has_a_gradient() {
        let mut device = Reference::<f32>::new();
        let space = device.alloc(0);
        let asked = |frozen: &Frozen, offset| Grads::without(space, frozen).any_before(offset);
        let first = Frozen::new([0..20, 32..40]);
        let got = [0, 20, 32, 40, 48, 49, 100].map(|offset| asked(&first, offset));
        assert_eq!(got, [false, false, false, false, false, true, true]);
        let later = Frozen::new(std::iter::once(16..40));
        assert_eq!([0, 16, 40].map(|offset| asked(&later, offset)), [false, true, true]);
        assert!(asked(&Frozen::default(), 1));
    }
}
