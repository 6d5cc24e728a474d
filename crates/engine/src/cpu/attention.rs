//! Attention inside each sequence: one item per sequence and head, computed by one thread.
//!
//! Queries are taken in bands, so that the scores held at a time fit in the nearest cache whatever
//! the length; the backward pass recomputes a band's probabilities from `lse`. Keys that no query of
//! a band sees are not looked at.

use std::ops::Range;

use super::Cpu;
use super::lanes::{LANES, drop_row, max, sum, sum2, vectorised};
use super::math::exp;
use super::memory::{Grid, Rows, Tile};
use super::tile::{Into, Left, pack, product, product_of_columns, turn};
use crate::device::{Attention, AttentionBackward, Dropout, Mask};

/// Query rows whose scores are held at a time.
const BAND: usize = 32;

/// One head of one sequence.
struct Head<'a> {
    query: Rows<'a>,
    key: Rows<'a>,
    value: Rows<'a>,
    /// Row addresses of the dropout words, and the first column.
    dropout: Option<(Dropout, &'a [u32], u32)>,
    mask: Mask,
    scale: f32,
}

impl Head<'_> {
    fn length(&self) -> usize {
        self.query.rows
    }

    /// Keys that queries of `band` see: from the first of a block of lanes to the end of one, and
    /// to the last there is.
    #[inline(always)]
    fn seen(&self, band: Range<usize>) -> (Range<usize>, Range<usize>) {
        let first = self.mask.keys(band.start, self.length()).start / LANES * LANES;
        let end = self.mask.keys(band.end - 1, self.length()).end;
        (first..padded(end), first..end)
    }

    /// Applies dropout to the row of query `row`, one number per key.
    #[inline(always)]
    fn drop(&self, row: usize, numbers: &mut [f32]) {
        if let Some((dropout, addresses, first)) = &self.dropout {
            drop_row(dropout, addresses[row], *first, numbers);
        }
    }
}

/// Cuts the scratch of a thread into slices of the given lengths.
pub(super) fn slices<const N: usize>(scratch: &mut [f32], lengths: [usize; N]) -> [&mut [f32]; N] {
    let mut rest = scratch;
    lengths.map(|length| rest.split_off_mut(..length).expect("scratch was asked to be this long"))
}

/// Lengths of the forward pass's scratch for a sequence of `length` rows, heads `each` wide.
fn forward_scratch(length: usize, each: usize) -> [usize; 4] {
    let (long, wide) = (padded(length), padded(each));
    [each * long, length * wide, BAND * long, BAND * wide]
}

/// The same of the backward pass.
fn backward_scratch(length: usize, each: usize) -> [usize; 11] {
    let (long, wide) = (padded(length), padded(each));
    let (turned, rows, band, narrow) = (each * long, length * wide, BAND * long, BAND * wide);
    [turned, turned, rows, rows, rows, band, band, band, narrow, narrow, narrow]
}

/// The next multiple of the lanes.
pub(super) fn padded(len: usize) -> usize {
    len.next_multiple_of(LANES)
}

