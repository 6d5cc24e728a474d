//! What a document's text is, and which of it is to be foreseen.
//!
//! In: what a file holds. Out: one text, and the parts of it that are learnt.
//! Never: tokens; they come later, and a part is bytes of the text.

use std::ops::Range;

use super::documents::Content;
use super::{Reading, Shape};
use crate::error::{Error, Problem};

/// A text, and what is learnt of it.
pub(crate) struct Prepared {
    pub(crate) text: String,
    /// Bytes that are to be foreseen; without it all are.
    pub(crate) learnt: Option<Vec<Range<usize>>>,
}

/// Makes texts of what files hold.
pub(crate) struct Prepare {
    shape: Shape,
}

impl Prepare {
    pub(crate) fn new(reading: &Reading) -> Result<Self, Error> {
        Ok(Self { shape: reading.shape.clone() })
    }

    pub(crate) fn document(&self, content: &Content) -> Result<Prepared, Problem> {
        let whole = |text: &str| Prepared { text: text.to_owned(), learnt: None };
        Ok(match (content, &self.shape) {
            (Content::Text(text), _) => whole(text),
            (Content::Fields(fields), Shape::Text { field }) => {
                whole(fields[field.as_str()].as_str().unwrap_or_default())
            }
            _ => whole(""),
        })
    }
}
