//! One token's answer as bits, and back.
//!
//! ```text
//! top-k    ids   ln p of each, in the order of the ids   ln of what the others have, where k < V
//! samples  how many ids, 0 standing for 2ᵇ   ids   draws of each   ln p of each, where the proposal has
//!          a temperature
//! states   C numbers
//! ```
//!
//! Ids ascend. They are written with `⌈log₂ V⌉` bits each, or as distances by the code of Golomb and
//! Rice (Rice 1979): a distance less one is `q · 2ʳ + rest`, written as q zeros, a one, and r bits.
//! Five bits say r, or 31 for the first way: whatever is smallest for this answer. Bytes of `ln p` are
//! written as distances from the largest one by the same code, or as they stand. Draws are written
//! by Elias's γ (1975): of most tokens there is one, which is one bit.

use half::bf16;

use crate::bits::{BitReader, BitWriter, bits_for};
use crate::{Kind, Values};

/// In place of r: ids are written whole.
const WHOLE: u32 = 31;
const WAY_BITS: u32 = 5;

/// Likeliest tokens, or draws, of one answer; ids ascend.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Known {
    /// Tokens.
    pub ids: Vec<u32>,
    /// `ln p` of each, at the cache's temperature; −∞ where the teacher forbids it.
    pub ln_p: Vec<f32>,
    /// Draws of each; empty where none were drawn.
    pub draws: Vec<u32>,
    /// `ln` of what all others have together; −∞ where nothing is left.
    pub ln_rest: f32,
}

/// How answers are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Code {
    pub(crate) kind: Kind,
    pub(crate) values: Values,
    pub(crate) vocabulary: u32,
}

impl Code {
    fn id_bits(self) -> u32 {
        bits_for(self.vocabulary.into())
    }

    /// The bytes of likeliest tokens or draws.
    pub(crate) fn known(self, known: &Known) -> Vec<u8> {
        let mut bits = BitWriter::default();
        match self.kind {
            Kind::TopK { k } => {
                debug_assert_eq!(known.ids.len(), k as usize);
                self.put_ids(&mut bits, &known.ids);
                self.values.put_all(&mut bits, &known.ln_p);
                if k < self.vocabulary {
                    self.values.put(&mut bits, known.ln_rest);
                }
            }
            Kind::Samples { draws, proposal } => {
                bits.put(known.ids.len() as u32 - 1, bits_for(draws.into()));
                self.put_ids(&mut bits, &known.ids);
                known.draws.iter().for_each(|&draws| put_gamma(&mut bits, draws));
                if proposal != 1.0 {
                    self.values.put_all(&mut bits, &known.ln_p);
                }
            }
            Kind::States { .. } => unreachable!("hidden states name no token"),
        }
        bits.finish()
    }

    /// Reads them back, into ids and probabilities that sum to 1 with what is returned: what all
    /// other tokens have. `None` where the bytes are none of ours.
    pub(crate) fn read_known(
        self,
        bytes: &[u8],
        ids: &mut Vec<u32>,
        probabilities: &mut Vec<f32>,
    ) -> Option<f32> {
        let mut bits = BitReader::new(bytes);
        let (first, first_p) = (ids.len(), probabilities.len());
        match self.kind {
            Kind::TopK { k } => {
                self.take_ids(&mut bits, k as usize, ids)?;
                let mut total = 0.0;
                self.values.take_all(&mut bits, k as usize, |ln_p| {
                    let p = ln_p.exp();
                    total += f64::from(p);
                    probabilities.push(p);
                })?;
                let rest =
                    if k < self.vocabulary { self.values.take(&mut bits)?.exp() } else { 0.0 };
                // What is kept is not exact, and a distribution all the same.
                let total = total + f64::from(rest);
                let scaled = |p: f32| (f64::from(p) / total) as f32;
                probabilities[first_p..].iter_mut().for_each(|p| *p = scaled(*p));
                (total > 0.0 && total.is_finite()).then(|| scaled(rest))
            }
            Kind::Samples { draws, proposal } => {
                let count = bits.take(bits_for(draws.into()))? as usize + 1;
                self.take_ids(&mut bits, count, ids)?;
                for _ in first..ids.len() {
                    probabilities.push(take_gamma(&mut bits)? as f32);
                }
                let weights = &mut probabilities[first_p..];
                if proposal != 1.0 {
                    // p over the proposal, up to a factor that the sum takes away.
                    let mut place = weights.iter_mut();
                    self.values.take_all(&mut bits, place.len(), |ln_p| {
                        let ln_p = f64::from(ln_p).max(-200.0);
                        let by = libm::exp((1.0 - 1.0 / proposal) * ln_p);
                        let weight = place.next().expect("as many as ids");
                        *weight = (f64::from(*weight) * by) as f32;
                    })?;
                }
                let total: f64 = weights.iter().map(|&weight| f64::from(weight)).sum();
                weights.iter_mut().for_each(|w| *w = (f64::from(*w) / total) as f32);
                (total > 0.0 && total.is_finite()).then_some(0.0)
            }
            Kind::States { .. } => unreachable!("hidden states name no token"),
        }
    }

