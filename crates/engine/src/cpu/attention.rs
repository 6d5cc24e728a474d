//! Attention inside each sequence: one item per sequence and head, computed by one thread.
//!
//! Queries are taken in bands, so that the scores held at a time fit in the nearest cache whatever
//! the length; the backward pass recomputes a band's probabilities from `lse`.

use super::Cpu;
use super::lanes::{LANES, drop_row, max, sum, sum2, vectorised};
use super::math::exp;
use super::memory::{Grid, Rows, Tile};
use super::tile::{Into, Left, pack, product, turn};
use crate::device::{Attention, AttentionBackward, Dropout};

/// Query rows whose scores are held at a time.
const BAND: usize = 32;

/// One head of one sequence.
struct Head<'a> {
    query: Rows<'a>,
    key: Rows<'a>,
    value: Rows<'a>,
    /// Row addresses of the dropout words, and the first column.
    dropout: Option<(Dropout, &'a [u32], u32)>,
    scale: f32,
}

impl Head<'_> {
    fn length(&self) -> usize {
        self.query.rows
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
    fn check_attention(op: &Attention, starts: &[u32]) {
        let (rows, width) = (op.qkv.rows(), op.qkv.cols() / 3);
        assert!(op.heads > 0 && width.is_multiple_of(op.heads), "{} heads of {width}", op.heads);
        assert_eq!(op.qkv.cols(), 3 * width, "queries, keys and values");
        assert_eq!((op.out.rows(), op.out.cols()), (rows, width), "shape of the output");
        assert_eq!((op.lse.rows(), op.lse.cols()), (rows, op.heads), "shape of lse");
        let longest = starts.windows(2).map(|ends| ends[1] - ends[0]).max().unwrap_or(0) as usize;
        assert!(longest <= op.longest, "a sequence of {longest} rows, planned {}", op.longest);
        assert!(op.longest <= 1 << 16, "key positions have sixteen bits");
    }

    pub(super) fn attention_forward(&mut self, op: &Attention) {
        let starts = self.ids.read(op.starts);
        Self::check_attention(op, starts);
        let addresses = op.dropout.map_or(&[][..], |dropout| self.ids.read(dropout.rows));
        let ([qkv], [out, lse]) = self.memory.borrow([op.qkv], [op.out, op.lse]);
        let each = op.qkv.cols() / 3 / op.heads;
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
        Self::check_attention(forward, starts);
        assert_eq!((op.d_out.rows(), op.d_out.cols()), (forward.out.rows(), forward.out.cols()));
        let addresses = forward.dropout.map_or(&[][..], |dropout| self.ids.read(dropout.rows));
        assert_eq!((op.d_qkv.rows(), op.d_qkv.cols()), (forward.qkv.rows(), forward.qkv.cols()));
        let ([qkv, lse, d_out], [d_qkv]) =
            self.memory.borrow([forward.qkv, forward.lse, op.d_out], [op.d_qkv]);
        let heads = forward.heads;
        let each = forward.qkv.cols() / 3 / heads;
        let d_qkv = Grid::new(d_qkv, starts, each, &mut self.marks[0]);
        let items = (starts.len() - 1) * heads;
        self.threads.reserve(backward_scratch(forward.longest, each).iter().sum());
        self.threads.each(items, 2 * cost(forward, items), |item| {
            let (sequence, head) = (item / heads, item % heads);
            let one = head_of(forward, qkv, starts, addresses, sequence, head);
            let rows = starts[sequence] as usize..starts[sequence + 1] as usize;
            let lse = lse.part(rows.clone(), head..head + 1);
            let d_out = d_out.part(rows, head * each..(head + 1) * each);
            let tiles = [0, 1, 2].map(|part| d_qkv.tile(sequence, part * heads + head));
            let lengths = backward_scratch(one.length(), each);
            let mut scratch = self.threads.scratch(lengths.iter().sum());
            let parts = slices(&mut scratch, lengths);
            vectorised(
                #[inline(always)]
                || backward(&one, lse, d_out, tiles, parts),
            );
        });
    }
}

