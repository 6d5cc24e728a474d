//! Text to packed batches: sources, tokens, order, packing, the teacher cache.
