//! An allocator that counts, and the page faults of a process: what a steady state may not have.
//!
//! In: `#[global_allocator] static ALLOCATOR: Counting = Counting;` in a test binary of its own.
//! Out: what a piece of work asked for, on all threads together.
//! Never: counts what is given back; a steady state is about what is asked for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

static CALLS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);

/// The system's allocator with two counters.
#[derive(Debug)]
pub struct Counting;

fn count(bytes: usize) {
    CALLS.fetch_add(1, Ordering::Relaxed);
    BYTES.fetch_add(bytes as u64, Ordering::Relaxed);
}

#[expect(unsafe_code, reason = "an allocator is an unsafe trait")]
// SAFETY: every call is the system allocator's with the caller's own arguments; counting allocates
// nothing and cannot fail.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's promises about `layout` are the ones asked for here.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: as above; `start` came from the system's allocator, as every allocation does.
        unsafe { System.realloc(start, layout, size) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(start, layout) }
    }
}

/// What a piece of work asked the allocator for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocations {
    /// How often.
    pub calls: u64,
    /// How many bytes, all calls together; what was given back in between is not subtracted.
    pub bytes: u64,
}

impl Allocations {
    /// What `work` asks for, on whatever thread, where [`Counting`] is the global allocator.
    /// Nothing else may run meanwhile.
    pub fn of<R>(work: impl FnOnce() -> R) -> (R, Self) {
        let (calls, bytes) = (CALLS.load(Ordering::Relaxed), BYTES.load(Ordering::Relaxed));
        let result = work();
        let calls = CALLS.load(Ordering::Relaxed) - calls;
        (result, Self { calls, bytes: BYTES.load(Ordering::Relaxed) - bytes })
    }
}

/// Page faults of this process, on all threads, that needed no disk: pages touched for the first
/// time. `None` where the system does not say.
pub fn minor_faults() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is a name in brackets that may hold spaces; `minflt` is the tenth.
    stat.rsplit_once(')')?.1.split_whitespace().nth(7)?.parse().ok()
}