impl Cpu {
    /// The width of a head.
    fn check_attention(op: &Attention, starts: &[u32]) -> usize {
        let longest = starts.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0) as usize;
        assert!(longest <= op.longest, "a sequence of {longest} rows, planned {}", op.longest);
        assert!(op.longest <= 1 << 16, "key positions have sixteen bits");
        op.each()
    }

    pub(super) fn attention_forward(&mut self, op: &Attention) {
        let starts = self.ids.read(op.starts);
        let each = Self::check_attention(op, starts);
        let addresses = op.dropout.map_or(&[][..], |dropout| self.ids.read(dropout.rows));
        let ([qkv], [out, lse]) = self.memory.borrow([op.qkv], [op.out, op.lse]);
        let [out_marks, lse_marks, ..] = &mut self.marks;
        let out = Grid::new(out, starts, each, out_marks);
        let lse = Grid::new(lse, starts, 1, lse_marks);
        let items = (starts.len() - 1) * op.heads;
        self.threads.reserve(forward_scratch(op.longest, each).iter().sum());
        self.threads.each(items, cost(op, items), |item| {
            let (sequence, head) = (item / op.heads, item % op.heads);
            let one = head_of(op, qkv, starts, addresses, sequence, head);
            let (out, lse) = (out.tile(sequence, head), lse.tile(sequence, head));
            let lengths = forward_scratch(one.length(), each);
            let mut scratch = self.threads.scratch(lengths.iter().sum());
            let parts = slices(&mut scratch, lengths);
            vectorised(
                #[inline(always)]
                || forward(&one, out, lse, parts),
            );
        });
    }

    pub(super) fn attention_gradient(&mut self, op: &AttentionBackward) {
        let forward = &op.forward;
        let starts = self.ids.read(forward.starts);
        let each = Self::check_attention(forward, starts);
        assert_eq!((op.d_out.rows(), op.d_out.cols()), (forward.out.rows(), forward.out.cols()));
        let addresses = forward.dropout.map_or(&[][..], |dropout| self.ids.read(dropout.rows));
        assert_eq!((op.d_qkv.rows(), op.d_qkv.cols()), (forward.qkv.rows(), forward.qkv.cols()));
        let ([qkv, lse, d_out], [d_qkv]) =
            self.memory.borrow([forward.qkv, forward.lse, op.d_out], [op.d_qkv]);
        let (heads, key_heads) = (forward.heads, forward.key_heads);
        let group = heads / key_heads;
        let d_qkv = Grid::new(d_qkv, starts, each, &mut self.marks[0]);
        let items = (starts.len() - 1) * key_heads;
        self.threads.reserve(backward_scratch(forward.longest, each).iter().sum());
        self.threads.each(items, 2 * group * cost(forward, items * group), |item| {
            let (sequence, key_head) = (item / key_heads, item % key_heads);
            let rows = starts[sequence] as usize..starts[sequence + 1] as usize;
            let queries = (key_head * group..(key_head + 1) * group).map(|head| Query {
                head: head_of(forward, qkv, starts, addresses, sequence, head),
                lse: lse.part(rows.clone(), head..head + 1),
                d_out: d_out.part(rows.clone(), head * each..(head + 1) * each),
                d_query: d_qkv.tile(sequence, head),
            });
            let d_key = d_qkv.tile(sequence, heads + key_head);
            let d_value = d_qkv.tile(sequence, heads + key_heads + key_head);
            let lengths = backward_scratch(rows.len(), each);
            let mut scratch = self.threads.scratch(lengths.iter().sum());
            let parts = slices(&mut scratch, lengths);
            vectorised(
                #[inline(always)]
                || backward(queries, d_key, d_value, parts),
            );
        });
    }
}

/// About how many numbers an item touches.
fn cost(op: &Attention, items: usize) -> usize {
    let mean_length = op.qkv.rows() * op.heads / items.max(1);
    mean_length * (mean_length + 9 * op.out.cols() / op.heads)
}

fn head_of<'a>(
    op: &Attention,
    qkv: Rows<'a>,
    starts: &[u32],
    addresses: &'a [u32],
    sequence: usize,
    head: usize,
) -> Head<'a> {
    let rows = starts[sequence] as usize..starts[sequence + 1] as usize;
    let each = op.each();
    let part = |part: usize| qkv.part(rows.clone(), part * each..(part + 1) * each);
    let key = head * op.key_heads / op.heads;
    let dropout =
        op.dropout.map(|dropout| (dropout, &addresses[rows.clone()], (head as u32) << 16));
    Head {
        query: part(head),
        key: part(op.heads + key),
        value: part(op.heads + op.key_heads + key),
        dropout,
        mask: op.mask,
        scale: op.scale as f32,
    }
}

#[inline(always)]
fn forward(
    head: &Head<'_>,
    mut out: Tile<'_>,
    mut lse: Tile<'_>,
    [keys, values, scores, outs]: [&mut [f32]; 4],
) {
    let (length, each) = (head.length(), head.query.cols);
    let (long, wide) = (padded(length), padded(each));
    pack((0..length).map(|row| head.key.row(row)), values, wide);
    turn(values, wide, keys, long);
    pack((0..length).map(|row| head.value.row(row)), values, wide);
    for first in (0..length).step_by(BAND) {
        let band = BAND.min(length - first);
        let queries = head.query.part(first..first + band, 0..each);
        let left = Left { values: queries.values, rows: queries.stride, cols: 1 };
        let (columns, seen) = head.seen(first..first + band);
        let shape = (band, each, long);
        product_of_columns(scores, left, keys, shape, columns.clone(), head.scale, Into::Write);
        for at in 0..band {
            let row = &mut scores[at * long..][..long];
            let keys = head.mask.keys(first + at, length);
            let inside = keys.start - columns.start..keys.end - columns.start;
            lse.row(first + at)[0] = softmax(&mut row[columns.clone()], inside);
            head.drop(first + at, &mut row[..keys.end]);
        }
        let left = Left { values: &scores[seen.start..], rows: long, cols: 1 };
        let values = &values[seen.start * wide..];
        product(outs, left, values, (band, seen.len(), wide), 1.0, Into::Write);
        for at in 0..band {
            out.row(first + at).copy_from_slice(&outs[at * wide..][..each]);
        }
    }
}

