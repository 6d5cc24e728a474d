//! stub
/// placeholder
#[derive(Debug)]
pub struct Cpu;
/// placeholder
pub fn threads_in_use() -> usize { 1 }
