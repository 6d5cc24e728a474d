//! Threads that wait for work: awake for a moment, since the next operation of a step comes within
//! microseconds, then asleep.
//!
//! In: a function and how many threads run it. Out: all of them have returned.
//! Never: a queue, an allocation per call, or work that outlives the call.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};

/// Looks at a counter before a thread goes to sleep: some tens of microseconds.
const LOOKS: usize = 4000;

thread_local! {
    /// Which thread of its pool this one is; the caller is the first.
    static INDEX: Cell<usize> = const { Cell::new(0) };
}

/// The calling thread's place in the pool whose work it runs.
pub(super) fn index() -> usize {
    INDEX.get()
}

/// What a worker is asked to run.
type Work = &'static (dyn Fn() + Sync);

/// What the caller and its workers share.
#[derive(Default)]
struct Shared {
    /// Counts the calls; a worker waits for the next.
    call: AtomicUsize,
    /// The work of the current call.
    work: Mutex<Option<Work>>,
    /// Workers that have not finished the current call.
    busy: AtomicUsize,
    /// The first panic of the current call.
    panic: Mutex<Option<Box<dyn std::any::Any + Send>>>,
    /// The caller, where it sleeps until `busy` is 0.
    caller: Mutex<Option<Thread>>,
    stop: AtomicBool,
}

/// A number of threads beside the caller's.
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No holder of these locks can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until `ready`: looks often at first, then sleeps between looks. Whoever makes it ready
/// must unpark the thread.
fn wait(ready: impl Fn() -> bool) {
    for look in 0..LOOKS {
        if ready() {
            return;
        }
        // Where there are more threads than cores, the other side may need this one.
        if look % 512 == 511 { std::thread::yield_now() } else { std::hint::spin_loop() }
    }
    while !ready() {
        std::thread::park();
    }
}

impl Pool {
    /// Starts `workers` threads.
    pub(super) fn new(workers: usize) -> Self {
        let shared = Arc::<Shared>::default();
        let start = |worker: usize| {
            let shared = Arc::clone(&shared);
            let thread = std::thread::Builder::new().name(format!("heirloom-{worker}"));
            let thread = thread.spawn(move || serve(&shared, worker));
            thread.expect("the system starts a handful of threads")
        };
        let workers = (1..=workers).map(start).collect();
        Self { shared, workers }
    }

    /// Calls `work` on the calling thread and on every worker, and returns when all have returned.
    /// `work` may not call this again.
    #[expect(unsafe_code, reason = "workers run a function that lives on the caller's stack")]
    pub(super) fn run(&self, work: &(dyn Fn() + Sync)) {
        let shared = &*self.shared;
        // SAFETY: a worker uses the reference only while it counts as busy, and this function
        // returns, or unwinds, only when none does and the reference is gone from `shared`.
        let lasting = unsafe { std::mem::transmute::<&(dyn Fn() + Sync), Work>(work) };
        shared.busy.store(self.workers.len(), Ordering::Relaxed);
        *lock(&shared.work) = Some(lasting);
        shared.call.fetch_add(1, Ordering::Release);
        self.workers.iter().for_each(|worker| worker.thread().unpark());
        let own = catch_unwind(AssertUnwindSafe(work));
        let finished = || shared.busy.load(Ordering::Acquire) == 0;
        if !finished() {
            *lock(&shared.caller) = Some(std::thread::current());
            wait(finished);
        }
        *lock(&shared.work) = None;
        *lock(&shared.caller) = None;
        let panic = lock(&shared.panic).take();
        if let Some(panic) = own.err().or(panic) {
            resume_unwind(panic);
        }
    }
}

/// A worker's life.
fn serve(shared: &Shared, index: usize) {
    INDEX.set(index);
    let mut done = 0;
    loop {
        wait(|| shared.call.load(Ordering::Acquire) != done);
        done += 1;
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let work = lock(&shared.work).expect("a call has work until all workers are done");
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            lock(&shared.panic).get_or_insert(panic);
        }
        let last = shared.busy.fetch_sub(1, Ordering::Release) == 1;
        if let (true, Some(caller)) = (last, &*lock(&shared.caller)) {
            caller.unpark();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.call.fetch_add(1, Ordering::Release);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // Its panics were passed on by `run`.
            let _ = worker.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_thread_runs_the_work_of_every_call_once() {
        let pool = Pool::new(3);
        let counts = [const { AtomicUsize::new(0) }; 4];
        for _ in 0..2000 {
            pool.run(&|| {
                counts[index()].fetch_add(1, Ordering::Relaxed);
            });
        }
        assert_eq!(counts.map(AtomicUsize::into_inner), [2000; 4]);
    }

    #[test]
    fn workers_that_fell_asleep_are_woken() {
        let pool = Pool::new(2);
        for _ in 0..3 {
            let ran = AtomicUsize::new(0);
            pool.run(&|| {
                ran.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(ran.into_inner(), 3);
            // Longer than a worker stays awake; nothing depends on how long.
            for _ in 0..200_000 {
                std::hint::spin_loop();
            }
        }
    }

    #[test]
    fn a_panic_of_a_worker_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(1);
        let fails = || {
            if index() == 1 {
                panic!("on purpose");
            }
        };
        let caught = catch_unwind(AssertUnwindSafe(|| pool.run(&fails))).unwrap_err();
        assert_eq!(caught.downcast_ref::<&str>(), Some(&"on purpose"));
        let ran = AtomicUsize::new(0);
        pool.run(&|| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 2);
    }
}
