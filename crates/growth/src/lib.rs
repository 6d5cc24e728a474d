//! One trained model into another of a different size: layer maps applied to parameters.
