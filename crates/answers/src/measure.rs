//! How far what is kept of an answer is from the answer.

use crate::choose::ln_total;

/// Distances of a kept answer from the teacher's, in nats. What is kept is taken for a distribution:
/// what the unknown tokens have together is spread evenly over them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distance {
    /// `KL(teacher ‖ kept)`; infinite for draws, which leave tokens out that the teacher has.
    pub forward: f64,
    /// `KL(kept ‖ teacher)`.
    pub backward: f64,
}

/// Of the answer `softmax(logits / temperature)`, of which `ids`, ascending, have `probabilities` and
/// all others `rest`.
pub fn distance(
    logits: &[f32],
    temperature: f64,
    (ids, probabilities, rest): (&[u32], &[f32], f32),
) -> Distance {
    let ln_total = ln_total(logits, temperature);
    let others = (logits.len() - ids.len()).max(1) as f64;
    let spread = f64::from(rest) / others;
    let mut known = ids.iter().zip(probabilities).peekable();
    let (mut forward, mut backward) = (0.0, 0.0);
    for (id, &logit) in logits.iter().enumerate() {
        let ln_p = f64::from(logit) / temperature - ln_total;
        let kept = match known.next_if(|(next, _)| **next as usize == id) {
            Some((_, &p)) => f64::from(p),
            None => spread,
        };
        let p = libm::exp(ln_p);
        if p > 0.0 {
            forward += p * (ln_p - libm::log(kept));
        }
        if kept > 0.0 {
            backward += kept * (libm::log(kept) - ln_p);
        }
    }
    Distance { forward, backward }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_itself_is_no_way_off_and_what_is_left_out_is_infinitely_far_one_way() {
        let logits = [0.5f32, 0.25, 0.125, 0.125].map(f32::ln);
        let all = distance(&logits, 1.0, (&[0, 1], &[0.5, 0.25], 0.25));
        assert!(all.forward.abs() < 1e-7 && all.backward.abs() < 1e-7, "{all:?}");
        let drawn = distance(&logits, 1.0, (&[0, 2], &[0.5, 0.5], 0.0));
        assert_eq!(drawn.forward, f64::INFINITY);
        assert!((drawn.backward - 0.5 * 4f64.ln()).abs() < 1e-7, "{drawn:?}");
    }
}
