//! Every kernel of this processor against sums in double precision over the same rounded factors,
//! and against itself with other numbers of threads.

use heirloom_base::{Purpose, Words};
use proptest::prelude::*;

use super::*;
use crate::Precision;
use crate::precision::bf16;

/// The kernels for bfloat16 that this processor has.
fn kernels() -> Vec<(&'static str, Kernel)> {
    let mut kernels = vec![("rounded", Kernel::Rounded)];
    if let native @ Kernel::Pairs(_) = Kernel::of(Precision::Bf16) {
        kernels.push(("pairs", native));
    }
    kernels
}

/// Numbers in −1..1 that are no bfloat16s as a rule.
fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let words = Words::at(seed, Purpose::Synthetic, 0, 0);
    let number = |at: usize| f64::from(words.block(at as u32, 0)[0]) / 2_147_483_648.0 - 1.0;
    (0..len).map(|at| number(at) as f32).collect()
}

/// A factor of `rows` and `cols`, in rows that are longer than needed.
fn factor(values: &[f32], rows: usize, cols: usize, transposed: bool) -> Factor<'_> {
    let (long, wide) = if transposed { (cols, rows) } else { (rows, cols) };
    let of = Rows { values, rows: long, cols: wide, stride: wide + 3 };
    if transposed { Factor::Transposed(of) } else { Factor::Plain(of) }
}

fn at(factor: &Factor<'_>, row: usize, col: usize) -> f64 {
    let x = match factor {
        Factor::Plain(rows) => rows.row(row)[col],
        Factor::Transposed(rows) => rows.row(col)[row],
    };
    f64::from(bf16(x))
}

/// The sum, and most that one in `f32` may be off: for each product at most two roundings, of a sum
/// so far with or without the product, each by 2⁻²⁴ of it.
fn sum(products: impl Iterator<Item = f64>, before: f64) -> (f64, f64) {
    let (mut sum, mut sizes) = (0.0_f64, 0.0);
    for product in products {
        sum += product;
        sizes += sum.abs() + product.abs();
    }
    let joined = sum + before;
    (joined, (2.0 * sizes + joined.abs()) * 2.0_f64.powi(-24))
}

fn check(m: usize, inner: usize, n: usize) {
    for turned in 0..4 {
        let room = |rows: usize, cols: usize| (rows + 3) * (cols + 3);
        let (a, b) = (numbers(1, room(m, inner)), numbers(2, room(inner, n)));
        let a = factor(&a, m, inner, turned & 1 > 0);
        let b = factor(&b, inner, n, turned & 2 > 0);
        for (name, kernel) in kernels() {
            for add in [false, true] {
                let case = format!("{name}: {m}×{inner}×{n}, turned {turned}, add {add}");
                let run = |threads| {
                    let mut c = vec![0.5; m * (n + 1)];
                    let rows = RowsMut { values: &mut c, rows: m, cols: n, stride: n + 1 };
                    Products::by(kernel).run(&Threads::new(threads), rows, a, b, add);
                    c
                };
                let got = run(1);
                for (row, got) in got.chunks(n + 1).enumerate() {
                    assert_eq!(got[n], 0.5, "{case}: beyond the last column");
                    for (col, &got) in got[..n].iter().enumerate() {
                        let products = (0..inner).map(|k| at(&a, row, k) * at(&b, k, col));
                        let (want, bound) = sum(products, if add { 0.5 } else { 0.0 });
                        let off = (f64::from(got) - want).abs();
                        assert!(off <= bound, "{case}: [{row}, {col}] {got}, not {want}");
                    }
                }
                for threads in [2, 3] {
                    assert!(run(threads) == got, "{case}: {threads} threads");
                }
            }
        }
    }
}

#[test]
fn products_of_bfloat16_are_sums_over_rounded_factors() {
    // Around pairs, registers, tiles and strips, and beyond one depth.
    for (m, inner, n) in [
        (1, 1, 1),
        (1, 2, 33),
        (3, 0, 5),
        (0, 4, 3),
        (13, 3, 16),
        (14, 31, 31),
        (15, 32, 32),
        (29, 33, 65),
        (6, 513, 17),
    ] {
        check(m, inner, n);
    }
}

#[test]
fn whole_strips_and_blocks_agree() {
    check(101, 65, 259);
}

#[test]
fn infinities_and_nan_come_through() {
    for (name, kernel) in kernels() {
        let product = |x: f32, y: f32| {
            let (a, b) = ([1.0, x, 1.0], [1.0, y, 1.0]);
            let mut c = [0.0];
            let (a, b) = (Factor::Plain(Rows::of(&a, 3)), Factor::Plain(Rows::of(&b, 1)));
            Products::by(kernel).run(&Threads::new(1), RowsMut::of(&mut c, 1), a, b, false);
            c[0]
        };
        assert_eq!(product(f32::INFINITY, 2.0), f32::INFINITY, "{name}");
        // Beyond the largest bfloat16, though not the largest `f32`.
        assert_eq!(product(f32::MIN, 1.0), f32::NEG_INFINITY, "{name}");
        assert!(product(f32::INFINITY, 0.0).is_nan(), "{name}");
        assert!(product(f32::from_bits(0x7f80_0001), 1.0).is_nan(), "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn products_of_any_shape_are_sums_over_rounded_factors(
        m in 0usize..40, inner in 0usize..70, n in 0usize..70,
    ) {
        check(m, inner, n);
    }
}
