//! What a teacher reads where its tokens are not the student's.
//!
//! In: the student's micro-batch, and how the teacher's vocabulary relates to its. Out: the teacher's
//! batch, and for each of the student's tokens whether, and where, the teacher is heard. Never: a
//! token at which the teacher has read another text than the student.

use heirloom_data::align::UNMATCHED;
use heirloom_data::text::{NOT_LEARNT, Paired, Row};
use heirloom_data::vocabulary::NOT_SHARED;
use heirloom_engine::{Device, IGNORED, Ids, View};

use super::batch::TextBatch;
use super::capacity::LanguageCapacity;

/// How the teacher's tokens are those of the student.
#[derive(Clone, Copy, Debug)]
pub(super) enum TokensOfTeacher<'a> {
    /// By the same ids.
    Same,
    /// The teacher's id of each of the student's, [`NOT_SHARED`] where it has none, `[V]`.
    Mapped(&'a [u32]),
    /// It reads tokens of its own, up to so many at a time.
    Own(LanguageCapacity),
}

/// The teacher's side of a micro-batch.
#[derive(Debug)]
pub(super) enum Other {
    /// The student's tokens under other ids.
    Mapped { to_teacher: Vec<u32>, batch: TextBatch },
    /// Tokens of its own.
    Own {
        batch: TextBatch,
        /// Of each of the student's tokens the teacher's, 0 where it has none.
        places: Vec<u32>,
        /// 1 where it has one.
        heard: Vec<f32>,
        /// The places on the device, and the teacher's states there, `[N, Cₜ]`.
        ids: Ids,
        states: View,
    },
}

impl Other {
    /// Room for `capacity` of the student's tokens, beside a teacher `width` wide; `None` where both
    /// read the same.
    pub(super) fn new(
        device: &mut dyn Device,
        tokens: TokensOfTeacher<'_>,
        capacity: LanguageCapacity,
        width: usize,
    ) -> Option<Self> {
        let (batch, n) = (TextBatch::default(), capacity.tokens);
        match tokens {
            TokensOfTeacher::Same => None,
            TokensOfTeacher::Mapped(map) => Some(Self::Mapped { to_teacher: map.to_vec(), batch }),
            TokensOfTeacher::Own(_) => Some(Self::Own {
                batch,
                places: Vec::new(),
                heard: Vec::new(),
                ids: Ids::at(device.alloc_ids(n), 0, n),
                states: View::matrix(device.alloc(n * width), 0, n, width),
            }),
        }
    }

    /// Takes in a micro-batch of pairs, the first of which is number `first` of its step.
    pub(super) fn refill(&mut self, pairs: &[Paired], first: usize) {
        let Self::Own { batch, places, heard, .. } = self else { return };
        let rows: Vec<Row> = pairs.iter().map(|pair| pair.teacher.clone()).collect();
        batch.refill(&rows, first, false);
        places.clear();
        heard.clear();
        let mut base = 0;
        for pair in pairs {
            for &at in &pair.matched {
                let matched = at != UNMATCHED;
                places.push(if matched { base + at } else { 0 });
                heard.push(f32::from(u8::from(matched)));
            }
            base += pair.teacher.ids.len() as u32;
        }
    }

    /// What the teacher reads beside `host`.
    pub(super) fn batch(&mut self, host: &TextBatch) -> &TextBatch {
        match self {
            Self::Mapped { to_teacher, batch } => {
                batch.translate(host, to_teacher);
                batch
            }
            Self::Own { batch, .. } => batch,
        }
    }

    /// The teacher's states beside the student's tokens, of which there are `tokens`.
    pub(super) fn beside(&self, device: &mut dyn Device, states: View, tokens: usize) -> View {
        match self {
            Self::Mapped { .. } => states,
            Self::Own { places, ids, states: gathered, .. } => {
                let (ids, gathered) = (ids.first(tokens), gathered.first_rows(tokens));
                device.write_ids(ids, places);
                device.embed(&[(states, ids)], gathered);
                gathered
            }
        }
    }

    /// 1 where the teacher is heard, else 0, `[N]`, and how often it is.
    pub(super) fn heard(&self) -> (Vec<f32>, u64) {
        let heard = match self {
            Self::Mapped { batch, .. } => batch.heard(),
            Self::Own { heard, .. } => heard.clone(),
        };
        let count = heard.iter().filter(|&&heard| heard != 0.0).count();
        (heard, count as u64)
    }
}

