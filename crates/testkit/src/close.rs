//! Compares arrays of numbers within a stated tolerance.
//!
//! In: what was computed, what was expected, an absolute and a relative tolerance.
//! Out: nothing, or a panic that names the worst element.
//! Never: lets a NaN or a missing element pass.

/// Asserts `|got − want| ≤ abs + rel·|want|` for every element.
///
/// Equal infinities agree; a NaN agrees with nothing.
///
/// # Panics
/// Where the lengths differ, or an element is out of tolerance: the message holds the worst
/// element's index, both values, and how many elements are out.
#[track_caller]
pub fn close<G, W>(got: &[G], want: &[W], abs: f64, rel: f64)
where
    G: Copy + Into<f64>,
    W: Copy + Into<f64>,
{
    let total = want.len();
    assert_eq!(got.len(), total, "the number of elements differs");
    let mut misses: Vec<Miss> = got
        .iter()
        .zip(want)
        .enumerate()
        .filter_map(|(index, (&got, &want))| Miss::of(index, got.into(), want.into(), abs, rel))
        .collect();
    misses.sort_by(|a, b| b.excess.total_cmp(&a.excess));
    if let Some(Miss { index, got, want, .. }) = misses.first() {
        panic!(
            "{} of {total} elements are out of tolerance (abs {abs:e}, rel {rel:e}); \
             the worst is [{index}]: got {got:?}, want {want:?}, difference {:e}",
            misses.len(),
            (got - want).abs(),
        );
    }
}

/// An element out of tolerance, and by how much; infinite where either side is no number.
struct Miss {
    index: usize,
    got: f64,
    want: f64,
    excess: f64,
}

impl Miss {
    fn of(index: usize, got: f64, want: f64, abs: f64, rel: f64) -> Option<Self> {
        if got == want {
            return None;
        }
        let difference = (got - want).abs();
        let excess = if difference.is_finite() && want.is_finite() {
            difference - (abs + rel * want.abs())
        } else {
            f64::INFINITY
        };
        (excess > 0.0).then_some(Self { index, got, want, excess })
    }
}

#[cfg(test)]
mod tests {
    use super::close;

    #[track_caller]
    fn refuses(got: &[f32], want: &[f32], says: &str) {
        let panic = std::panic::catch_unwind(|| close(got, want, 1e-3, 0.0)).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains(says), "{text}");
    }

    #[test]
    fn elements_within_tolerance_pass() {
        close(&[1.0f32, 100.0], &[1.0005f64, 100.05], 1e-3, 1e-3);
        close(&[f32::INFINITY], &[f32::INFINITY], 0.0, 0.0);
    }

    #[test]
    fn the_worst_element_is_named() {
        refuses(&[1.0, 2.0, 3.0], &[1.01, 2.5, 3.0], "2 of 3 elements");
        refuses(&[1.0, 2.0, 3.0], &[1.01, 2.5, 3.0], "[1]: got 2.0, want 2.5");
    }

    #[test]
    fn what_is_no_number_never_passes() {
        refuses(&[f32::NAN], &[f32::NAN], "got NaN");
        refuses(&[1.0], &[f32::NAN], "want NaN");
        refuses(&[1.0], &[f32::INFINITY], "want inf");
    }

    #[test]
    fn a_missing_element_never_passes() {
        refuses(&[1.0], &[1.0, 2.0], "number of elements");
    }
}
