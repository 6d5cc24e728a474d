//! The first so many of some rows.

use std::sync::Arc;

use heirloom_base::{Digest, Hasher};
use heirloom_data::text::{Row, Rows};

/// Rows of which only the first count.
pub(super) struct FirstRows {
    rows: Arc<dyn Rows>,
    count: usize,
}

/// The first `count` of `rows`, or all where there are no more.
pub(super) fn first(rows: Arc<dyn Rows>, count: u64) -> Arc<dyn Rows> {
    match usize::try_from(count) {
        Ok(count) if count < rows.len() => Arc::new(FirstRows { rows, count }),
        _ => rows,
    }
}

impl Rows for FirstRows {
    fn len(&self) -> usize {
        self.count
    }

    fn length(&self, row: usize) -> usize {
        self.rows.length(row)
    }

    fn read(&self, row: usize, into: &mut Row) {
        self.rows.read(row, into);
    }

    fn digest(&self) -> Digest {
        let whole = self.rows.digest().to_string();
        let count = (self.count as u64).to_le_bytes();
        Hasher::new().part(b"first").part(whole.as_bytes()).part(&count).digest()
    }
}