/// At how many tokens of `row` a teacher is heard that knows the tokens of `to_teacher`.
pub(super) fn heard_in(row: &Row, to_teacher: &[u32]) -> u64 {
    let documents = row.starts.windows(2).map(|bounds| bounds[0] as usize..bounds[1] as usize);
    let heard = |range: std::ops::Range<usize>| {
        let known = known(&row.ids[range.clone()], to_teacher);
        row.labels[range].iter().take(known).filter(|&&label| label != NOT_LEARNT).count() as u64
    };
    documents.map(heard).sum()
}

/// How many tokens come before the first that is not shared.
fn known(ids: &[u32], to_teacher: &[u32]) -> usize {
    let shared = |&id: &u32| to_teacher.get(id as usize).is_some_and(|&id| id != NOT_SHARED);
    ids.iter().position(|id| !shared(id)).unwrap_or(ids.len())
}

impl TextBatch {
    /// Takes in `other` under the teacher's ids. From a token on that the teacher does not know, the
    /// rest of its document has another past for it: nothing is heard there, and the ids are 0.
    fn translate(&mut self, other: &Self, to_teacher: &[u32]) {
        self.clone_from(other);
        self.learnt = 0;
        for bounds in other.starts().windows(2) {
            let range = bounds[0] as usize..bounds[1] as usize;
            let known = range.start + known(&other.ids[range.clone()], to_teacher);
            for at in range {
                let id = to_teacher.get(self.ids[at] as usize).copied().unwrap_or(0);
                if at < known {
                    self.ids[at] = id;
                    self.learnt += u64::from(self.labels[at] != IGNORED);
                } else {
                    self.ids[at] = 0;
                    self.labels[at] = IGNORED;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row() -> Row {
        Row {
            ids: vec![1, 2, 3, 1, 2],
            starts: vec![0, 3, 5],
            labels: vec![2, 3, NOT_LEARNT, 2, NOT_LEARNT],
            bytes: 0,
        }
    }

    #[test]
    fn a_teacher_is_heard_up_to_the_first_token_that_it_does_not_know() {
        let mut host = TextBatch::default();
        host.refill(&[row()], 0, false);
        for (map, ids, heard) in [
            (vec![9, 8, 7, 6], [8, 7, 6, 8, 7], [1.0, 1.0, 0.0, 1.0, 0.0]),
            (vec![9, 8, NOT_SHARED, 6], [8, 0, 0, 8, 0], [1.0, 0.0, 0.0, 1.0, 0.0]),
            (vec![9, 8, 7], [8, 7, 0, 8, 7], [1.0, 1.0, 0.0, 1.0, 0.0]),
            (vec![9, NOT_SHARED, 7, 6], [0; 5], [0.0; 5]),
        ] {
            let mut other = Other::Mapped { to_teacher: map.clone(), batch: TextBatch::default() };
            assert_eq!(other.batch(&host).ids, ids);
            let (found, count) = other.heard();
            assert_eq!(found, heard);
            assert_eq!(heard_in(&row(), &map), count);
            assert_eq!(count as f32, heard.iter().sum::<f32>());
        }
    }

    #[test]
    fn a_pair_of_rows_has_its_places_behind_those_of_the_rows_before() {
        let mut device = heirloom_engine::Cpu::new(1);
        let capacity = LanguageCapacity { tokens: 10, masked: 0 };
        let own = TokensOfTeacher::Own(capacity);
        let mut other = Other::new(&mut device, own, capacity, 2).expect("a room");
        let pair = |matched: [u32; 5], teacher: u32| Paired {
            student: row(),
            teacher: Row {
                ids: (0..teacher).collect(),
                starts: vec![0, teacher],
                labels: vec![NOT_LEARNT; teacher as usize],
                bytes: 0,
            },
            matched: matched.to_vec(),
        };
        const NO: u32 = UNMATCHED;
        other.refill(&[pair([0, NO, 2, NO, NO], 3), pair([NO, 1, NO, 0, NO], 2)], 0);
        let (heard, count) = other.heard();
        assert_eq!(heard, [1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
        assert_eq!(count, 4);
        let states = View::matrix(device.alloc(10), 0, 5, 2);
        device.write_f64(states, &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5]);
        let beside = other.beside(&mut device, states, 10);
        let first = |row: usize| device.read_f64(beside.row_range(row..row + 1))[0];
        assert_eq!([0, 2, 6, 8].map(first), [0.0, 2.0, 4.0, 3.0]);
        assert_eq!(other.batch(&TextBatch::default()).ids.len(), 5);
    }
}
