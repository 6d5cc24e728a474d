//! Rows in which a masked language model has something to guess.

use heirloom_data::text::{Masked, Masker, Row};

/// Hides tokens of a row, number `row` of step `step`: what must be guessed becomes its only labels.
/// Nobody knows how many bytes those stand for.
pub(super) fn hide(masker: &Masker, step: u64, row: u32, of: &mut Row, room: &mut Masked) {
    masker.apply(step, row, &of.ids, &of.starts, room);
    of.ids.clone_from(&room.ids);
    of.labels.clone_from(&room.labels);
    of.bytes = 0;
}
