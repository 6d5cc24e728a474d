//! What tests share: close comparison, tiny fixtures.
