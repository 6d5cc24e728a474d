//! What a batch is worth: terms that are sums with counts, and their gradients.
