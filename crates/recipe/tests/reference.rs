//! `docs/recipe-reference.md` is the schema's own text.

use std::path::Path;

const HEADER: &str = "# Recipe reference\n\nEvery key of a recipe, from the schema itself. \
Regenerate with `HEIRLOOM_BLESS=1 cargo test -p heirloom-recipe --test reference`.\n\n";

#[test]
fn the_reference_in_the_docs_is_fresh() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipe-reference.md");
    let want = format!("{HEADER}{}", heirloom_recipe::reference());
    if std::env::var_os("HEIRLOOM_BLESS").is_some() {
        std::fs::write(&path, &want).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap_or_default(), want);
}
