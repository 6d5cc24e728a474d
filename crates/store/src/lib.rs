//! The only crate that writes to disk: drafts become committed folders, records are append-only.
