//! Which old block each new block is, in the orders that are published.

use serde::{Deserialize, Serialize};

/// A block of the grown model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// The old block it is a copy of, from 0.
    pub from: usize,
    /// Whether its branches start at zero, so that it changes nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub identity: bool,
}

fn copies(from: impl IntoIterator<Item = usize>) -> Vec<Block> {
    from.into_iter().map(|from| Block { from, identity: false }).collect()
}

/// The blocks as they are.
pub fn keep(layers: usize) -> Vec<Block> {
    copies(0..layers)
}

/// The whole model again and again (Gong et al., ICML 2019; Du et al. 2024, arXiv:2405.15319).
/// What does not fill a whole model comes from its top (Chen et al. 2022, arXiv:2110.07143).
///
/// ```
/// use heirloom_growth::depth;
/// let from: Vec<usize> = depth::stack(3, 8).iter().map(|block| block.from).collect();
/// assert_eq!(from, [0, 1, 2, 0, 1, 2, 1, 2]);
/// ```
pub fn stack(old: usize, new: usize) -> Vec<Block> {
    let whole = new / old * old;
    copies((0..whole).map(|layer| layer % old).chain(old - (new - whole)..old))
}

/// Copies beside their originals: 0 0 1 1 2 2.
pub fn interleave(old: usize, new: usize) -> Vec<Block> {
    copies((0..new).map(|layer| layer * old / new))
}

/// Depth up-scaling (Kim et al. 2023, arXiv:2312.15166): the model without its top, then the model
/// without its bottom. `None` where `new` is odd or more than twice `old`.
pub fn dus(old: usize, new: usize) -> Option<Vec<Block>> {
    let half = new / 2;
    (new.is_multiple_of(2) && half <= old).then(|| copies((0..half).chain(old - half..old)))
}

/// Copies of the top `new - old` blocks above them (Yang et al. 2020, arXiv:2011.13635). `None`
/// where the model has fewer blocks than that.
pub fn top_copies(old: usize, new: usize) -> Option<Vec<Block>> {
    (new <= 2 * old).then(|| copies((0..old).chain(2 * old - new..old)))
}

/// The blocks with new ones between them at even distances, each a copy of the one before it that
/// starts as the identity (Wu et al. 2024, arXiv:2401.02415).
///
/// ```
/// use heirloom_growth::depth;
/// let blocks = depth::insert_identity(4, 6);
/// let new: Vec<usize> = (0..6).filter(|&layer| blocks[layer].identity).collect();
/// assert_eq!(new, [2, 5]);
/// ```
pub fn insert_identity(old: usize, new: usize) -> Vec<Block> {
    let added = new - old;
    let mut blocks = Vec::with_capacity(new);
    for from in 0..old {
        blocks.push(Block { from, identity: false });
        let here = (from + 1) * added / old - from * added / old;
        blocks.extend((0..here).map(|_| Block { from, identity: true }));
    }
    blocks
}

/// The blocks whose old one has come before, or which start as the identity.
pub fn added(blocks: &[Block]) -> Vec<bool> {
    let seen = |at: usize| {
        blocks[..at].iter().any(|block| block.from == blocks[at].from && !block.identity)
    };
    (0..blocks.len()).map(|at| blocks[at].identity || seen(at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(blocks: Vec<Block>) -> Vec<usize> {
        blocks.iter().map(|block| block.from).collect()
    }

    #[test]
    fn blocks_come_in_the_published_orders() {
        assert_eq!(from(interleave(3, 6)), [0, 0, 1, 1, 2, 2]);
        assert_eq!(from(interleave(2, 5)), [0, 0, 0, 1, 1]);
        // 32 blocks without 8 at each end, twice, are 48.
        let solar = from(dus(32, 48).unwrap());
        assert_eq!((solar[23], solar[24], solar[47]), (23, 8, 31));
        assert_eq!(dus(4, 10), None);
        assert_eq!(dus(4, 7), None);
        assert_eq!(from(top_copies(3, 5).unwrap()), [0, 1, 2, 1, 2]);
        assert_eq!(top_copies(3, 7), None);
        assert_eq!(from(insert_identity(2, 6)), [0, 0, 0, 1, 1, 1]);
        assert_eq!(insert_identity(3, 3), keep(3));
    }

    #[test]
    fn added_blocks_are_those_that_repeat_or_start_as_the_identity() {
        assert_eq!(added(&stack(2, 4)), [false, false, true, true]);
        assert_eq!(added(&insert_identity(2, 3)), [false, false, true]);
    }
}
