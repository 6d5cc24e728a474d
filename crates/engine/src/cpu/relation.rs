//! Relations between the rows of a sequence: one item per sequence and relation head.
//!
//! Items write into buffers of the device's own, which are then added to the gradients row by row,
//! since the two gradients may be one view or columns of one matrix.

use std::ops::Range;

use super::Cpu;
use super::attention::{padded, slices};
use super::lanes::{sum2_f64, vectorised};
use super::losses::{kl, ln_total};
use super::math::exp;
use super::memory::{Grid, Rows, RowsMut, Tile};
use super::tile::{Into, Left, pack, product, turn};
use crate::View;
use crate::device::{Relation, RelationMeasure};

/// Rows whose scores are held at a time.
const BAND: usize = 32;

/// Both sides of one relation head of one sequence, and how they are compared.
struct Head<'a> {
    a: Rows<'a>,
    b: Rows<'a>,
    teacher_a: Rows<'a>,
    teacher_b: Rows<'a>,
    measure: RelationMeasure,
    /// Factor of the gradients of the scores, heads and their scale included.
    factor: f32,
}

/// Buffers that hold the gradients until they are added.
#[derive(Default)]
pub(super) struct Kept {
    d_a: Vec<f32>,
    d_b: Vec<f32>,
    losses: Vec<f32>,
}

impl Kept {
    /// Bytes held.
    pub(super) fn bytes(&self) -> u64 {
        let numbers = self.d_a.capacity() + self.d_b.capacity() + self.losses.capacity();
        (numbers * size_of::<f32>()) as u64
    }
}

impl Cpu {
    pub(super) fn relation_losses(&mut self, op: &Relation) {
        let starts = self.ids.read(op.starts);
        let (rows, width, teacher_width) = (op.a.rows(), op.a.cols(), op.teacher_a.cols());
        assert_eq!((op.b.rows(), op.b.cols()), (rows, width), "shape of b");
        assert_eq!(op.teacher_a.rows(), rows, "rows of the teacher");
        assert_eq!(
            (op.teacher_b.rows(), op.teacher_b.cols()),
            (rows, teacher_width),
            "teacher's b"
        );
        assert_eq!((op.losses.rows(), op.losses.cols()), (rows, 1), "one loss per row");
        assert!(
            op.heads > 0
                && width.is_multiple_of(op.heads)
                && teacher_width.is_multiple_of(op.heads),
            "{} relation heads of {width} and {teacher_width}",
            op.heads
        );
        let (each, teacher_each) = (width / op.heads, teacher_width / op.heads);
        let kept = &mut self.kept;
        let with_gradients = op.gradients.is_some();
        let wanted = if with_gradients { rows * width } else { 0 };
        kept.d_a.resize(kept.d_a.len().max(wanted), 0.0);
        kept.d_b.resize(kept.d_b.len().max(wanted), 0.0);
        kept.losses.resize(kept.losses.len().max(rows * op.heads), 0.0);
        let reads = [op.a, op.b, op.teacher_a, op.teacher_b];
        let ([a, b, teacher_a, teacher_b], [losses]) = self.memory.borrow(reads, [op.losses]);
        let [marks, marks_a, marks_b, _] = &mut self.marks;
        let grid =
            |values, cols, width, marks| Grid::new(RowsMut::of(values, cols), starts, width, marks);
        let head_losses = grid(&mut kept.losses[..rows * op.heads], op.heads, 1, marks);
        let grids = with_gradients.then(|| {
            let (d_a, d_b) = (&mut kept.d_a[..wanted], &mut kept.d_b[..wanted]);
            (grid(d_a, width, each, marks_a), grid(d_b, width, each, marks_b))
        });
        let items = (starts.len() - 1) * op.heads;
        let mean_length = rows * op.heads / items.max(1);
        let cost = 2 * mean_length * (mean_length + 2 * (each + teacher_each));
        self.threads.reserve(scratch(op.longest, each, teacher_each).iter().sum());
        self.threads.each(items, cost, |item| {
            let (sequence, head) = (item / op.heads, item % op.heads);
            let rows = starts[sequence] as usize..starts[sequence + 1] as usize;
            let scale = 1.0 / (op.heads as f64 * (each as f64).sqrt());
            let one = Head {
                a: part_of(a, &rows, head, each),
                b: part_of(b, &rows, head, each),
                teacher_a: part_of(teacher_a, &rows, head, teacher_each),
                teacher_b: part_of(teacher_b, &rows, head, teacher_each),
                measure: op.measure,
                factor: (op.scale * scale) as f32,
            };
            let tiles = grids
                .as_ref()
                .map(|(d_a, d_b)| (d_a.tile(sequence, head), d_b.tile(sequence, head)));
            let losses = head_losses.tile(sequence, head);
            let lengths = scratch(rows.len(), each, teacher_each);
            let mut scratch = self.threads.scratch(lengths.iter().sum());
            let parts = slices(&mut scratch, lengths);
            vectorised(
                #[inline(always)]
                || compare(&one, losses, tiles, parts),
            );
        });
        let of_heads = Rows::of(&kept.losses[..rows * op.heads], op.heads);
        let mut losses = losses;
        for row in 0..rows {
            losses.row(row)[0] = of_heads.row(row).iter().sum::<f32>() / op.heads as f32;
        }
        if let Some((to_a, to_b)) = op.gradients {
            self.add_kept(to_a, |kept| &kept.d_a);
            self.add_kept(to_b, |kept| &kept.d_b);
        }
    }

