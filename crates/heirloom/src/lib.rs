//! Passes knowledge between language models: the library and the command.
