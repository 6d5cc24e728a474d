//! Laws that hold for any text.

use heirloom_recipe::{parse, reference};
use proptest::prelude::*;

const VALID: &str = r#"
name = "x"
[task]
preset = "mnli"
path = "data"
labels = ["a", "b"]
[student]
config = { model_type = "bert", hidden_size = 8, num_hidden_layers = 2, num_attention_heads = 2 }
[teacher]
model = "m"
[objective]
alpha = 0.5
[[objective.hidden]]
kind = "mse"
layers = [[0, 0], [1, 2]]
[training]
epochs = 2.5
seeds = [1, 2]
"#;

fn pieces() -> impl Strategy<Value = String> {
    let pieces = [
        "=",
        "[",
        "]",
        "{",
        "}",
        "\"",
        "'",
        ".",
        ",",
        "\n",
        "#",
        "0",
        "-1",
        "1e999",
        "nan",
        "true",
        "é",
        "\0",
        "task",
        "training",
        "seed",
        "layers",
        "[[objective.hidden]]",
        "1979-05-27",
        "\"\"\"",
        "_",
        "18446744073709551616",
        "kind",
        "inf",
        "\r",
    ];
    prop::sample::select(pieces.to_vec()).prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_is_read_or_refused(text in any::<String>(), set in any::<String>()) {
        let problems = parse("r.toml", &text, &[set]).expect_err("no arbitrary text has a path");
        let said = problems.to_string();
        prop_assert_eq!(said.lines().count(), problems.count() + 1, "{}", said);
    }

    #[test]
    fn any_sequence_of_toml_pieces_is_read_or_refused(
        text in prop::collection::vec(pieces(), 0..40),
        set in prop::collection::vec(pieces(), 0..10),
    ) {
        let set = format!("training.seed={}", set.concat());
        prop_assert!(parse("r.toml", &text.concat(), &[set]).is_err());
    }

    #[test]
    fn a_valid_recipe_with_an_edit_is_read_or_refused(
        at in 0..VALID.len(),
        length in 0usize..12,
        piece in pieces(),
    ) {
        let end = (at + length).min(VALID.len());
        let text = [&VALID[..at], &piece, &VALID[end..]].concat();
        if let Err(problems) = parse("r.toml", &text, &[]) {
            let said = problems.to_string();
            prop_assert_eq!(said.lines().count(), problems.count() + 1, "{}", said);
        }
    }
}

#[test]
fn the_valid_recipe_is_valid() {
    assert_eq!(parse("r.toml", VALID, &[]).map(|recipe| recipe.seeds()), Ok(vec![1, 2]));
}

#[test]
fn the_reference_is_a_table_of_four_columns_for_every_section() {
    let reference = reference();
    assert_eq!(reference.matches("## ").count(), 21);
    for line in reference.lines().filter(|line| line.starts_with('|')) {
        assert_eq!(line.replace("\\|", "").matches('|').count(), 5, "{line}");
    }
    assert!(reference.contains("| `temperature` | a number above 0 | `2.0` |"), "{reference}");
}
