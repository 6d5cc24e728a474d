//! The numerics: flat parameters, planned memory, operations with hand-written backward passes.
