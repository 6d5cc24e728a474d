//! The diagram is well-formed XML, and what it shows stands where the numbers say.

#![expect(clippy::unwrap_used, reason = "a test may stop where it stands")]

use std::collections::BTreeMap;

use heirloom_report::calibration::{Judged, expected_calibration_error, reliability};
use heirloom_report::diagram::{Curve, LEFT, SIDE, STRIP, STRIP_TOP, TOP, diagram};

/// An element of a parsed file.
#[derive(Debug)]
struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
    text: String,
    inside: Vec<Element>,
}

impl Element {
    fn number(&self, attribute: &str) -> f64 {
        self.attributes[attribute].parse().unwrap()
    }

    /// All elements below it of a name, and of a class where one is given.
    fn all(&self, name: &str, class: Option<&str>) -> Vec<&Element> {
        let mut found = Vec::new();
        for element in &self.inside {
            let of_class = class.is_none_or(|class| {
                element.attributes.get("class").is_some_and(|found| found == class)
            });
            if element.name == name && of_class {
                found.push(element);
            }
            found.extend(element.all(name, class));
        }
        found
    }
}

/// A strict reader of the XML that a diagram needs: elements, quoted attributes, text and the four
/// entities. Everything else stops the test.
struct Xml<'a>(&'a str);

impl Xml<'_> {
    fn skip(&mut self, expected: &str) {
        let rest = self.0.strip_prefix(expected);
        self.0 = rest.unwrap_or_else(|| panic!("expected {expected:?} before {:.60}", self.0));
    }

    fn until(&mut self, ends: &[char]) -> String {
        let (text, rest) = self.0.split_at(self.0.find(ends).unwrap());
        self.0 = rest;
        text.to_owned()
    }

    fn element(&mut self) -> Element {
        self.skip("<");
        let name = self.until(&[' ', '>', '/']);
        assert!(!name.is_empty() && name.chars().all(char::is_alphabetic), "{name:?}");
        let mut attributes = BTreeMap::new();
        while self.0.starts_with(' ') {
            self.skip(" ");
            let key = self.until(&['=']);
            self.skip("=\"");
            let value = decoded(&self.until(&['"', '<']));
            self.skip("\"");
            assert!(attributes.insert(key, value).is_none(), "an attribute stands once");
        }
        let mut element = Element { name, attributes, text: String::new(), inside: Vec::new() };
        if self.0.starts_with('/') {
            self.skip("/>");
            return element;
        }
        self.skip(">");
        loop {
            element.text += &decoded(&self.until(&['<']));
            if self.0.starts_with("</") {
                self.skip(&format!("</{}>", element.name));
                return element;
            }
            element.inside.push(self.element());
        }
    }
}

fn decoded(text: &str) -> String {
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\"")];
    let bare = entities.iter().fold(text.to_owned(), |text, (entity, _)| text.replace(entity, ""));
    assert!(!bare.replace("&amp;", "").contains(['&', '>']), "an unescaped mark in {text:?}");
    let plain =
        entities.iter().fold(text.to_owned(), |text, (entity, is)| text.replace(entity, is));
    plain.replace("&amp;", "&")
}

fn parsed(svg: &str) -> Element {
    let mut rest = Xml(svg);
    let element = rest.element();
    assert_eq!(rest.0, "\n", "one element and the end of its line");
    element
}

const BINS: usize = 4;

fn curve(name: &str, answers: &[(f64, bool)]) -> Curve {
    let judged: Vec<Judged> =
        answers.iter().map(|&(confidence, right)| Judged { confidence, right }).collect();
    Curve {
        name: name.to_owned(),
        expected_error: expected_calibration_error(&judged, BINS).map_or(0.0, |error| error.value),
        bins: reliability(&judged, BINS),
    }
}

/// Two answers of mean confidence 0.7, one right; two of mean 0.9, both right.
const ANSWERS: [(f64, bool); 4] = [(0.65, true), (0.75, false), (0.85, true), (0.95, true)];

/// Pixels are written with two decimals.
#[track_caller]
fn near(found: f64, want: f64) {
    assert!((found - want).abs() < 0.006, "{found}, expected {want}");
}

#[test]
fn points_stand_at_confidence_and_accuracy_and_bars_at_their_bins() {
    let svg = parsed(&diagram("dev.tsv", &[curve("a", &ANSWERS)]));
    let curves = svg.all("g", Some("curve"));
    let points = curves[0].all("circle", None);
    assert_eq!((curves.len(), points.len()), (1, 2), "a bin without answers has no point");
    for (point, (confidence, accuracy)) in points.iter().zip([(0.7, 0.5), (0.9, 1.0)]) {
        near(point.number("cx"), LEFT + SIDE * confidence);
        near(point.number("cy"), TOP + SIDE * (1.0 - accuracy));
    }
    assert_eq!(points[0].attributes["r"], points[1].attributes["r"], "equal counts, equal areas");
    let told = &points[0].inside[0].text;
    assert_eq!(told, "2 answers between 0.500 and 0.750: confidence 0.700, accuracy 0.500");
    let bars = svg.all("g", Some("bars"))[0].all("rect", None);
    assert_eq!(bars.len(), 2);
    for (bar, above) in bars.iter().zip([0.5, 0.75]) {
        near(bar.number("x"), LEFT + SIDE * (above + 0.05 / BINS as f64));
        near(bar.number("width"), SIDE * 0.9 / BINS as f64);
        near(bar.number("height"), STRIP);
        near(bar.number("y"), STRIP_TOP);
    }
    let joined = &curves[0].all("polyline", None)[0].attributes["points"];
    assert_eq!(joined.split(' ').count(), 2);
}

