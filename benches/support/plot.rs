//! Draws curves as SVG files in `target/plots`.

use std::path::Path;

use plotters::prelude::*;

/// A named curve of nanoseconds per request.
pub struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

impl Curve {
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            points: Vec::new(),
        }
    }

    pub fn push(&mut self, x: usize, nanos: f64) {
        self.points.push((x as f64, nanos));
    }
}

/// Draws curves into one file. Both axes are logarithmic.
pub fn draw(file: &str, title: &str, x: &str, curves: &[Curve]) {
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target"),
        |target| Path::new(&target).to_owned(),
    );
    let folder = folder.join("plots");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(file).with_extension("svg");
    let all = || curves.iter().flat_map(|curve| &curve.points);
    let bounds = |axis: fn(&(f64, f64)) -> f64| {
        all()
            .map(axis)
            .fold((f64::MAX, f64::MIN), |(low, high), at| {
                (low.min(at), high.max(at))
            })
    };
    let ((x_low, x_high), (y_low, y_high)) = (bounds(|point| point.0), bounds(|point| point.1));
    let area = SVGBackend::new(&path, (900, 540)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(
            (x_low..x_high).log_scale(),
            (y_low * 0.8..y_high * 1.2).log_scale(),
        )
        .unwrap();
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc("ns per request")
        .draw()
        .unwrap();
    for (curve, color) in curves.iter().zip([&RED, &BLUE, &BLACK]) {
        let line = LineSeries::new(curve.points.iter().copied(), color.stroke_width(2));
        let series = chart.draw_series(line).unwrap().label(&curve.name);
        series.legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()
        .unwrap();
    area.present().unwrap();
    println!("wrote plots/{file}.svg in the target directory\n");
}
