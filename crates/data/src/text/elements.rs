//! Elements of a JSON list, one at a time, in bounded memory.
//!
//! In: a file that is one list. Out: the bytes of each element, and the line on which it begins.
//! Never: understands an element; that is its reader's part, who says what is wrong inside it.

use std::io::{self, BufRead, Bytes};
use std::iter::Peekable;

use crate::error::Problem;

pub(crate) struct Elements<R: BufRead> {
    bytes: Peekable<Bytes<R>>,
    limit: u64,
    /// Line of the byte read last.
    now: u64,
    /// Line on which the element given last begins.
    line: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Before,
    Inside,
    After,
}

impl<R: BufRead> Elements<R> {
    pub(crate) fn new(input: R, limit: u64) -> Self {
        Self { bytes: input.bytes().peekable(), limit, now: 1, line: 1, state: State::Before }
    }

    /// Line on which what was given last begins, from 1.
    pub(crate) fn line(&self) -> u64 {
        self.line
    }

    /// The next element, or what is wrong with the list; `None` after its end, and after a refusal.
    pub(crate) fn next(&mut self) -> io::Result<Option<Result<Vec<u8>, Problem>>> {
        let first = self.state == State::Before;
        if first {
            while self.bytes.next_if(|b| matches!(b, Ok(0xEF | 0xBB | 0xBF))).is_some() {}
            let found = self.visible()?;
            self.state = State::Inside;
            if found != Some(b'[') {
                return Ok(self.refuse(
                    "expected a list of objects, `[{…}, …]`, or one object a line in a .jsonl file",
                ));
            }
        }
        if self.state == State::After {
            return Ok(None);
        }
        let begin = match (self.visible()?, first) {
            (Some(b']'), true) => return self.end(),
            (Some(byte), true) => byte,
            (Some(b']'), false) => return self.end(),
            (Some(b','), false) => match self.visible()? {
                Some(byte) if byte != b']' => byte,
                _ => return Ok(self.refuse("an element is missing after the last comma")),
            },
            (Some(_), false) => return Ok(self.refuse("expected `,` or `]` after an element")),
            (None, _) => return Ok(self.refuse("the list does not end")),
        };
        self.line = self.now;
        let mut element = vec![begin];
        let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
        let mut byte = begin;
        loop {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if quoted => escaped = true,
                b'"' => quoted = !quoted,
                b'{' | b'[' if !quoted => depth += 1,
                b'}' | b']' if !quoted => depth = depth.saturating_sub(1),
                _ => {}
            }
            let outside = depth == 0 && !quoted;
            match self.bytes.peek() {
                Some(Ok(b',' | b']')) if outside => return Ok(Some(Ok(element))),
                Some(Ok(b'}')) if outside => {
                    return Ok(self.refuse("a `}` closes nothing"));
                }
                _ => {}
            }
            let Some(next) = self.byte()? else {
                return Ok(self.refuse("the list does not end"));
            };
            if element.len() as u64 >= self.limit {
                self.state = State::After;
                return Ok(Some(Err(Problem::DocumentTooLong { limit: self.limit })));
            }
            byte = next;
            element.push(byte);
        }
    }

    fn end(&mut self) -> io::Result<Option<Result<Vec<u8>, Problem>>> {
        self.state = State::After;
        self.line = self.now;
        match self.visible()? {
            None => Ok(None),
            Some(_) => Ok(self.refuse("something follows the list")),
        }
    }

    fn refuse(&mut self, reason: &str) -> Option<Result<Vec<u8>, Problem>> {
        self.state = State::After;
        self.line = self.now;
        Some(Err(Problem::NotAList { reason: reason.to_owned() }))
    }

    fn visible(&mut self) -> io::Result<Option<u8>> {
        loop {
            match self.byte()? {
                Some(byte) if byte.is_ascii_whitespace() => {}
                found => return Ok(found),
            }
        }
    }

    fn byte(&mut self) -> io::Result<Option<u8>> {
        let byte = self.bytes.next().transpose()?;
        self.now += u64::from(byte == Some(b'\n'));
        Ok(byte)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<String> {
        let mut elements = Elements::new(text.as_bytes(), 20);
        let mut found = Vec::new();
        while let Some(element) = elements.next().unwrap() {
            let line = elements.line();
            found.push(match element {
                Ok(bytes) => format!("{line}:{}", String::from_utf8(bytes).unwrap().trim()),
                Err(problem) => format!("{line}!{problem}"),
            });
        }
        found
    }

    #[test]
    fn elements_come_whole_with_the_line_they_begin_on() {
        assert_eq!(read("[]"), [""; 0]);
        assert_eq!(read("\u{feff} [ ] \n"), [""; 0]);
        let text = "[{\"a\":\n\"}],\\\"\"},\n {\"b\":[1,2]} , 3\n]";
        assert_eq!(read(text), ["1:{\"a\":\n\"}],\\\"\"}", "3:{\"b\":[1,2]}", "3:3"]);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let rows = [
            ("{}", "expected a list of objects"),
            ("", "expected a list of objects"),
            ("[1, 2", "the list does not end"),
            ("[\"", "the list does not end"),
            ("[1,]", "missing after the last comma"),
            ("[{}{}]", "expected"),
            ("[1] 2", "something follows the list"),
            ("[1}", "closes nothing"),
        ];
        for (text, want) in rows {
            let found = read(text);
            if text == "[{}{}]" {
                // The reader of an element says so: to this one it is a single element.
                assert_eq!(found, ["1:{}{}"]);
                continue;
            }
            assert!(found.last().unwrap().contains(want), "{text}: {found:?}");
        }
        assert!(read("[\"12345678901234567890\"]")[0].contains("longer than 20 bytes"));
    }
}
