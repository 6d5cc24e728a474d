//! The name a reader may have meant.

/// The candidate most like `name`, if any is like it at all.
///
/// Likeness is Jaro–Winkler's, in `0.0..=1.0`: it forgives swapped letters and rewards a common
/// beginning, which is how parameter names and recipe keys go wrong.
pub fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= LIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// Below this likeness a suggestion confuses more than it helps: `weight` and `bias` are at 0.5,
/// one wrong letter in a word of five is above 0.85.
const LIKE: f64 = 0.75;

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_misspelt_name_finds_its_neighbour_and_a_foreign_one_finds_none() {
        let names = ["bert.embeddings.word_embeddings.weight", "bert.pooler.dense.bias", "loss"];
        assert_eq!(nearest("bert.embedings.word_embeddings.weight", names), Some(names[0]));
        assert_eq!(nearest("bert.pooler.dense.bais", names), Some(names[1]));
        assert_eq!(nearest("zzz", names), None);
    }
}
