//! Derivatives by a tape (Wengert 1964): the small models run on numbers that remember where they
//! come from.

use std::cell::RefCell;
use std::ops::{Add, Div, Mul, Sub};

/// What a small model computes with.
pub(crate) trait Scalar:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    fn of(value: f64) -> Self;
    fn exp(self) -> Self;
    fn tanh(self) -> Self;
    fn sqrt(self) -> Self;
}

impl Scalar for f64 {
    fn of(value: f64) -> Self {
        value
    }
    fn exp(self) -> Self {
        self.exp()
    }
    fn tanh(self) -> Self {
        self.tanh()
    }
    fn sqrt(self) -> Self {
        self.sqrt()
    }
}

/// The sum of some numbers.
pub(crate) fn sum<S: Scalar>(values: impl IntoIterator<Item = S>) -> S {
    values.into_iter().fold(S::of(0.0), |sum, value| sum + value)
}

/// `Σ x y`.
pub(crate) fn dot<S: Scalar>(x: &[S], y: &[S]) -> S {
    sum(x.iter().zip(y).map(|(&x, &y)| x * y))
}

thread_local! {
    /// For each number the two it was made of, and its slopes along them.
    static TAPE: RefCell<Vec<[(usize, f64); 2]>> = const { RefCell::new(Vec::new()) };
}

/// A number on the tape of this thread.
#[derive(Clone, Copy)]
pub(crate) struct Var {
    pub(crate) value: f64,
    at: usize,
}

impl Var {
    fn made(value: f64, of: [(usize, f64); 2]) -> Self {
        TAPE.with_borrow_mut(|tape| {
            tape.push(of);
            Self { value, at: tape.len() - 1 }
        })
    }

    fn along(self, value: f64, slope: f64) -> Self {
        Self::made(value, [(self.at, slope), (self.at, 0.0)])
    }

    /// A number that is made of none.
    pub(crate) fn leaf(value: f64) -> Self {
        TAPE.with_borrow_mut(|tape| {
            tape.push([(tape.len(), 0.0); 2]);
            Self { value, at: tape.len() - 1 }
        })
    }

    /// The slope of this number along every number of the tape, which is then empty.
    pub(crate) fn slopes(self) -> Slopes {
        let tape = TAPE.take();
        let mut slopes = vec![0.0; tape.len()];
        slopes[self.at] = 1.0;
        for at in (0..=self.at).rev() {
            for (of, slope) in tape[at] {
                if of != at {
                    slopes[of] += slopes[at] * slope;
                }
            }
        }
        Slopes(slopes)
    }
}

/// Slopes along the numbers of a tape.
pub(crate) struct Slopes(Vec<f64>);

impl Slopes {
    pub(crate) fn along(&self, var: Var) -> f64 {
        self.0[var.at]
    }
}

impl Add for Var {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::made(self.value + other.value, [(self.at, 1.0), (other.at, 1.0)])
    }
}

impl Sub for Var {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self::made(self.value - other.value, [(self.at, 1.0), (other.at, -1.0)])
    }
}

impl Mul for Var {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        Self::made(self.value * other.value, [(self.at, other.value), (other.at, self.value)])
    }
}

impl Div for Var {
    type Output = Self;
    fn div(self, other: Self) -> Self {
        let value = self.value / other.value;
        Self::made(value, [(self.at, 1.0 / other.value), (other.at, -value / other.value)])
    }
}

impl Scalar for Var {
    fn of(value: f64) -> Self {
        Self::leaf(value)
    }
    fn exp(self) -> Self {
        let value = self.value.exp();
        self.along(value, value)
    }
    fn tanh(self) -> Self {
        let value = self.value.tanh();
        self.along(value, 1.0 - value * value)
    }
    fn sqrt(self) -> Self {
        let value = self.value.sqrt();
        self.along(value, 0.5 / value)
    }
}
