//! What happened, and was it better: metrics, seeds, comparisons, tables.
