//! How far what is kept of an answer is from the answer.

use heirloom_base::Digest;
use heirloom_data::text::Rows;
use heirloom_engine::{Device, IGNORED};
use heirloom_models::Decoder;

use crate::choose::{Room, choose, ln_total};
use crate::keep::Reader;
use crate::record::Code;
use crate::{About, Error, Kept, Kind, KnownRows, Values};

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

/// One answer as it would be kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trial {
    /// Bytes of the answer itself; [`block_bytes`](crate::block_bytes) says what goes with them.
    pub bytes: usize,
    /// How far what is read back is from the answer.
    pub distance: Distance,
    /// What unknown tokens have together.
    pub rest: f64,
}

/// Keeps the answer `softmax(logits / temperature)` to the token at `place`, a row and a position,
/// and reads it back.
pub fn trial(
    (kind, values): (Kind, Values),
    logits: &[f32],
    temperature: f64,
    seed: u64,
    place: (usize, usize),
) -> Trial {
    let code = Code { kind, values, vocabulary: logits.len() as u32 };
    let bytes = code.known(&choose(&mut Room::default(), kind, logits, temperature, seed, place));
    let (mut ids, mut probabilities) = (Vec::new(), Vec::new());
    let rest = code.read_known(&bytes, &mut ids, &mut probabilities).expect("was just written");
    let distance = distance(logits, temperature, (&ids, &probabilities, rest));
    Trial { bytes: bytes.len(), distance, rest: rest.into() }
}

/// Hands over what the teacher says to every token of some rows at which something is learnt: row,
/// position and logits, `[V]`.
pub fn each_answer(
    device: &mut dyn Device,
    teacher: &Decoder,
    rows: &dyn Rows,
    which: &[usize],
    mut each: impl FnMut((usize, usize), &[f32]),
) -> Result<(), Error> {
    let nothing = Digest::of(b"");
    // Only the vocabulary matters to whoever is not kept.
    let about = About {
        teacher: nothing,
        tokenizer: nothing,
        rows: nothing,
        chat_template: None,
        temperature: 1.0,
        vocabulary: teacher.config().vocab_size as u32,
        kind: Kind::TopK { k: 1 },
        values: Values::F32,
        error_bound: 0.0,
        seed: 0,
        row_count: rows.len() as u64,
        token_count: 0,
        rows_per_part: 1,
        batch_tokens: 1,
        listed: false,
    };
    let longest = which.iter().map(|&row| rows.length(row)).max().unwrap_or(0);
    let mut reader = Reader::new(device, teacher, &about, longest);
    for &row in which {
        reader.row(device, teacher, rows, row, |position, logits| {
            each((row, position), logits);
            Ok(())
        })?;
    }
    Ok(())
}

/// Means over some tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Measured {
    /// How many tokens.
    pub tokens: u64,
    /// `KL(teacher ‖ kept)`, in nats.
    pub forward: f64,
    /// `KL(kept ‖ teacher)`, in nats.
    pub backward: f64,
    /// What unknown tokens have together.
    pub rest: f64,
}

/// Asks the teacher again for the answers to some rows, and compares them with those that are kept;
/// `None` where hidden states are.
pub fn measure(
    device: &mut dyn Device,
    teacher: &Decoder,
    rows: &dyn Rows,
    kept: &Kept,
    which: &[usize],
) -> Result<Option<Measured>, Error> {
    let (about, width) = (kept.about(), kept.about().width());
    if width == 0 {
        return Ok(None);
    }
    let longest = which.iter().map(|&row| rows.length(row)).max().unwrap_or(0);
    let mut reader = Reader::new(device, teacher, about, longest);
    let (mut sums, mut known) = (Measured::default(), KnownRows::default());
    for &row in which {
        known.clear();
        kept.read_known(row, 0..rows.length(row), &mut known)?;
        reader.row(device, teacher, rows, row, |position, logits| {
            let places = position * width..(position + 1) * width;
            let (ids, p) = (&known.ids[places.clone()], &known.probabilities[places]);
            let there = ids.iter().take_while(|&&id| id != IGNORED).count();
            let rest = known.rest[position];
            let kept = (&ids[..there], &p[..there], rest);
            let Distance { forward, backward } = distance(logits, about.temperature, kept);
            sums.tokens += 1;
            sums.forward += forward;
            sums.backward += backward;
            sums.rest += f64::from(rest);
            Ok(())
        })?;
    }
    let mean = |sum: f64| sum / sums.tokens.max(1) as f64;
    let Measured { tokens, forward, backward, rest } = sums;
    let (forward, backward, rest) = (mean(forward), mean(backward), mean(rest));
    Ok(Some(Measured { tokens, forward, backward, rest }))
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
