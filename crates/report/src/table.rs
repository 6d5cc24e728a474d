//! Results in rows: plain text for a terminal, Markdown for a document, JSON for a program.
//!
//! In: column names and cells.
//! Out: text without colours, or JSON rows with numbers as they are.
//! Never: rounds a number in JSON, or lets a cell break a line or a column.

use serde_json::{Map, Value, json};

use crate::seeds::Seeds;

/// Rows of cells under named columns.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Cell>>,
}

/// One cell.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell {
    /// Words; left-aligned.
    Text(String),
    /// A whole number.
    Count(u64),
    /// A number, shown with so many decimals.
    Number {
        /// The number; one that is not finite is shown as missing.
        value: f64,
        /// Decimals in text.
        decimals: usize,
    },
    /// A score over seeds, shown as `0.912 ± 0.004 (n=3)`.
    Seeds(Seeds),
    /// Nothing: `-` in text, `null` in JSON.
    Missing,
}

impl Cell {
    /// A score with three decimals, or nothing.
    pub fn score(value: Option<f64>) -> Self {
        value.map_or(Self::Missing, |value| Self::Number { value, decimals: 3 })
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl Table {
    /// A table without rows.
    pub fn new<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    /// Where the row has not one cell per column.
    #[track_caller]
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) -> &mut Self {
        let cells: Vec<Cell> = cells.into_iter().collect();
        assert_eq!(cells.len(), self.columns.len(), "a row has one cell per column");
        self.rows.push(cells);
        self
    }

    /// Columns aligned by spaces under a rule, each line ended; numbers stand to the right.
    ///
    /// ```
    /// use heirloom_report::table::{Cell, Table};
    /// let mut table = Table::new(["model", "n"]);
    /// table.row(["teacher".into(), Cell::Count(872)]);
    /// assert_eq!(table.text(), "model      n\n-------  ---\nteacher  872\n");
    /// ```
    pub fn text(&self) -> String {
        let grid = Grid::of(self, &one_line);
        let rule = grid.widths.iter().map(|&width| "-".repeat(width)).collect();
        let line = |cells: &Vec<String>| format!("{}\n", grid.pad(cells).join("  ").trim_end());
        let [header, body @ ..] = grid.lines.as_slice() else {
            return String::new();
        };
        [header, &rule].into_iter().chain(body).map(line).collect()
    }

    /// A Markdown table, aligned in its source too.
    ///
    /// ```
    /// use heirloom_report::table::{Cell, Table};
    /// let mut table = Table::new(["model", "n"]);
    /// table.row(["teacher".into(), Cell::Count(872)]);
    /// assert_eq!(table.markdown(), "| model   |   n |\n| ------- | --: |\n| teacher | 872 |\n");
    /// ```
    pub fn markdown(&self) -> String {
        let mut grid = Grid::of(self, &|text| one_line(text).replace('|', "\\|"));
        // A rule of fewer than three marks is no rule to some readers of Markdown.
        grid.widths.iter_mut().for_each(|width| *width = (*width).max(3));
        let dashes = |(&width, &right): (&usize, &bool)| match right {
            true => format!("{}:", "-".repeat(width - 1)),
            false => "-".repeat(width),
        };
        let rule: Vec<String> = grid.widths.iter().zip(&grid.right).map(dashes).collect();
        let line = |cells: &Vec<String>| format!("| {} |\n", grid.pad(cells).join(" | "));
        let [header, body @ ..] = grid.lines.as_slice() else {
            return String::new();
        };
        [header, &rule].into_iter().chain(body).map(line).collect()
    }

    /// One object per row, its keys in the order of the columns, its numbers unrounded.
    ///
    /// ```
    /// use heirloom_report::table::{Cell, Table};
    /// let mut table = Table::new(["model", "loss"]);
    /// table.row(["teacher".into(), Cell::score(Some(0.12345))]);
    /// assert_eq!(table.json().to_string(), r#"[{"model":"teacher","loss":0.12345}]"#);
    /// ```
    pub fn json(&self) -> Value {
        let object = |row: &Vec<Cell>| -> Value {
            self.columns
                .iter()
                .cloned()
                .zip(row.iter().map(json_cell))
                .collect::<Map<_, _>>()
                .into()
        };
        self.rows.iter().map(object).collect()
    }
}

/// A table as text, with the width and the side of each column.
struct Grid {
    /// The header, then the rows.
    lines: Vec<Vec<String>>,
    widths: Vec<usize>,
    /// Whether a column holds numbers.
    right: Vec<bool>,
}

impl Grid {
    fn of(table: &Table, clean: &dyn Fn(&str) -> String) -> Self {
        let show = |row: &Vec<Cell>| row.iter().map(|cell| clean(&shown(cell))).collect();
        let header = table.columns.iter().map(|name| clean(name)).collect();
        let lines: Vec<Vec<String>> =
            std::iter::once(header).chain(table.rows.iter().map(show)).collect();
        let columns = 0..table.columns.len();
        let width =
            |at: usize| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0);
        let right = |at: usize| {
            let mut cells = table.rows.iter().map(|row| &row[at]);
            cells.clone().any(|cell| *cell != Cell::Missing)
                && !cells.any(|cell| matches!(cell, Cell::Text(_)))
        };
        Self {
            widths: columns.clone().map(width).collect(),
            right: columns.map(right).collect(),
            lines,
        }
    }