    fn add_kept(&mut self, to: View, which: impl Fn(&Kept) -> &Vec<f32>) {
        let from = Rows::of(&which(&self.kept)[..to.len()], to.cols());
        let ([], [to]) = self.memory.borrow([], [to]);
        self.threads.over((to, from), from.cols, |(mut to, from)| {
            for row in 0..from.rows {
                to.row(row).iter_mut().zip(from.row(row)).for_each(|(to, from)| *to += from);
            }
        });
    }
}

/// Lengths of the scratch for a sequence of `length` rows and heads of the two widths.
fn scratch(length: usize, each: usize, teacher_each: usize) -> [usize; 9] {
    let (long, wide) = (padded(length), padded(each));
    let (rows, teacher_rows) = (length * wide, length * padded(teacher_each));
    let (band, narrow) = (BAND * long, BAND * wide);
    let turned = [each * long, teacher_each * long];
    [turned[0], turned[1], rows, teacher_rows, rows, band, band, narrow, narrow]
}

/// The columns of one head in the rows of one sequence.
fn part_of<'a>(side: Rows<'a>, rows: &Range<usize>, head: usize, each: usize) -> Rows<'a> {
    side.part(rows.clone(), head * each..(head + 1) * each)
}

#[inline(always)]
fn compare(
    head: &Head<'_>,
    mut losses: Tile<'_>,
    tiles: Option<(Tile<'_>, Tile<'_>)>,
    parts: [&mut [f32]; 9],
) {
    let [
        turned,
        teacher_turned,
        packed,
        teacher_packed,
        d_b,
        scores,
        teacher_scores,
        left_rows,
        d_rows,
    ] = parts;
    let (length, each, teacher_each) = (head.a.rows, head.a.cols, head.teacher_a.cols);
    let (long, wide) = (padded(length), padded(each));
    let scale = (1.0 / (each as f64).sqrt()) as f32;
    let teacher_scale = (1.0 / (teacher_each as f64).sqrt()) as f32;
    pack((0..length).map(|row| head.b.row(row)), packed, wide);
    turn(packed, wide, turned, long);
    let teacher_wide = padded(teacher_each);
    pack((0..length).map(|row| head.teacher_b.row(row)), teacher_packed, teacher_wide);
    turn(teacher_packed, teacher_wide, teacher_turned, long);
    d_b.fill(0.0);
    let mut tiles = tiles;
    for first in (0..length).step_by(BAND) {
        let band = BAND.min(length - first);
        let left = head.a.part(first..first + band, 0..each);
        let left = Left { values: left.values, rows: left.stride, cols: 1 };
        product(scores, left, turned, (band, each, long), scale, Into::Write);
        let left = head.teacher_a.part(first..first + band, 0..teacher_each);
        let left = Left { values: left.values, rows: left.stride, cols: 1 };
        let shape = (band, teacher_each, long);
        product(teacher_scores, left, teacher_turned, shape, teacher_scale, Into::Write);
        for at in 0..band {
            let cut = at * long..at * long + length;
            let (scores, teacher) = (&mut scores[cut.clone()], &teacher_scores[cut]);
            losses.row(first + at)[0] = row_of(head.measure, scores, teacher, head.factor) as f32;
        }
        if let Some((d_a, _)) = &mut tiles {
            // `scores` now holds their gradients.
            let left = Left { values: scores, rows: long, cols: 1 };
            product(d_rows, left, packed, (band, length, wide), 1.0, Into::Write);
            for at in 0..band {
                d_a.row(first + at).copy_from_slice(&d_rows[at * wide..][..each]);
            }
            pack((first..first + band).map(|row| head.a.row(row)), left_rows, wide);
            let left = Left { values: scores, rows: 1, cols: long };
            product(d_b, left, left_rows, (length, band, wide), 1.0, Into::Add);
        }
    }
    if let Some((_, to)) = &mut tiles {
        for row in 0..length {
            to.row(row).copy_from_slice(&d_b[row * wide..][..each]);
        }
    }
}

/// Loss of one row of scores, which become `factor` times its gradient.
#[inline(always)]
fn row_of(measure: RelationMeasure, scores: &mut [f32], teacher: &[f32], factor: f32) -> f64 {
    match measure {
        RelationMeasure::Kl => {
            let (largest, total) = ln_total(scores, 1.0);
            let (t_largest, t_total) = ln_total(teacher, 1.0);
            let (ln, t_ln) = (total as f32, t_total as f32);
            let loss = kl(scores, teacher, 1.0, (largest, ln), (t_largest, t_ln));
            for (score, &t) in scores.iter_mut().zip(teacher) {
                *score = factor * (exp(*score - largest - ln) - exp(t - t_largest - t_ln));
            }
            loss
        }
        RelationMeasure::ScoresMse => {
            let length = scores.len() as f64;
            let square = |s: f32, t: f32| f64::from(s - t) * f64::from(s - t);
            let loss = sum2_f64(scores, teacher, square) / length;
            let factor = factor * (2.0 / length) as f32;
            for (score, &t) in scores.iter_mut().zip(teacher) {
                *score = factor * (*score - t);
            }
            loss
        }
    }
}
