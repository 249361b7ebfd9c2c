//! Pictures of a scene: the fullest region, what is re-pointed a minute and what nearness costs, over time, way beside way.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::scenes::{Outcome, Point};

const SIZE: (u32, u32) = (880, 720);
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 90, 180), RGBColor(120, 120, 120), RGBColor(210, 90, 0), RGBColor(0, 140, 90)];
/// More points than this are not told apart.
const POINTS: usize = 600;

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws `DIR/steering-NAME.svg`.
pub fn draw(directory: &Path, scene: &str, outcomes: &[(String, Outcome)]) -> Result<(), Box<dyn Error>> {
    let path = directory.join(format!("steering-{}.svg", scene.replace([' ', '.', ','], "-")));
    let root = SVGBackend::new(&path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let panels = root.split_evenly((3, 1));
    let worst = |point: &Point| point.utilisation.iter().copied().fold(0.0, f64::max);
    panel(&panels[0], "sessions of the fullest region, of its capacity", outcomes, &worst, Some(1.0))?;
    panel(&panels[1], "re-pointed within a minute, % of the traffic", outcomes, &|point| point.moved * 100.0, None)?;
    panel(&panels[2], "ms more than to the nearest, mean of all starts", outcomes, &|point| point.extra_ms, None)?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &Panel<'_>,
    title: &str,
    outcomes: &[(String, Outcome)],
    value: &dyn Fn(&Point) -> f64,
    line: Option<f64>,
) -> Result<(), Box<dyn Error>> {
    let points = || outcomes.iter().flat_map(|(_, outcome)| &outcome.series).filter(|point| point.at >= 0.0);
    let end = points().map(|point| point.at).fold(1.0, f64::max) / 60.0;
    let top = points().map(value).fold(line.unwrap_or(0.0) * 1.05, f64::max).max(0.01) * 1.05;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(46)
        .build_cartesian_2d(0.0..end, 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_desc("minutes")
        .x_label_formatter(&|minute| format!("{minute:.0}"))
        .draw()?;
    if let Some(line) = line {
        chart.draw_series(LineSeries::new([(0.0, line), (end, line)], BLACK.mix(0.4)))?;
    }
    for ((name, outcome), colour) in outcomes.iter().zip(COLOURS) {
        let series: Vec<&Point> = outcome.series.iter().filter(|point| point.at >= 0.0).collect();
        // The highest of those that fall together, so that no peak is lost.
        let thinned = series.chunks(series.len().div_ceil(POINTS).max(1)).filter_map(|points| {
            let highest = points.iter().map(|point| value(point)).fold(0.0, f64::max);
            Some((points.first()?.at / 60.0, highest))
        });
        chart
            .draw_series(LineSeries::new(thinned, colour.stroke_width(2)))?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .label_font(("sans-serif", 13))
        .draw()?;
    Ok(())
}
