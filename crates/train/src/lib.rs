//! The step, the state that survives a crash, schedules, and the loop.
