//! A reliability diagram as SVG that a browser shows and a person can read.
//!
//! In: reliability curves with their names. Out: the text of one SVG file: accuracy over confidence
//! with the diagonal of perfect calibration, below it how the answers lie over confidence, beside it
//! a legend.
//! Never: a number that depends on the machine (equal curves give equal bytes), or a name that could
//! end the XML.

use crate::calibration::Bin;
use crate::svg::{LETTER, Style, begin, entry, line, px, shortened, upright};

/// A curve of a diagram.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// What the legend calls it.
    pub name: String,
    /// Its expected calibration error, from 0 to 1.
    pub expected_error: f64,
    /// Its bins of equal width, as [`crate::calibration::reliability`] gives them.
    pub bins: Vec<Bin>,
}

/// Pixels of the plane of confidence and accuracy, which is square.
pub const SIDE: f64 = 420.0;
/// Its left edge: room for numbers and a title.
pub const LEFT: f64 = 70.0;
/// Its upper edge: room for the title of the whole.
pub const TOP: f64 = 50.0;
/// Pixels between the plane and the strip of shares.
const GAP: f64 = 16.0;
/// Pixels of the strip's height.
pub const STRIP: f64 = 90.0;
/// The strip's upper edge.
pub const STRIP_TOP: f64 = TOP + SIDE + GAP;
/// Pixels below the strip: numbers and a title.
const BELOW: f64 = 55.0;
/// Pixels between the plane and the legend, and of a legend's mark with its text's distance.
const BESIDE: f64 = 24.0;
/// Pixels of a line of the legend.
const LINE: f64 = 34.0;
/// Radius of the point of a bin that holds all answers; areas are as the counts, but never less than
/// that of [`SMALLEST`].
const LARGEST: f64 = 14.0;
/// Radius of the smallest point: still to be seen and to be pointed at.
const SMALLEST: f64 = 2.5;

