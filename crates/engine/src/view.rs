//! Handles to numbers on a device: which buffer, where in it, and in what shape.

use std::ops::Range;

/// One flat buffer of numbers on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Space(pub(crate) u32);

/// One flat buffer of indices (token ids, sequence starts, labels) on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdSpace(pub(crate) u32);

/// A row-major matrix inside a space: `[rows, cols]`, each row `stride` numbers after the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct View {
    pub(crate) space: Space,
    pub(crate) offset: usize,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    pub(crate) stride: usize,
}

impl View {
    /// The contiguous matrix `[rows, cols]` at `offset` of `space`.
    pub fn matrix(space: Space, offset: usize, rows: usize, cols: usize) -> Self {
        Self { space, offset, rows, cols, stride: cols }
    }

    /// The buffer this view looks into.
    pub fn space(self) -> Space {
        self.space
    }

    /// Position of the first number in its space.
    pub fn offset(self) -> usize {
        self.offset
    }

    /// Number of rows.
    pub fn rows(self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn cols(self) -> usize {
        self.cols
    }

    /// Numbers seen through this view.
    pub fn len(self) -> usize {
        self.rows * self.cols
    }

    /// Whether the view holds no number.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether the rows follow one another without a gap.
    pub fn is_contiguous(self) -> bool {
        self.stride == self.cols || self.rows <= 1
    }

    /// The first `rows` rows: how a buffer planned for the largest batch serves a smaller one.
    #[must_use]
    pub fn first_rows(self, rows: usize) -> Self {
        assert!(rows <= self.rows, "{rows} rows of a view of {}", self.rows);
        Self { rows, ..self }
    }

    /// The rows of `range`.
    #[must_use]
    pub fn row_range(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {self:?}");
        Self {
            offset: self.offset + range.start * self.stride,
            rows: range.end - range.start,
            ..self
        }
    }

    /// The columns of `range`; the rows keep their distance.
    #[must_use]
    pub fn columns(self, range: Range<usize>) -> Self {
        assert!(
            range.start <= range.end && range.end <= self.cols,
            "columns {range:?} of {self:?}"
        );
        Self { offset: self.offset + range.start, cols: range.end - range.start, ..self }
    }

    /// The same numbers as `[rows, cols]`; the view must be contiguous.
    #[must_use]
    pub fn reshaped(self, rows: usize, cols: usize) -> Self {
        assert!(self.is_contiguous() && rows * cols == self.len(), "{self:?} as [{rows}, {cols}]");
        Self { rows, cols, stride: cols, ..self }
    }

    /// Where the view's memory begins and ends in its space, gaps between rows included.
    pub(crate) fn extent(self) -> Range<usize> {
        if self.is_empty() {
            return self.offset..self.offset;
        }
        self.offset..self.offset + (self.rows - 1) * self.stride + self.cols
    }

    /// Whether two views could touch the same memory (rows that interleave count as touching).
    pub(crate) fn overlaps(self, other: Self) -> bool {
        let (a, b) = (self.extent(), other.extent());
        self.space == other.space && a.start < b.end && b.start < a.end
    }
}

/// A run of indices inside an index space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    pub(crate) space: IdSpace,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

impl Ids {
    /// The `len` indices at `offset` of `space`.
    pub fn at(space: IdSpace, offset: usize, len: usize) -> Self {
        Self { space, offset, len }
    }

    /// How many indices.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// The indices of `range`.
    #[must_use]
    pub fn range(self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {self:?}");
        Self { offset: self.offset + range.start, len: range.len(), ..self }
    }

    /// The first `len` indices.
    #[must_use]
    pub fn first(self, len: usize) -> Self {
        assert!(len <= self.len, "{len} of {} indices", self.len);
        Self { len, ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_neighbouring_ranges_are_said_to_overlap_and_distant_rows_are_not() {
        let fused = View::matrix(Space(0), 10, 4, 6);
        assert!(fused.columns(0..2).overlaps(fused.columns(2..4)));
        assert!(!fused.row_range(0..2).overlaps(fused.row_range(2..4)));
        assert!(!fused.overlaps(View::matrix(Space(1), 10, 4, 6)));
    }

    #[test]
    fn a_range_of_indices_begins_where_it_says_and_ends_within() {
        let ids = Ids::at(IdSpace(0), 5, 10).range(2..6);
        assert_eq!(ids, Ids::at(IdSpace(0), 7, 4));
        assert_eq!(ids.range(4..4), Ids::at(IdSpace(0), 11, 0));
        let refused = std::panic::catch_unwind(|| ids.range(1..5)).unwrap_err();
        assert!(refused.downcast_ref::<String>().is_some_and(|text| text.starts_with("1..5 of")));
    }

    #[test]
    fn a_slice_of_columns_ends_where_its_last_row_ends() {
        let columns = View::matrix(Space(0), 10, 4, 6).columns(2..4);
        assert_eq!(columns.extent(), 12..32);
        assert!(!columns.is_contiguous());
    }
}