/// Turns the scores of `keys` in a row into probabilities and the others into 0; the logarithm of
/// the sum of their exponentials.
#[inline(always)]
pub(super) fn softmax(row: &mut [f32], keys: Range<usize>) -> f32 {
    // Whole blocks all the way: a remainder would cost as much as several of them.
    row[..keys.start].fill(f32::NEG_INFINITY);
    row[keys.end..].fill(f32::NEG_INFINITY);
    let largest = max(row);
    for x in row.iter_mut() {
        *x = exp(*x - largest);
    }
    let total = sum(row, |x| x);
    let inverse = 1.0 / total;
    for x in row.iter_mut() {
        *x *= inverse;
    }
    largest + libm::logf(total)
}

/// A query head in the backward pass.
struct Query<'a> {
    head: Head<'a>,
    lse: Rows<'a>,
    d_out: Rows<'a>,
    d_query: Tile<'a>,
}

/// Gradients of the queries that share a head of keys, in their order, and of that head.
#[inline(always)]
fn backward<'a>(
    group: impl Iterator<Item = Query<'a>>,
    mut d_key: Tile<'_>,
    mut d_value: Tile<'_>,
    parts: [&mut [f32]; 11],
) {
    let [
        turned_keys,
        turned_values,
        keys,
        d_keys,
        d_values,
        p,
        kept,
        dp,
        queries,
        d_outs,
        d_queries,
    ] = parts;
    let mut length = 0;
    let mut wide = 0;
    for (place, Query { head, lse, d_out, mut d_query }) in group.enumerate() {
        let each = head.query.cols;
        (length, wide) = (head.length(), padded(each));
        let long = padded(length);
        if place == 0 {
            pack((0..length).map(|row| head.value.row(row)), keys, wide);
            turn(keys, wide, turned_values, long);
            pack((0..length).map(|row| head.key.row(row)), keys, wide);
            turn(keys, wide, turned_keys, long);
            d_keys.fill(0.0);
            d_values.fill(0.0);
        }
        for first in (0..length).step_by(BAND) {
            let band = BAND.min(length - first);
            let (columns, seen) = head.seen(first..first + band);
            pack((first..first + band).map(|row| head.query.row(row)), queries, wide);
            pack((first..first + band).map(|row| d_out.row(row)), d_outs, wide);
            let (shape, cut) = ((band, each, long), columns.clone());
            let left = Left { values: queries, rows: wide, cols: 1 };
            product_of_columns(p, left, turned_keys, shape, cut.clone(), head.scale, Into::Write);
            let left = Left { values: d_outs, rows: wide, cols: 1 };
            product_of_columns(dp, left, turned_values, shape, cut, 1.0, Into::Write);
            for at in 0..band {
                // Whole blocks, as in the forward pass: where no key is seen `p` is 0.
                let row = at * long..(at + 1) * long;
                let (p, kept) = (&mut p[row.clone()], &mut kept[row.clone()]);
                let dp = &mut dp[row];
                let log_total = lse.row(first + at)[0];
                let visible = head.mask.keys(first + at, length);
                p[columns.start..visible.start].fill(f32::NEG_INFINITY);
                p[visible.end..columns.end].fill(f32::NEG_INFINITY);
                for p in &mut p[columns.clone()] {
                    *p = exp(*p - log_total);
                }
                kept[columns.clone()].copy_from_slice(&p[columns.clone()]);
                head.drop(first + at, &mut kept[..visible.end]);
                head.drop(first + at, &mut dp[..visible.end]);
                let (p, dp) = (&p[columns.clone()], &mut dp[columns.clone()]);
                let mean = sum2(p, dp, |p, dp| p * dp);
                // From here on `dp` holds the gradient of the scores before scaling.
                for (dp, &p) in dp.iter_mut().zip(p) {
                    *dp = p * (*dp - mean) * head.scale;
                }
            }
            let (from, count) = (seen.start * wide, seen.len());
            let left = Left { values: &dp[seen.start..], rows: long, cols: 1 };
            product(d_queries, left, &keys[from..], (band, count, wide), 1.0, Into::Write);
            for at in 0..band {
                d_query.row(first + at).copy_from_slice(&d_queries[at * wide..][..each]);
            }
            let left = Left { values: &dp[seen.start..], rows: 1, cols: long };
            product(&mut d_keys[from..], left, queries, (count, band, wide), 1.0, Into::Add);
            let left = Left { values: &kept[seen.start..], rows: 1, cols: long };
            product(&mut d_values[from..], left, d_outs, (count, band, wide), 1.0, Into::Add);
        }
    }
    for row in 0..length {
        let to = d_key.row(row);
        to.copy_from_slice(&d_keys[row * wide..][..to.len()]);
        let to = d_value.row(row);
        to.copy_from_slice(&d_values[row * wide..][..to.len()]);
    }
}
