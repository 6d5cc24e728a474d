//! How losses fell while something was spent, as SVG that a browser shows and a person can read.
//!
//! In: the measurements of runs, and where a student grew. Out: the text of one SVG file: loss over
//! what had been spent, beside it a legend with the smallest loss of each.
//! Never: a number that depends on the machine; equal courses give equal bytes.

use crate::svg::{LETTER, Style, begin, entry, escaped, line, px, shortened, upright};

/// The measurements of one run, or of runs that follow one another.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// What the legend calls it.
    pub name: String,
    /// What had been spent, at least 0, and the loss; in the order in which they were measured.
    pub points: Vec<[f64; 2]>,
    /// What had been spent where the student grew.
    pub grown: Vec<f64>,
}

/// Pixels of the plane.
pub const WIDTH: f64 = 560.0;
/// Likewise.
pub const HEIGHT: f64 = 380.0;
/// Its left edge: room for numbers and a title.
pub const LEFT: f64 = 78.0;
/// Its upper edge: room for the title of the whole.
pub const TOP: f64 = 50.0;
/// Pixels below the plane: numbers and a title.
const BELOW: f64 = 55.0;
/// Pixels between the plane and the legend.
const BESIDE: f64 = 24.0;
/// Pixels of a line of the legend.
const LINE: f64 = 34.0;
/// Numbers along an axis, about.
const TICKS: f64 = 6.0;

/// From numbers to pixels along one axis.
struct Axis {
    from: f64,
    to: f64,
    /// Between two of its numbers.
    step: f64,
}

impl Axis {
    /// An axis that holds all of `from` to `to`, and begins and ends at numbers that it shows.
    fn over(from: f64, to: f64) -> Self {
        let span = if to > from { to - from } else { to.abs().max(1.0) };
        let rough = span / TICKS;
        let ten = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0].map(|factor| factor * ten).into_iter();
        let step = step.filter(|&step| step >= rough).fold(10.0 * ten, f64::min);
        let from = (from / step).floor() * step;
        Self { from, to: ((to / step).ceil() * step).max(from + step), step }
    }

    /// The part of the axis below `value`, from 0 to 1.
    fn part(&self, value: f64) -> f64 {
        (value - self.from) / (self.to - self.from)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let count = ((self.to - self.from) / self.step).round() as usize;
        let (from, step) = (self.from, self.step);
        (0..=count).map(move |at| from + step * at as f64)
    }
}

/// `value`, a multiple of `step`, with the digits that tell it from its neighbours.
fn number(value: f64, step: f64) -> String {
    let digits = (-step.log10().floor()).max(0.0) as usize;
    format!("{value:.digits$}")
}

/// The power of ten in threes by which numbers up to `largest` are divided.
fn thousands(largest: f64) -> i32 {
    let power = if largest > 0.0 { largest.log10().floor() as i32 } else { 0 };
    3 * power.div_euclid(3)
}

/// A whole number in raised digits.
fn raised(number: i32) -> String {
    const DIGITS: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    let digit = |letter: char| letter.to_digit(10).map_or('⁻', |digit| DIGITS[digit as usize]);
    number.to_string().chars().map(digit).collect()
}

