//! Pictures as inline SVG: the strip of recent runs, and a line of sizes. Knows shapes; what they
//! mean is said in words beside them, for those who do not see them.

use std::fmt;

use askama::filters::HtmlSafe;

use super::words::Tone;
use crate::alert::escape;

/// An SVG, its texts escaped.
pub(super) struct Picture(String);

impl fmt::Display for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl HtmlSafe for Picture {}

/// One run in a strip.
pub(super) struct Bar {
    pub(super) tone: Tone,
    /// What is said of it on a closer look.
    pub(super) title: String,
}

const BAR: usize = 7;
const GAP: usize = 3;
const HEIGHT: usize = 28;

/// Runs as bars, oldest first. What went well is high and what failed is low, so that it can be told
/// without colour. `words` says it for a screen reader.
pub(super) fn strip(bars: &[Bar], words: &str) -> Picture {
    let width = (bars.len() * (BAR + GAP)).max(BAR);
    let mut svg = open("strip", width, HEIGHT, words);
    for (index, bar) in bars.iter().enumerate() {
        let height = match bar.tone {
            Tone::Good => HEIGHT,
            Tone::Warning => HEIGHT * 2 / 3,
            Tone::Bad => HEIGHT * 2 / 5,
            Tone::Quiet => HEIGHT / 5,
        };
        svg += &format!(
            "<rect class=\"{}\" x=\"{}\" y=\"{}\" width=\"{BAR}\" height=\"{height}\" rx=\"2\"><title>{}</title></rect>",
            bar.tone.as_str(),
            index * (BAR + GAP),
            HEIGHT - height,
            escape(&bar.title)
        );
    }
    Picture(svg + "</svg>")
}

/// A line over equal steps, from zero up. `None` with fewer than two values.
pub(super) fn line(values: &[u64], words: &str) -> Option<Picture> {
    let most = values.iter().copied().max().filter(|most| *most > 0)?;
    if values.len() < 2 {
        return None;
    }
    let (width, height) = (240.0, 48.0);
    #[expect(clippy::cast_precision_loss, reason = "a picture is a few hundred points wide")]
    let point = |(index, value): (usize, &u64)| {
        let x = index as f64 / (values.len() - 1) as f64 * (width - 4.0) + 2.0;
        let y = height - 3.0 - *value as f64 / most as f64 * (height - 8.0);
        (x, y)
    };
    let points: Vec<(f64, f64)> = values.iter().enumerate().map(point).collect();
    let text: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let text = text.join(" ");
    let mut svg = open("line", 240, 48, words);
    svg += &format!(
        "<polygon class=\"area\" points=\"2,{0:.1} {text} {1:.1},{0:.1}\"/><polyline points=\"{text}\"/>",
        height - 1.0,
        width - 2.0
    );
    if let Some((x, y)) = points.last() {
        svg += &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
    }
    Some(Picture(svg + "</svg>"))
}

/// Of a whole, how much is used, in percent.
pub(super) fn meter(percent: u64, tone: Tone, words: &str) -> Picture {
    let width = percent.min(100) * 2;
    let mut svg = open("meter", 200, 10, words);
    svg += &format!(
        "<rect class=\"track\" width=\"200\" height=\"10\" rx=\"5\"/><rect class=\"{}\" width=\"{width}\" height=\"10\" rx=\"5\"/>",
        tone.as_str()
    );
    Picture(svg + "</svg>")
}

fn open(class: &str, width: usize, height: usize, words: &str) -> String {
    format!(
        "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\" aria-label=\"{}\">",
        escape(words).replace('"', "&quot;")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_into_a_picture_stays_text() {
        let bar = Bar { tone: Tone::Bad, title: "<script>\"".into() };
        let svg = strip(&[bar], "two \"words\" <b>").to_string();
        assert!(!svg.contains("<script>") && !svg.contains("<b>"), "{svg}");
        assert!(svg.contains("aria-label=\"two &quot;words&quot; &lt;b&gt;\""), "{svg}");
    }

    #[test]
    fn a_line_needs_two_points_and_stays_in_its_frame() {
        assert!(line(&[5], "").is_none());
        assert!(line(&[0, 0], "").is_none());
        let svg = line(&[0, 50, 100], "").unwrap().to_string();
        assert!(svg.contains("points=\"2.0,45.0 120.0,25.0 238.0,5.0\""), "{svg}");
    }
}
