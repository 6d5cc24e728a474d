//! What a power cut may let through.

/// One way in which the power may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// Of the names that were changed and not synced.
    pub names: Names,
    /// Of the contents that were written and not synced.
    pub contents: Contents,
}

/// Which unsynced changes of names arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// None.
    Lost,
    /// All: what a killed process leaves.
    Arrived,
    /// In every folder the first so many.
    First(usize),
    /// In every folder the last so many.
    Last(usize),
    /// Those in the outer two levels of folders.
    Outer,
    /// Those in the inner folders.
    Inner,
}

/// How much of unsynced contents arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contents {
    /// None.
    Lost,
    /// All: what a killed process leaves.
    Arrived,
    /// Half.
    Torn,
    /// The length, and zeros for the bytes.
    Zeros,
}

impl Crash {
    /// The process is killed, and the machine goes on.
    pub const KILL: Self = Self { names: Names::Arrived, contents: Contents::Arrived };

    /// Every way that the tests try.
    pub fn all() -> Vec<Self> {
        let names = [
            Names::Arrived,
            Names::Lost,
            Names::First(1),
            Names::First(2),
            Names::First(3),
            Names::Last(1),
            Names::Last(2),
            Names::Last(3),
            Names::Outer,
            Names::Inner,
        ];
        let contents = [Contents::Arrived, Contents::Lost, Contents::Torn, Contents::Zeros];
        let pairs = names.iter().flat_map(|names| contents.map(|contents| (*names, contents)));
        pairs.map(|(names, contents)| Self { names, contents }).collect()
    }
}

impl Names {
    /// Whether the `nth` of `count` changes in a folder so deep arrived.
    pub(crate) fn arrives(self, nth: usize, count: usize, depth: usize) -> bool {
        match self {
            Self::Lost => false,
            Self::Arrived => true,
            Self::First(few) => nth < few,
            Self::Last(few) => nth + few >= count,
            Self::Outer => depth < 2,
            Self::Inner => depth >= 2,
        }
    }
}

impl Contents {
    /// What is left of a file.
    pub(crate) fn of(self, seen: &[u8], durable: &[u8]) -> Vec<u8> {
        let same = seen.iter().zip(durable).take_while(|(seen, durable)| seen == durable).count();
        match self {
            Self::Lost => durable.to_vec(),
            Self::Arrived => seen.to_vec(),
            Self::Torn => seen[..same + (seen.len() - same) / 2].to_vec(),
            Self::Zeros => {
                let mut bytes = seen[..same].to_vec();
                bytes.resize(seen.len(), 0);
                bytes
            }
        }
    }
}