    fn pad(&self, cells: &[String]) -> Vec<String> {
        let pad = |((cell, &width), &right): ((&String, &usize), &bool)| match right {
            true => format!("{cell:>width$}"),
            false => format!("{cell:<width$}"),
        };
        cells.iter().zip(&self.widths).zip(&self.right).map(pad).collect()
    }
}

fn shown(cell: &Cell) -> String {
    match cell {
        Cell::Text(text) => text.clone(),
        Cell::Count(count) => count.to_string(),
        Cell::Number { value, decimals } if value.is_finite() => format!("{value:.decimals$}"),
        Cell::Seeds(seeds) => seeds.to_string(),
        Cell::Number { .. } | Cell::Missing => "-".to_owned(),
    }
}

fn json_cell(cell: &Cell) -> Value {
    match cell {
        Cell::Text(text) => text.as_str().into(),
        Cell::Count(count) => (*count).into(),
        // A number that is not finite becomes null.
        Cell::Number { value, .. } => (*value).into(),
        Cell::Seeds(Seeds { mean, sd, n }) => json!({ "mean": mean, "sd": sd, "n": n }),
        Cell::Missing => Value::Null,
    }
}

/// The text with every control character, line ends among them, turned into a space.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(["model", "accuracy", "over seeds", "n"]);
        let seeds = Cell::Seeds(Seeds { mean: 0.912, sd: Some(0.004), n: 3 });
        table.row(["teacher".into(), Cell::score(Some(0.92345)), seeds, Cell::Count(872)]);
        table.row(["a|b\nc".into(), Cell::score(None), Cell::Missing, Cell::Count(9)]);
        table
    }

    #[test]
    fn text_stands_in_columns_and_numbers_to_the_right() {
        let want = "\
model    accuracy           over seeds    n
-------  --------  -------------------  ---
teacher     0.923  0.912 ± 0.004 (n=3)  872
a|b c           -                    -    9
";
        assert_eq!(table().text(), want);
    }

    #[test]
    fn markdown_escapes_the_bar_and_marks_the_side() {
        let want = "\
| model   | accuracy |          over seeds |   n |
| ------- | -------: | ------------------: | --: |
| teacher |    0.923 | 0.912 ± 0.004 (n=3) | 872 |
| a\\|b c  |        - |                   - |   9 |
";
        assert_eq!(table().markdown(), want);
    }

    #[test]
    fn a_narrow_markdown_column_has_a_rule_of_three_marks() {
        let mut table = Table::new(["a", "n"]);
        table.row(["b".into(), Cell::Count(1)]);
        assert_eq!(table.markdown(), "| a   |   n |\n| --- | --: |\n| b   |   1 |\n");
    }

    #[test]
    fn json_keeps_numbers_whole_and_keys_in_order() {
        let want = concat!(
            r#"[{"model":"teacher","accuracy":0.92345,"over seeds":{"mean":0.912,"sd":0.004,"n":3},"n":872},"#,
            r#"{"model":"a|b\nc","accuracy":null,"over seeds":null,"n":9}]"#
        );
        assert_eq!(table().json().to_string(), want);
    }

    #[test]
    fn a_number_that_is_not_finite_is_missing() {
        let mut table = Table::new(["loss"]);
        table.row([Cell::Number { value: f64::NAN, decimals: 2 }]);
        assert_eq!(table.text(), "loss\n----\n   -\n");
        assert_eq!(table.json().to_string(), r#"[{"loss":null}]"#);
    }

    #[test]
    fn a_table_without_rows_is_its_header() {
        assert_eq!(Table::new(["a", "b"]).text(), "a  b\n-  -\n");
        assert_eq!(Table::new(["a", "b"]).json().to_string(), "[]");
    }

    #[test]
    #[should_panic(expected = "a row has one cell per column")]
    fn a_row_of_another_length_is_a_bug() {
        Table::new(["a", "b"]).row([Cell::Missing]);
    }
}
