//! What every picture is made of: one SVG file that a browser shows and a person can read.
//!
//! Never: a number that depends on the machine (equal pictures have equal bytes), or a name that could
//! end the XML.

use std::fmt::Write;

/// Pixels of a character in the legend's names: a generous mean of a sans-serif face of 13.
pub(crate) const LETTER: f64 = 7.5;
/// Characters of a name that the legend shows; of longer ones their end, which tells them apart.
pub(crate) const LONGEST_NAME: usize = 48;

/// Colours that people of any colour vision tell apart (Okabe & Ito 2008), black left to the axes.
pub(crate) const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#b0a000"];
/// Dashes of the second seven curves, the third, and so on.
pub(crate) const DASHES: [&str; 4] = ["", "7 4", "2 3", "9 3 2 3"];

/// How a curve is drawn.
pub(crate) struct Style {
    pub(crate) colour: &'static str,
    pub(crate) dash: &'static str,
}

impl Style {
    pub(crate) fn of(at: usize) -> Self {
        let dash = DASHES[at / COLOURS.len() % DASHES.len()];
        Self { colour: COLOURS[at % COLOURS.len()], dash }
    }
}

/// The beginning of a picture of so many pixels: its title, for readers and at its place, on white.
pub(crate) fn begin(title: &str, [width, height]: [f64; 2], [x, y]: [f64; 2]) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"13\" \
         fill=\"#222222\">\n<title>{0}</title>\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"{x}\" y=\"{y}\" font-size=\"16\">{0}</text>\n",
        escaped(title),
    )
}

/// Hundredths of a pixel: finer than any screen, and short.
pub(crate) fn px(pixels: f64) -> String {
    let text = format!("{pixels:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// The title of a vertical axis, read from below.
pub(crate) fn upright(svg: &mut String, text: &str, x: f64, y: f64) {
    let text = format_args!(
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" transform=\"rotate(-90 {x} {y})\">\
         {text}</text>"
    );
    line(svg, text);
}

/// An entry of a legend whose upper left corner is at `[left, top]`: a mark, the name, and below it
/// `said`, of this class.
pub(crate) fn entry(
    svg: &mut String,
    style: &Style,
    [left, top]: [f64; 2],
    name: &str,
    (class, said): (&str, &str),
) {
    let Style { colour, dash } = style;
    let (end, text, middle, below) = (left + 22.0, left + 30.0, top - 4.0, top + 15.0);
    let mark = format_args!(
        "<line x1=\"{left}\" y1=\"{middle}\" x2=\"{end}\" y2=\"{middle}\" stroke=\"{colour}\" \
         stroke-width=\"3\" stroke-dasharray=\"{dash}\"/>"
    );
    line(svg, mark);
    let name = escaped(&shortened(name));
    line(svg, format_args!("<text class=\"name\" x=\"{text}\" y=\"{top}\">{name}</text>"));
    let said = format_args!(
        "<text class=\"{class}\" x=\"{text}\" y=\"{below}\" fill=\"#666666\">{said}</text>"
    );
    line(svg, said);
}

pub(crate) fn line(svg: &mut String, element: std::fmt::Arguments<'_>) {
    writeln!(svg, "{element}").expect("a string takes all text");
}

/// The end of a name that is too long for the legend, after a mark that says so.
pub(crate) fn shortened(name: &str) -> String {
    let length = name.chars().count();
    if length <= LONGEST_NAME {
        return name.to_owned();
    }
    let end: String = name.chars().skip(length - LONGEST_NAME + 1).collect();
    format!("…{end}")
}

/// A text as XML takes it: marks as entities, and what no XML may hold as the replacement mark.
pub(crate) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\t' | '\n' | '\r' => safe.push(' '),
            letter if letter.is_control() => safe.push('\u{fffd}'),
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            letter => safe.push(letter),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_end_the_xml() {
        assert_eq!(
            escaped("a<b>&\"c\"\n\u{1}\u{ffff}"),
            "a&lt;b&gt;&amp;&quot;c&quot; \u{fffd}\u{fffd}"
        );
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        let name = format!("{}/seed-12", "x".repeat(60));
        let shown = shortened(&name);
        assert_eq!(shown.chars().count(), LONGEST_NAME);
        assert!(shown.starts_with('…') && shown.ends_with("x/seed-12"), "{shown}");
        assert_eq!(shortened("runs/a"), "runs/a");
    }

    #[test]
    fn pixels_are_short() {
        let rows = [(70.0, "70"), (12.345, "12.35"), (0.5, "0.5"), (100.0, "100"), (0.001, "0")];
        for (pixels, want) in rows {
            assert_eq!(px(pixels), want);
        }
    }
}