/// The picture of `courses` under a title: losses over what had been spent, which is called `spent`.
///
/// Both axes are even. A ring stands where a student grew, on the line between the measurements beside
/// it; pointing at a point says its numbers. The legend has the smallest loss of each course.
///
/// # Panics
/// Where no course has a point, or a number is not finite.
///
/// ```
/// use heirloom_report::courses::{Course, courses};
/// let course = Course { name: "a < b".to_owned(), points: vec![[1e12, 5.0], [2e12, 4.5]], grown: vec![] };
/// let svg = courses("novels", "operations", &[course]);
/// assert!(svg.starts_with("<svg xmlns=") && svg.contains("a &lt; b") && svg.contains("10¹²"));
/// ```
pub fn courses(title: &str, spent: &str, courses: &[Course]) -> String {
    let all = || courses.iter().flat_map(|course| &course.points);
    assert!(all().next().is_some(), "a course with a point");
    assert!(all().flatten().all(|value| value.is_finite()), "finite numbers");
    let largest = all().fold(0.0_f64, |most, [x, _]| most.max(*x));
    let power = thousands(largest);
    let unit = 10_f64.powi(power);
    let x = Axis::over(0.0, largest / unit);
    let losses = all().map(|[_, loss]| *loss);
    let y = Axis::over(
        losses.clone().fold(f64::INFINITY, f64::min),
        losses.fold(f64::NEG_INFINITY, f64::max),
    );
    let plane = Plane { x, y, unit };
    let longest = courses.iter().map(|course| shortened(&course.name).chars().count()).max();
    let beside = 2.0 * BESIDE + 22.0 + LETTER * longest.unwrap_or(0).max(16) as f64;
    let height = (TOP + HEIGHT + BELOW).max(TOP + LINE * (courses.len() + 1) as f64);
    let mut svg = begin(title, [LEFT + WIDTH + beside, height], [LEFT, TOP - 20.0]);
    let spent = match power {
        0 => escaped(spent),
        power => format!("{}, 10{}", escaped(spent), raised(power)),
    };
    plane.axes(&mut svg, &spent);
    for (at, course) in courses.iter().enumerate() {
        let style = Style::of(at);
        plane.draw(&mut svg, course, &style);
        legend(&mut svg, course, &style, at);
    }
    svg.push_str("</svg>\n");
    svg
}

/// Where numbers lie on the picture.
struct Plane {
    x: Axis,
    y: Axis,
    /// What one of the x axis stands for.
    unit: f64,
}

impl Plane {
    fn place(&self, [spent, loss]: [f64; 2]) -> [f64; 2] {
        let (x, y) = (self.x.part(spent / self.unit), self.y.part(loss));
        [LEFT + WIDTH * x, TOP + HEIGHT * (1.0 - y)]
    }

    /// Grid, numbers and titles.
    fn axes(&self, svg: &mut String, spent: &str) {
        let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
        svg.push_str("<g stroke=\"#dddddd\">\n");
        let of = |axis: &Axis| axis.ticks().map(|at| (at, axis.part(at))).collect::<Vec<_>>();
        let (across, up) = (of(&self.x), of(&self.y));
        for (_, part) in &across {
            let x = px(LEFT + WIDTH * part);
            line(svg, format_args!("<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\"/>"));
        }
        for (_, part) in &up {
            let y = px(bottom - HEIGHT * part);
            line(svg, format_args!("<line x1=\"{LEFT}\" y1=\"{y}\" x2=\"{right}\" y2=\"{y}\"/>"));
        }
        svg.push_str("</g>\n");
        let frame = format_args!(
            "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" \
             stroke=\"#222222\"/>"
        );
        line(svg, frame);
        for (at, part) in across {
            let (x, y, text) = (px(LEFT + WIDTH * part), bottom + 18.0, number(at, self.x.step));
            let text =
                format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{text}</text>");
            line(svg, text);
        }
        for (at, part) in up {
            let (x, y) = (LEFT - 8.0, px(bottom - HEIGHT * part + 4.0));
            let text = number(at, self.y.step);
            line(svg, format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"end\">{text}</text>"));
        }
        let (x, y) = (LEFT + WIDTH / 2.0, bottom + 40.0);
        line(svg, format_args!("<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\">{spent}</text>"));
        upright(svg, "loss", LEFT - 54.0, TOP + HEIGHT / 2.0);
    }

    /// A line through the points of a course, and a ring wherever its student grew.
    fn draw(&self, svg: &mut String, course: &Course, style: &Style) {
        let Style { colour, dash } = style;
        let pair = |place: [f64; 2]| format!("{},{}", px(place[0]), px(place[1]));
        let path: Vec<String> =
            course.points.iter().map(|&point| pair(self.place(point))).collect();
        line(svg, format_args!("<g class=\"course\" fill=\"{colour}\">"));
        let joined = format_args!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\" \
             stroke-dasharray=\"{dash}\"/>",
            path.join(" "),
        );
        line(svg, joined);
        for &[spent, loss] in &course.points {
            let [x, y] = self.place([spent, loss]).map(px);
            let point = format_args!(
                "<circle cx=\"{x}\" cy=\"{y}\" r=\"2.5\"><title>{spent:.3e}: {loss:.4}</title></circle>"
            );
            line(svg, point);
        }
        for &spent in &course.grown {
            let Some(loss) = between(&course.points, spent) else { continue };
            let [x, y] = self.place([spent, loss]).map(px);
            let ring = format_args!(
                "<circle class=\"grown\" cx=\"{x}\" cy=\"{y}\" r=\"6\" fill=\"none\" \
                 stroke=\"{colour}\" stroke-width=\"1.5\"><title>grown at {spent:.3e}</title></circle>"
            );
            line(svg, ring);
        }
        svg.push_str("</g>\n");
    }
}