    /// The bytes of hidden states.
    pub(crate) fn states(self, states: &[f32]) -> Vec<u8> {
        match self.values {
            Values::F32 => states.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Values::Bf16 | Values::Byte => {
                states.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()
            }
        }
    }

    /// Reads them back.
    pub(crate) fn read_states(self, bytes: &[u8], width: usize, into: &mut Vec<f32>) -> Option<()> {
        match self.values {
            Values::F32 => {
                let (fours, rest) = bytes.as_chunks::<4>();
                into.extend(fours.iter().map(|&four| f32::from_le_bytes(four)));
                (fours.len() == width && rest.is_empty()).then_some(())
            }
            Values::Bf16 | Values::Byte => {
                let (twos, rest) = bytes.as_chunks::<2>();
                into.extend(twos.iter().map(|&two| bf16::from_le_bytes(two).to_f32()));
                (twos.len() == width && rest.is_empty()).then_some(())
            }
        }
    }

    fn put_ids(self, bits: &mut BitWriter, ids: &[u32]) {
        let whole = self.id_bits();
        let distances = || {
            let before = [None].into_iter().chain(ids.iter().map(|&id| Some(id)));
            ids.iter().zip(before).map(|(&id, before)| id - before.map_or(0, |before| before + 1))
        };
        let cost = |r: u32| {
            let quotients: u64 = distances().map(|distance| u64::from(distance >> r)).sum();
            quotients + ids.len() as u64 * u64::from(1 + r)
        };
        let best = (0..=whole.min(WHOLE - 1)).map(|r| (cost(r), r)).min();
        match best {
            Some((cost, r)) if cost < ids.len() as u64 * u64::from(whole) => {
                bits.put(r, WAY_BITS);
                for distance in distances() {
                    bits.put_unary(distance >> r);
                    bits.put(distance & ((1 << r) - 1), r);
                }
            }
            _ => {
                bits.put(WHOLE, WAY_BITS);
                ids.iter().for_each(|&id| bits.put(id, whole));
            }
        }
    }

    fn take_ids(self, bits: &mut BitReader<'_>, count: usize, ids: &mut Vec<u32>) -> Option<()> {
        let way = bits.take(WAY_BITS)?;
        let mut next = 0;
        for _ in 0..count {
            let id = if way == WHOLE {
                bits.take(self.id_bits())?
            } else {
                let quotient = bits.take_unary()?;
                let distance = quotient.checked_mul(1 << way)?.checked_add(bits.take(way)?)?;
                distance.checked_add(next)?
            };
            if id < next || id >= self.vocabulary {
                return None;
            }
            ids.push(id);
            next = id + 1;
        }
        Some(())
    }
}

/// At least 1: as many zeros as its bits less one, then those bits, the highest first among them.
fn put_gamma(bits: &mut BitWriter, value: u32) {
    let below = value.ilog2();
    bits.put_unary(below);
    bits.put(value - (1 << below), below);
}