#[test]
fn several_curves_share_the_bins_and_the_scale_of_the_strip() {
    // All of the second's answers are in one bin, the first's in two.
    let curves = [curve("a", &ANSWERS), curve("b", &[(0.8, true), (0.9, false)])];
    let svg = parsed(&diagram("dev.tsv", &curves));
    let bars: Vec<Vec<f64>> = svg
        .all("g", Some("bars"))
        .iter()
        .map(|of_curve| of_curve.all("rect", None).iter().map(|b| b.number("height")).collect())
        .collect();
    assert_eq!(bars, [vec![STRIP / 2.0, STRIP / 2.0], vec![STRIP]]);
    let names: Vec<&str> = svg.all("text", Some("name")).iter().map(|t| t.text.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let errors: Vec<&str> =
        svg.all("text", Some("error")).iter().map(|t| t.text.as_str()).collect();
    // 0.5·|0.5 − 0.7| + 0.5·|1 − 0.9|, and |0.5 − 0.85|.
    assert_eq!(errors, ["ECE 0.1500, n 4", "ECE 0.3500, n 2"]);
    let colours: Vec<&String> =
        svg.all("g", Some("curve")).iter().map(|curve| &curve.attributes["fill"]).collect();
    assert_ne!(colours[0], colours[1]);
}

#[test]
fn everything_stands_inside_the_picture_and_the_legend_below_one_another() {
    let names: Vec<String> = (0..20).map(|at| format!("runs/a-long-name/seed-{at}/best")).collect();
    let curves: Vec<Curve> = names.iter().map(|name| curve(name, &ANSWERS)).collect();
    let svg = parsed(&diagram("dev.tsv", &curves));
    let (width, height) = (svg.number("width"), svg.number("height"));
    for text in svg.all("text", None) {
        assert!((0.0..width).contains(&text.number("x")), "{text:?}");
        assert!((0.0..height).contains(&text.number("y")), "{text:?}");
    }
    let legend: Vec<f64> = svg.all("text", Some("name")).iter().map(|t| t.number("y")).collect();
    assert!(legend.windows(2).all(|two| two[1] - two[0] >= 30.0), "{legend:?}");
    let style = |curve: &&Element| {
        let dash = curve.all("polyline", None)[0].attributes["stroke-dasharray"].clone();
        (curve.attributes["fill"].clone(), dash)
    };
    let mut styles: Vec<_> = svg.all("g", Some("curve")).iter().map(style).collect();
    styles.sort();
    styles.dedup();
    assert_eq!(styles.len(), 20, "each curve can be told from the others");
}

#[test]
fn names_may_hold_any_text_and_equal_curves_give_equal_bytes() {
    let name = "a<b> & \"c\"</text>\u{7}";
    let draw = || diagram(name, &[curve(name, &ANSWERS)]);
    let svg = parsed(&draw());
    assert_eq!(svg.all("text", Some("name"))[0].text, "a<b> & \"c\"</text>\u{fffd}");
    assert_eq!(svg.all("title", None)[0].text, "a<b> & \"c\"</text>\u{fffd}");
    assert_eq!(draw(), draw());
}

#[test]
fn axes_have_their_numbers_and_titles() {
    let svg = parsed(&diagram("dev.tsv", &[curve("a", &ANSWERS)]));
    let texts: Vec<&str> = svg.all("text", None).iter().map(|text| text.text.as_str()).collect();
    for expected in ["confidence", "accuracy", "answers", "dev.tsv", "50 %", "0 %"] {
        assert!(texts.contains(&expected), "{expected} in {texts:?}");
    }
    for number in ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"] {
        assert_eq!(texts.iter().filter(|text| **text == number).count(), 2, "{number}");
    }
    let lines = svg.all("line", None);
    let diagonal = lines.iter().find(|line| !line.inside.is_empty()).unwrap();
    let ends = ["x1", "y1", "x2", "y2"].map(|end| diagonal.number(end));
    assert_eq!(ends, [LEFT, TOP + SIDE, LEFT + SIDE, TOP]);
}

#[test]
#[should_panic(expected = "one grid of bins")]
fn curves_over_other_bins_are_a_bug() {
    let mut other = curve("b", &ANSWERS);
    other.bins.pop();
    diagram("dev.tsv", &[curve("a", &ANSWERS), other]);
}
