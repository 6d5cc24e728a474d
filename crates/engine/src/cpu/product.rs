//! Matrix products: `c ← a b` or `c ← c + a b`, either factor transposed by its strides.
//!
//! The only place that chooses how a product is computed. Each number of `c` is summed in an order
//! that depends on the shape alone, so the number of threads changes no bit.

use gemm::Parallelism;

use super::memory::{Rows, RowsMut};
use super::threads::Threads;

/// Multiplications below which one thread is faster than several.
const SMALL: usize = 1 << 16;

/// A factor of a product.
#[derive(Clone, Copy)]
pub(super) enum Factor<'a> {
    /// The matrix as it lies.
    Plain(Rows<'a>),
    /// Its transpose.
    Transposed(Rows<'a>),
}

impl Factor<'_> {
    /// Rows and columns as seen by the product.
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::Plain(rows) => (rows.rows, rows.cols),
            Self::Transposed(rows) => (rows.cols, rows.rows),
        }
    }

    /// Pointer, distance between rows, distance between columns.
    fn place(&self) -> (*const f32, isize, isize) {
        match self {
            Self::Plain(rows) => (rows.values.as_ptr(), rows.stride as isize, 1),
            Self::Transposed(rows) => (rows.values.as_ptr(), 1, rows.stride as isize),
        }
    }
}

/// `c ← a b`, or `c ← c + a b` where `accumulate`.
#[expect(unsafe_code, reason = "the product's library takes pointers")]
pub(super) fn product(
    threads: &Threads,
    c: &mut RowsMut<'_>,
    a: Factor<'_>,
    b: Factor<'_>,
    accumulate: bool,
) {
    let ((m, k), (depth, n)) = (a.shape(), b.shape());
    assert_eq!((c.rows, c.cols, depth), (m, n, k), "shapes of a product");
    if m == 0 || n == 0 {
        return;
    }
    let parallel = threads.count() > 1 && m * n * k > SMALL;
    let parallelism =
        if parallel { Parallelism::Rayon(threads.count()) } else { Parallelism::None };
    let mut run = || {
        let ((a, a_rows, a_cols), (b, b_rows, b_cols)) = (a.place(), b.place());
        let (target, c_rows) = (c.values.as_mut_ptr(), c.stride as isize);
        // SAFETY: the matrices are borrowed slices, `c` exclusively, that end with their last rows
        // (`Memory::borrow` checked it); the shapes agree as asserted.
        unsafe {
            gemm::gemm(
                m,
                n,
                k,
                target,
                1,
                c_rows,
                accumulate,
                a,
                a_cols,
                a_rows,
                b,
                b_cols,
                b_rows,
                1.0,
                1.0,
                false,
                false,
                false,
                parallelism,
            );
        }
    };
    if parallel { threads.inside(run) } else { run() }
}