/// About how many numbers an item touches.
fn cost(op: &Attention, items: usize) -> usize {
    let mean_length = op.qkv.rows() * op.heads / items.max(1);
    mean_length * (mean_length + 3 * op.qkv.cols() / op.heads)
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
    let width = qkv.cols / 3;
    let each = width / op.heads;
    let part = |part: usize| {
        let first = part * width + head * each;
        qkv.part(rows.clone(), first..first + each)
    };
    let dropout =
        op.dropout.map(|dropout| (dropout, &addresses[rows.clone()], (head as u32) << 16));
    Head { query: part(0), key: part(1), value: part(2), dropout, scale: op.scale as f32 }
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
        product(scores, left, keys, (band, each, long), head.scale, Into::Write);
        for at in 0..band {
            let row = &mut scores[at * long..][..long];
            let log_total = softmax(row, length);
            lse.row(first + at)[0] = log_total;
            head.drop(first + at, &mut row[..length]);
        }
        let left = Left { values: scores, rows: long, cols: 1 };
        product(outs, left, values, (band, length, wide), 1.0, Into::Write);
        for at in 0..band {
            out.row(first + at).copy_from_slice(&outs[at * wide..][..each]);
        }
    }
}

/// Turns the first `length` scores of a row into probabilities and the others into 0; the
/// logarithm of the sum of their exponentials.
#[inline(always)]
fn softmax(row: &mut [f32], length: usize) -> f32 {
    // Whole blocks all the way: a remainder would cost as much as several of them.
    row[length..].fill(f32::NEG_INFINITY);
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

#[inline(always)]
fn backward(
    head: &Head<'_>,
    lse: Rows<'_>,
    d_out: Rows<'_>,
    [mut d_query, mut d_key, mut d_value]: [Tile<'_>; 3],
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
    let (length, each) = (head.length(), head.query.cols);
    let (long, wide) = (padded(length), padded(each));
    pack((0..length).map(|row| head.value.row(row)), keys, wide);
    turn(keys, wide, turned_values, long);
    pack((0..length).map(|row| head.key.row(row)), keys, wide);
    turn(keys, wide, turned_keys, long);
    d_keys.fill(0.0);
    d_values.fill(0.0);
    for first in (0..length).step_by(BAND) {
        let band = BAND.min(length - first);
        pack((first..first + band).map(|row| head.query.row(row)), queries, wide);
        pack((first..first + band).map(|row| d_out.row(row)), d_outs, wide);
        let left = Left { values: queries, rows: wide, cols: 1 };
        product(p, left, turned_keys, (band, each, long), head.scale, Into::Write);
        let left = Left { values: d_outs, rows: wide, cols: 1 };
        product(dp, left, turned_values, (band, each, long), 1.0, Into::Write);
        for at in 0..band {
            // Whole blocks, as in the forward pass: beyond the sequence `p` is 0.
            let cut = at * long..(at + 1) * long;
            let (p, kept, dp) = (&mut p[cut.clone()], &mut kept[cut.clone()], &mut dp[cut]);
            let log_total = lse.row(first + at)[0];
            p[length..].fill(f32::NEG_INFINITY);
            for p in p.iter_mut() {
                *p = exp(*p - log_total);
            }
            kept.copy_from_slice(p);
            head.drop(first + at, &mut kept[..length]);
            head.drop(first + at, &mut dp[..length]);
            let mean = sum2(p, dp, |p, dp| p * dp);
            // From here on `dp` holds the gradient of the scores before scaling.
            for (dp, &p) in dp.iter_mut().zip(&*p) {
                *dp = p * (*dp - mean) * head.scale;
            }
        }
        let left = Left { values: dp, rows: long, cols: 1 };
        product(d_queries, left, keys, (band, length, wide), 1.0, Into::Write);
        for at in 0..band {
            d_query.row(first + at).copy_from_slice(&d_queries[at * wide..][..each]);
        }
        let left = Left { values: dp, rows: 1, cols: long };
        product(d_keys, left, queries, (length, band, wide), 1.0, Into::Add);
        let left = Left { values: kept, rows: 1, cols: long };
        product(d_values, left, d_outs, (length, band, wide), 1.0, Into::Add);
    }
    for row in 0..length {
        d_key.row(row).copy_from_slice(&d_keys[row * wide..][..each]);
        d_value.row(row).copy_from_slice(&d_values[row * wide..][..each]);
    }
}
