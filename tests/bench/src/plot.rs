//! A plot of CPU-seconds by partners, both axes logarithmic, as SVG. Pure.

use std::fmt::Write as _;

use crate::figures::{Figure, Measure};

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 50.0;

struct Axes {
    x: (f64, f64),
    y: (f64, f64),
}

impl Axes {
    fn x(&self, n: f64) -> f64 {
        let (low, high) = self.x;
        LEFT + (n.log10() - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let (low, high) = self.y;
        HEIGHT - BOTTOM - (value.max(1e-3).log10() - low) / (high - low) * (HEIGHT - TOP - BOTTOM)
    }
}

fn partners(n: usize) -> f64 {
    f64::from(u32::try_from(n).unwrap_or(u32::MAX))
}

/// Measure A at a fan-out; `None` without at least two points of a side.
pub fn catch_up(measures: &[Measure], fanout: usize) -> Option<String> {
    let mut points: Vec<&Measure> =
        measures.iter().filter(|m| m.name == "A catch-up CPU" && m.fanout == fanout).collect();
    points.sort_by_key(|m| m.n);
    let values: Vec<f64> = points.iter().flat_map(|m| [&m.liaison, &m.native]).flatten().map(|f| f.median).collect();
    let least = values.iter().copied().filter(|v| *v > 0.0).fold(f64::MAX, f64::min);
    let most = values.iter().copied().fold(0.0, f64::max);
    if points.len() < 2 || values.len() < 2 || most <= 0.0 {
        return None;
    }
    let axes = Axes { x: (1.0, 3.0), y: (least.log10().floor(), most.log10().ceil().max(least.log10().floor() + 1.0)) };
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
         <title>CPU-seconds to catch up, by partners, fan-out {fanout}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"22\">CPU-seconds of all processes to catch up with the load, fan-out {fanout}</text>\n"
    );
    grid(&mut svg, &axes, &points);
    line(&mut svg, &axes, &points, "native", "#b3261e", |m| m.native.as_ref());
    line(&mut svg, &axes, &points, "Liaison", "#0b57d0", |m| m.liaison.as_ref());
    svg.push_str("</svg>\n");
    Some(svg)
}

fn grid(svg: &mut String, axes: &Axes, points: &[&Measure]) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    let mut power = axes.y.0;
    while power <= axes.y.1 {
        let value = 10f64.powf(power);
        let y = axes.y(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>",
            LEFT - 8.0,
            y + 4.0
        );
        power += 1.0;
    }
    for point in points {
        let x = axes.x(partners(point.n));
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"#eee\"/>\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            point.n
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">partners</text>",
        f64::midpoint(LEFT, right),
        bottom + 38.0
    );
}

fn line(
    svg: &mut String,
    axes: &Axes,
    points: &[&Measure],
    label: &str,
    colour: &str,
    of: impl Fn(&Measure) -> Option<&Figure>,
) {
    let places: Vec<(f64, &Figure, bool)> = points
        .iter()
        .filter_map(|m| of(m).map(|f| (axes.x(partners(m.n)), f, m.extrapolated && label == "native")))
        .collect();
    for pair in places.windows(2) {
        if let [(x1, from, _), (x2, to, extrapolated)] = pair {
            let dash = if *extrapolated { " stroke-dasharray=\"6 5\"" } else { "" };
            let _ = writeln!(
                svg,
                "<line x1=\"{x1:.1}\" y1=\"{:.1}\" x2=\"{x2:.1}\" y2=\"{:.1}\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/>",
                axes.y(from.median),
                axes.y(to.median)
            );
        }
    }
    for (x, figure, extrapolated) in &places {
        let fill = if *extrapolated { "white" } else { colour };
        let _ = writeln!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{colour}\"/>\
             <circle cx=\"{x:.1}\" cy=\"{:.1}\" r=\"4\" fill=\"{fill}\" stroke=\"{colour}\"/>",
            axes.y(figure.minimum),
            axes.y(figure.maximum),
            axes.y(figure.median)
        );
    }
    if let Some((x, figure, extrapolated)) = places.last() {
        let note = if *extrapolated { " (extrapolated)" } else { "" };
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{label}{note}</text>",
            x + 10.0,
            axes.y(figure.median) + 4.0
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_has_both_sides() {
        let figure = |v: f64| Figure::of(&[v], "CPU-s");
        let points = [
            Measure::new("A catch-up CPU", 13, 1, figure(3.0), figure(10.0)),
            Measure::new("A catch-up CPU", 1000, 1, figure(6.0), None),
        ];
        let svg = catch_up(&points, 1).unwrap();
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(catch_up(&points, 3).is_none());
    }
}