fn take_gamma(bits: &mut BitReader<'_>) -> Option<u32> {
    let below = bits.take_unary().filter(|&below| below < 32)?;
    Some((1 << below) + bits.take(below)?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ascending(ids: &[u32], vocabulary: u32) -> Vec<u32> {
        let mut ids: Vec<u32> = ids.iter().map(|id| id % vocabulary).collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    proptest! {
        #[test]
        fn ids_of_any_vocabulary_come_back_and_never_take_more_than_whole_ones(
            ids in prop::collection::vec(any::<u32>(), 1..100),
            vocabulary in 1u32..300_000,
        ) {
            let ids = ascending(&ids, vocabulary);
            let code = Code { kind: Kind::TopK { k: 1 }, values: Values::Byte, vocabulary };
            let mut bits = BitWriter::default();
            code.put_ids(&mut bits, &ids);
            let bytes = bits.finish();
            let whole = (5 + ids.len() * code.id_bits() as usize).div_ceil(8);
            prop_assert!(bytes.len() <= whole, "{} of {whole}", bytes.len());
            let mut read = Vec::new();
            code.take_ids(&mut BitReader::new(&bytes), ids.len(), &mut read).unwrap();
            prop_assert_eq!(read, ids);
        }

        #[test]
        fn draws_are_kept_exactly(counts in prop::collection::vec(1u32..40, 1..20)) {
            let draws: u32 = counts.iter().sum();
            let kind = Kind::Samples { draws, proposal: 1.0 };
            let code = Code { kind, values: Values::Byte, vocabulary: 151_936 };
            let ids: Vec<u32> = (0..counts.len() as u32).map(|at| at * 7000 + 3).collect();
            let known =
                Known { ids: ids.clone(), draws: counts.clone(), ..Known::default() };
            let (mut read, mut p) = (Vec::new(), Vec::new());
            let rest = code.read_known(&code.known(&known), &mut read, &mut p);
            prop_assert_eq!(rest, Some(0.0));
            prop_assert_eq!(read, ids);
            for (p, count) in p.iter().zip(counts) {
                prop_assert_eq!(*p, (f64::from(count) / f64::from(draws)) as f32);
            }
        }

        #[test]
        fn no_bytes_make_the_reader_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..60),
            vocabulary in 1u32..200_000,
            k in 1u32..40,
        ) {
            for kind in [
                Kind::TopK { k: k.min(vocabulary) },
                Kind::Samples { draws: k, proposal: 1.0 },
                Kind::Samples { draws: k, proposal: 0.8 },
            ] {
                for values in [Values::Byte, Values::Bf16, Values::F32] {
                    let code = Code { kind, values, vocabulary };
                    let (mut ids, mut p) = (Vec::new(), Vec::new());
                    if code.read_known(&bytes, &mut ids, &mut p).is_some() {
                        prop_assert!(ids.is_sorted_by(|a, b| a < b));
                        prop_assert!(ids.iter().all(|&id| id < vocabulary));
                    }
                }
            }
        }
    }

    #[test]
    fn likeliest_tokens_are_a_distribution_with_their_rest() {
        let known = Known {
            ids: vec![2, 5, 9],
            ln_p: vec![0.5f32.ln(), f32::NEG_INFINITY, 0.2f32.ln()],
            draws: vec![],
            ln_rest: 0.3f32.ln(),
        };
        for values in [Values::Byte, Values::Bf16, Values::F32] {
            let code = Code { kind: Kind::TopK { k: 3 }, values, vocabulary: 10 };
            let (mut ids, mut p) = (Vec::new(), Vec::new());
            let rest = code.read_known(&code.known(&known), &mut ids, &mut p).unwrap();
            assert_eq!(ids, known.ids);
            assert!((p.iter().sum::<f32>() + rest - 1.0).abs() < 1e-6, "{values:?}: {p:?} {rest}");
            assert_eq!(p[1], 0.0);
            for (got, want) in p.iter().chain([&rest]).zip([0.5f32, 0.0, 0.2, 0.3]) {
                // Twice the bound: the number itself, and the sum it is divided by.
                let bound = 2.0 * Values::byte_error(f64::from(-want.ln()).min(26.0)) as f32;
                assert!((got - want).abs() <= bound * want, "{values:?}: {got} {want}");
            }
        }
    }
}
