//! Encoders in the layout of Hugging Face: forward, backward, load, save.