/// The loss at `spent`, on the line between the measurements beside it; the nearest one's outside.
fn between(points: &[[f64; 2]], spent: f64) -> Option<f64> {
    let after = points.iter().position(|[x, _]| *x >= spent);
    match after {
        None => points.last().map(|[_, loss]| *loss),
        Some(0) => Some(points[0][1]),
        Some(at) => {
            let ([x0, y0], [x1, y1]) = (points[at - 1], points[at]);
            let part = if x1 > x0 { (spent - x0) / (x1 - x0) } else { 1.0 };
            Some(y0 + part * (y1 - y0))
        }
    }
}

fn legend(svg: &mut String, course: &Course, style: &Style, at: usize) {
    let place = [LEFT + WIDTH + BESIDE, TOP + 12.0 + LINE * at as f64];
    let smallest = course.points.iter().map(|[_, loss]| *loss).fold(f64::INFINITY, f64::min);
    let said = format!("smallest {smallest:.4}");
    entry(svg, style, place, &course.name, ("smallest", &said));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_numbers_and_show_round_ones() {
        for (from, to, want) in [
            (0.0, 9.55, vec![0.0, 2.0, 4.0, 6.0, 8.0, 10.0]),
            (4.58, 5.19, vec![4.4, 4.6, 4.8, 5.0, 5.2]),
            (3.0, 3.0, vec![3.0, 3.5]),
            (0.0, 0.012, vec![0.0, 0.002, 0.004, 0.006, 0.008, 0.01, 0.012]),
        ] {
            let ticks: Vec<f64> = Axis::over(from, to).ticks().collect();
            assert_eq!(ticks.len(), want.len(), "{ticks:?}");
            let near = ticks.iter().zip(&want).all(|(tick, want)| (tick - want).abs() < 1e-9);
            assert!(near, "{ticks:?}, want {want:?}");
            assert!(ticks[0] <= from && ticks[ticks.len() - 1] >= to);
        }
    }

    #[test]
    fn numbers_have_the_digits_of_their_step() {
        assert_eq!(
            [number(4.6, 0.2), number(10.0, 2.0), number(0.012, 0.002)],
            ["4.6", "10", "0.012"]
        );
        assert_eq!([9.5e12, 1.0, 999.0, 1e3, 0.0].map(thousands), [12, 0, 0, 3, 0]);
        assert_eq!([raised(12), raised(-3)], ["¹²", "⁻³"]);
    }

    #[test]
    fn a_growth_lies_on_the_line_between_two_measurements() {
        let points = [[1.0, 5.0], [3.0, 4.0]];
        assert_eq!(
            [0.0, 1.0, 2.0, 3.0, 9.0].map(|x| between(&points, x)),
            [5.0, 5.0, 4.5, 4.0, 4.0].map(Some)
        );
        assert_eq!(between(&[], 1.0), None);
    }
}
