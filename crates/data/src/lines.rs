//! Lines of a file, one at a time, in bounded memory.
//!
//! In: any bytes. Out: each line with its ending, or the word that it is too long.
//! Never: holds more than the limit, or splits at anything but `\n`.

use std::io::{self, BufRead};

/// Longest line of text accepted, in bytes. A longer one has so far always been a file that was
/// not one sample per line.
pub(crate) const LONGEST_LINE: u64 = 16 << 20;

pub(crate) enum Line {
    Whole,
    /// Read to its end, of which only the beginning was kept.
    TooLong,
    End,
}

pub(crate) struct Lines<R> {
    input: R,
    limit: u64,
    number: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(input: R, limit: u64) -> Self {
        Self { input, limit, number: 0 }
    }

    /// The number of the line read last, from 1.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Appends the next line, with its ending, to `line`; without the byte-order mark in the first.
    pub(crate) fn next(&mut self, line: &mut Vec<u8>) -> io::Result<Line> {
        let start = line.len();
        self.number += 1;
        let mut whole = true;
        let mut any = false;
        loop {
            let bytes = match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                bytes => bytes?,
            };
            if bytes.is_empty() {
                break;
            }
            any = true;
            let end = bytes.iter().position(|&byte| byte == b'\n').map(|at| at + 1);
            let taken = end.unwrap_or(bytes.len());
            let room = (self.limit as usize).saturating_sub(line.len());
            line.extend_from_slice(&bytes[..taken.min(room)]);
            whole &= taken <= room;
            self.input.consume(taken);
            if end.is_some() {
                break;
            }
        }
        if self.number == 1 && line[start..].starts_with(BYTE_ORDER_MARK) {
            line.drain(start..start + BYTE_ORDER_MARK.len());
        }
        Ok(match (any, whole) {
            (false, _) => Line::End,
            (true, true) => Line::Whole,
            (true, false) => Line::TooLong,
        })
    }
}

/// U+FEFF in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// `line` without `\n` or `\r\n`.
pub(crate) fn without_ending(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(bytes: &[u8], limit: u64) -> Vec<String> {
        let mut lines = Lines::new(io::BufReader::with_capacity(3, bytes), limit);
        let mut found = Vec::new();
        loop {
            let mut line = Vec::new();
            match lines.next(&mut line).unwrap() {
                Line::End => return found,
                Line::TooLong => found.push(format!("{}:too long", lines.number())),
                Line::Whole => found.push(format!(
                    "{}:{}",
                    lines.number(),
                    String::from_utf8_lossy(without_ending(&line))
                )),
            }
        }
    }

    #[test]
    fn endings_marks_and_a_missing_last_newline_are_accepted() {
        assert_eq!(lines(b"\xEF\xBB\xBFab\r\ncd\n\nef", 100), ["1:ab", "2:cd", "3:", "4:ef"]);
        assert_eq!(lines(b"", 100), [""; 0]);
    }

    #[test]
    fn a_long_line_is_passed_over_without_being_held() {
        assert_eq!(lines(b"abc\nabcdefghijkl\nxyz\n", 5), ["1:abc", "2:too long", "3:xyz"]);
    }
}
