//! From what was written (TOML) to what will be done (a plan), all problems at once.
