//! Activation memory, laid out before the run: a stack of slots whose peak is known in advance.
//!
//! In: sizes, in the order the step needs them. Out: views. The peak is what the device is asked
//! for, once; scratch that is released is handed out again.

use crate::{Space, View};

/// Slots start at multiples of this many numbers (one cache line of `f32`), so that rows of
/// different slots never share a line between threads.
const LINE: usize = 16;

/// The plan of one space.
#[derive(Clone, Debug)]
pub struct ArenaPlan {
    space: Space,
    next: usize,
    peak: usize,
}

/// A height of the stack to return to.
#[derive(Clone, Copy, Debug)]
pub struct Mark(usize);

impl ArenaPlan {
    /// An empty plan for `space`.
    pub fn new(space: Space) -> Self {
        Self { space, next: 0, peak: 0 }
    }

    /// A slot of `[rows, cols]`.
    pub fn take(&mut self, rows: usize, cols: usize) -> View {
        let view = View::matrix(self.space, self.next, rows, cols);
        self.next = (self.next + rows * cols).next_multiple_of(LINE);
        self.peak = self.peak.max(self.next);
        view
    }

    /// The present height of the stack.
    pub fn mark(&self) -> Mark {
        Mark(self.next)
    }

    /// Gives back every slot taken since `mark`; later slots may reuse their memory.
    pub fn release(&mut self, mark: Mark) {
        assert!(mark.0 <= self.next, "a mark above the stack");
        self.next = mark.0;
    }

    /// How many numbers the space needs.
    pub fn peak(&self) -> usize {
        self.peak
    }

    /// The space the plan is for.
    pub fn space(&self) -> Space {
        self.space
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_slots_are_handed_out_again_and_the_peak_remembers_the_highest_stack() {
        let mut plan = ArenaPlan::new(Space(0));
        let kept = plan.take(3, 5);
        let mark = plan.mark();
        let first = plan.take(10, 10);
        plan.release(mark);
        let second = plan.take(2, 2);
        assert_eq!((kept.offset(), first.offset(), second.offset()), (0, 16, 16));
        assert_eq!(plan.peak(), 16 + 112);
    }
}