/// The diagram of `curves`, which have one number of bins, under a title.
///
/// x and y run from 0 to 1 over [`SIDE`] pixels. A point stands at the mean confidence and the
/// accuracy of a bin's answers, its area grows with their number, and pointing at it says the
/// numbers; above the diagonal the model is too modest, below it too sure. The strip has for each
/// bin and curve a bar as high as its share of the curve's answers, the tallest of all as high as
/// the strip (DeGroot & Fienberg 1983; the form of Niculescu-Mizil & Caruana 2005).
///
/// # Panics
/// Without a curve, without bins, or where the numbers of bins differ.
///
/// ```
/// use heirloom_report::calibration::{Judged, reliability};
/// use heirloom_report::diagram::{Curve, diagram};
/// let bins = reliability(&[Judged { confidence: 0.9, right: true }], 15);
/// let curve = Curve { name: "a < b".to_owned(), expected_error: 0.1, bins };
/// let svg = diagram("dev.tsv", &[curve]);
/// assert!(svg.starts_with("<svg xmlns=") && svg.contains("a &lt; b"));
/// ```
pub fn diagram(title: &str, curves: &[Curve]) -> String {
    let bins = curves.first().map_or(0, |curve| curve.bins.len());
    assert!(bins > 0 && curves.iter().all(|curve| curve.bins.len() == bins), "one grid of bins");
    let longest = curves.iter().map(|curve| shortened(&curve.name).chars().count()).max();
    let beside = 2.0 * BESIDE + 22.0 + LETTER * longest.unwrap_or(0).max(16) as f64;
    let (width, below) = (LEFT + SIDE + beside, STRIP_TOP + STRIP + BELOW);
    let height = below.max(TOP + LINE * (curves.len() + 2) as f64);
    let mut svg = begin(title, [width, height], [LEFT, TOP - 20.0]);
    axes(&mut svg);
    let tallest = curves.iter().flat_map(shares).fold(0.0, f64::max);
    strip_scale(&mut svg, tallest);
    for (at, curve) in curves.iter().enumerate() {
        let style = Style::of(at);
        bars(&mut svg, curve, &style, at, curves.len(), tallest);
        points(&mut svg, curve, &style);
        legend(&mut svg, curve, &style, at);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Pixels from the left of a confidence.
fn x_of(confidence: f64) -> f64 {
    LEFT + SIDE * confidence
}

/// Pixels from the top of an accuracy.
fn y_of(accuracy: f64) -> f64 {
    TOP + SIDE * (1.0 - accuracy)
}

/// Grid, numbers, titles of the axes, and the diagonal.
fn axes(svg: &mut String) {
    let (right, bottom, end) = (LEFT + SIDE, TOP + SIDE, STRIP_TOP + STRIP);
    svg.push_str("<g stroke=\"#dddddd\">\n");
    for tick in 0..=5 {
        let at = f64::from(tick) / 5.0;
        let (x, y) = (px(x_of(at)), px(y_of(at)));
        line(svg, format_args!("<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{right}\" y2=\"{y}\"/>"));
        line(svg, format_args!("<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\"/>"));
        line(svg, format_args!("<line x1=\"{x}\" y1=\"{STRIP_TOP}\" x2=\"{x}\" y2=\"{end}\"/>"));
    }
    svg.push_str("</g>\n");
    let diagonal = format_args!(
        "<line x1=\"{LEFT}\" y1=\"{bottom}\" x2=\"{right}\" y2=\"{TOP}\" stroke=\"#888888\" \
         stroke-dasharray=\"4 4\"><title>as sure as right</title></line>"
    );
    line(svg, diagonal);
    for (top, height) in [(TOP, SIDE), (STRIP_TOP, STRIP)] {
        let frame = format_args!(
            "<rect x=\"{LEFT}\" y=\"{top}\" width=\"{SIDE}\" height=\"{height}\" fill=\"none\" \
             stroke=\"#222222\"/>"
        );
        line(svg, frame);
    }
    for tick in 0..=5 {
        let at = f64::from(tick) / 5.0;
        let (x, y) = (px(x_of(at)), px(y_of(at) + 4.0));
        let below = end + 18.0;
        line(
            svg,
            format_args!("<text x=\"{x}\" y=\"{below}\" text-anchor=\"middle\">{at:.1}</text>"),
        );
        let left = LEFT - 8.0;
        line(svg, format_args!("<text x=\"{left}\" y=\"{y}\" text-anchor=\"end\">{at:.1}</text>"));
    }
    let (x, y) = (x_of(0.5), end + 40.0);
    line(svg, format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">confidence</text>"));
    upright(svg, "accuracy", LEFT - 46.0, TOP + SIDE / 2.0);
    upright(svg, "answers", LEFT - 46.0, STRIP_TOP + STRIP / 2.0);
}

/// The share that the strip's full height stands for, and 0.
fn strip_scale(svg: &mut String, tallest: f64) {
    let x = LEFT - 8.0;
    for (y, share) in [(STRIP_TOP + 10.0, tallest), (STRIP_TOP + STRIP, 0.0)] {
        let share = px((share * 1000.0).round() / 10.0);
        line(svg, format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{share} %</text>"));
    }
}

/// Of each bin, its share of the curve's answers; 0 without any.
fn shares(curve: &Curve) -> Vec<f64> {
    let n: usize = curve.bins.iter().map(|bin| bin.n).sum();
    curve.bins.iter().map(|bin| bin.n as f64 / n.max(1) as f64).collect()
}

/// The bars of a curve, beside those of the others.
fn bars(svg: &mut String, curve: &Curve, style: &Style, at: usize, curves: usize, tallest: f64) {
    let colour = style.colour;
    line(svg, format_args!("<g class=\"bars\" fill=\"{colour}\" fill-opacity=\"0.75\">"));
    for (bin, share) in curve.bins.iter().zip(shares(curve)).filter(|(bin, _)| bin.n > 0) {
        // A tenth of the bin stays free between it and the next.
        let room = SIDE * (bin.up_to - bin.above);
        let width = 0.9 * room / curves as f64;
        let x = x_of(bin.above) + 0.05 * room + width * at as f64;
        let height = STRIP * share / tallest;
        let bar = format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"><title>{}</title></rect>",
            px(x),
            px(STRIP_TOP + STRIP - height),
            px(width),
            px(height),
            told(bin),
        );
        line(svg, bar);
    }
    svg.push_str("</g>\n");
}

/// The points of a curve, joined by lines.
fn points(svg: &mut String, curve: &Curve, style: &Style) {
    let filled: Vec<(&Bin, f64, f64, f64)> = curve
        .bins
        .iter()
        .zip(shares(curve))
        .filter_map(|(bin, share)| {
            let (x, y) = (x_of(bin.confidence?), y_of(bin.accuracy?));
            Some((bin, x, y, (LARGEST * share.sqrt()).max(SMALLEST)))
        })
        .collect();
    let Style { colour, dash } = style;
    let path: Vec<String> =
        filled.iter().map(|(_, x, y, _)| format!("{},{}", px(*x), px(*y))).collect();
    line(svg, format_args!("<g class=\"curve\" fill=\"{colour}\" fill-opacity=\"0.6\">"));
    let joined = format_args!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" \
         stroke-dasharray=\"{dash}\"/>",
        path.join(" "),
    );
    line(svg, joined);
    for (bin, x, y, radius) in filled {
        let point = format_args!(
            "<circle cx=\"{}\" cy=\"{}\" r=\"{}\"><title>{}</title></circle>",
            px(x),
            px(y),
            px(radius),
            told(bin),
        );
        line(svg, point);
    }
    svg.push_str("</g>\n");
}

/// What pointing at a bin says.
fn told(bin: &Bin) -> String {
    let share = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.3}"));
    format!(
        "{} answers between {:.3} and {:.3}: confidence {}, accuracy {}",
        bin.n,
        bin.above,
        bin.up_to,
        share(bin.confidence),
        share(bin.accuracy),
    )
}

fn legend(svg: &mut String, curve: &Curve, style: &Style, at: usize) {
    let place = [LEFT + SIDE + BESIDE, TOP + 12.0 + LINE * at as f64];
    let n: usize = curve.bins.iter().map(|bin| bin.n).sum();
    let said = format!("ECE {:.4}, n {n}", curve.expected_error);
    entry(svg, style, place, &curve.name, ("error", &said));
}
