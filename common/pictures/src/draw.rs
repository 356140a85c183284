//! Drawing.

use std::{error::Error, ops::Range, sync::Once};

use plotters::{
    coord::Shift,
    prelude::*,
    style::{
        FontFamily, RGBColor, register_font,
        text_anchor::{HPos, Pos, VPos},
    },
};

use crate::{
    chart::{Chart, Panel, Point},
    look::Look,
};

/// Sizes of letters and edges, pixels.
const TITLE: u32 = 22;
const SUBTITLE: u32 = 14;
const LABEL: u32 = 13;
const HEAD: u32 = 64;
const LEFT: u32 = 72;
const RIGHT: u32 = 24;
const BELOW: u32 = 34;
const GAP: u32 = 26;
const BAND_OPACITY: f64 = 0.2;
/// Room of one number on the axes, pixels.
const X_NUMBER: u32 = 130;
const Y_NUMBER: u32 = 20;

/// A picture that cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[error("the picture cannot be drawn: {0}")]
pub struct DrawError(String);

fn failed(error: impl Error) -> DrawError {
    DrawError(error.to_string())
}

/// Draws a chart as SVG.
///
/// # Errors
/// Numbers so far apart that they have no place on an axis.
pub fn svg(chart: &Chart, look: Look) -> Result<String, DrawError> {
    let mut text = String::new();
    let size = (look.size.width, look.size.height);
    let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
    draw(&area, chart, look)?;
    drop(area);
    Ok(text)
}

/// Draws a chart as PNG.
///
/// # Errors
/// As [`svg`].
pub fn png(chart: &Chart, look: Look) -> Result<Vec<u8>, DrawError> {
    let (width, height) = (look.size.width, look.size.height);
    let mut pixels = vec![0; width as usize * height as usize * 3];
    let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
    draw(&area, chart, look)?;
    drop(area);
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    let mut writer = encoder.write_header().map_err(failed)?;
    writer.write_image_data(&pixels).map_err(failed)?;
    writer.finish().map_err(failed)?;
    Ok(file)
}

/// Text of one size; drawn in the font that comes with the program.
fn font(size: u32, colour: RGBColor) -> TextStyle<'static> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // It fails for bytes that are no font; these are one, as the tests' letters show.
        drop(register_font(
            "sans-serif",
            FontStyle::Normal,
            dejavu::sans::regular(),
        ));
    });
    TextStyle {
        color: colour.to_backend_color(),
        ..TextStyle::from((FontFamily::SansSerif, size))
    }
}

type Area<B> = DrawingArea<B, Shift>;

fn draw<B: DrawingBackend>(area: &Area<B>, chart: &Chart, look: Look) -> Result<(), DrawError> {
    let colours = look.theme.colours();
    area.fill(&colours.ground).map_err(failed)?;
    let (head, body) = area.split_vertically(HEAD);
    let left = i32::try_from(LEFT).unwrap_or_default();
    head.draw_text(&chart.title, &font(TITLE, colours.text), (left, 12))
        .map_err(failed)?;
    head.draw_text(&chart.subtitle, &font(SUBTITLE, colours.faint), (left, 40))
        .map_err(failed)?;
    let widths = chart.widths();
    let count = chart.panels.len().max(1);
    for ((number, panel), place) in chart.panels.iter().enumerate().zip(stacked(&body, count)) {
        let line = colours.lines.get(number % colours.lines.len());
        let pen = Pen {
            line: line.copied().unwrap_or(colours.text),
            faint: colours.faint,
            grid: colours.grid,
        };
        let is_lowest = number + 1 == count;
        draw_panel(&place, panel, widths.clone(), &pen, is_lowest)?;
        if is_lowest {
            draw_axis(&place, &chart.axis, &pen)?;
        }
    }
    if chart.panels.is_empty() {
        body.draw_text(
            "nothing to draw",
            &font(SUBTITLE, colours.faint),
            (left, 40),
        )
        .map_err(failed)?;
    }
    area.present().map_err(failed)
}

/// Cuts the body into panels of one height; the lowest has the numbers of the axis besides.
fn stacked<B: DrawingBackend>(body: &Area<B>, count: usize) -> Vec<Area<B>> {
    let (_, height) = body.dim_in_pixel();
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    let each = height.saturating_sub(BELOW) / count;
    body.split_by_breakpoints(
        [0_u32; 0],
        (1..count).map(|number| number * each).collect::<Vec<_>>(),
    )
}

/// The colours of one panel.
struct Pen {
    line: RGBColor,
    faint: RGBColor,
    grid: RGBColor,
}

fn draw_panel<B: DrawingBackend>(
    area: &Area<B>,
    panel: &Panel,
    widths: Range<f64>,
    pen: &Pen,
    is_lowest: bool,
) -> Result<(), DrawError> {
    let (width, height) = area.dim_in_pixel();
    let below = if is_lowest { BELOW } else { 0 };
    let heights = panel.line.heights();
    let mut plot = ChartBuilder::on(area)
        .margin_top(GAP)
        .margin_right(RIGHT)
        .set_label_area_size(LabelAreaPosition::Left, LEFT)
        .set_label_area_size(LabelAreaPosition::Bottom, below)
        .build_cartesian_2d(widths, heights.clone())
        .map_err(failed)?;
    let numbers = font(LABEL - 1, pen.faint);
    let per = |pixels: u32, room: u32| (pixels / room).clamp(2, 12) as usize;
    plot.configure_mesh()
        .disable_x_mesh()
        .x_labels(per(width, X_NUMBER))
        .y_labels(per(height.saturating_sub(GAP + below), Y_NUMBER))
        .x_label_style(numbers.clone())
        .y_label_style(numbers.clone())
        .x_label_formatter(&number)
        .y_label_formatter(&number)
        .axis_style(pen.grid)
        .bold_line_style(pen.grid)
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(failed)?;
    for run in panel.line.runs() {
        if run.iter().any(|point| point.std.is_some()) {
            let band = Polygon::new(outline(run, &heights), pen.line.mix(BAND_OPACITY));
            plot.draw_series([band]).map_err(failed)?;
        }
        let path = run.iter().map(|point| (point.x, point.y));
        match run {
            [alone] => plot
                .draw_series([Circle::new((alone.x, alone.y), 2, pen.line.filled())])
                .map_err(failed)?,
            _ => plot
                .draw_series(LineSeries::new(path, pen.line.stroke_width(1)))
                .map_err(failed)?,
        };
    }
    let left = i32::try_from(LEFT).unwrap_or_default();
    area.draw_text(&panel.label, &font(LABEL, pen.line), (left, 6))
        .map_err(failed)?;
    Ok(())
}

/// Writes what the axis is below the lowest panel.
fn draw_axis<B: DrawingBackend>(area: &Area<B>, axis: &str, pen: &Pen) -> Result<(), DrawError> {
    let (width, height) = area.dim_in_pixel();
    let place = (LEFT.midpoint(width.saturating_sub(RIGHT)), height - 2);
    let place = (
        i32::try_from(place.0).map_err(failed)?,
        i32::try_from(place.1).map_err(failed)?,
    );
    let style = font(LABEL, pen.faint).pos(Pos::new(HPos::Center, VPos::Bottom));
    area.draw_text(axis, &style, place).map_err(failed)
}

/// Returns the outline of a band within the panel: along its upper side, and back along the lower one.
fn outline(run: &[Point], heights: &Range<f64>) -> Vec<(f64, f64)> {
    let within = |y: f64| y.clamp(heights.start, heights.end);
    let upper = run.iter().map(|point| (point.x, within(point.high())));
    let lower = run.iter().rev().map(|point| (point.x, within(point.low())));
    upper.chain(lower).collect()
}

/// Writes a number for an axis: as many digits as tell it from its neighbours, no more.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the library's formatters take references"
)]
fn number(value: &f64) -> String {
    let size = value.abs();
    if size >= 1e7 || (size > 0.0 && size < 1e-4) {
        return format!("{value:.2e}");
    }
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Line, Size, Theme};

    fn chart(label: &str) -> Chart {
        let point = |n: u32| {
            let x = f64::from(n);
            Point {
                x,
                y: 3.6 + 0.1 * (x / 40.0).sin(),
                std: Some(0.02),
            }
        };
        Chart {
            title: label.to_owned(),
            subtitle: "rows 1 to 500".to_owned(),
            axis: "test_time (s)".to_owned(),
            panels: vec![Panel {
                label: "voltage (V)".to_owned(),
                line: Line {
                    points: (0..500).map(point).collect(),
                },
            }],
        }
    }

    /// Decodes a PNG into width and colours.
    fn decoded(bytes: &[u8]) -> (u32, Vec<u8>) {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
            .read_info()
            .unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut pixels).unwrap();
        (info.width, pixels)
    }

    #[test]
    fn a_png_has_the_size_asked_for_and_shows_line_band_and_letters() {
        let look = Look {
            size: Size::new(640, 400).unwrap(),
            theme: Theme::Light,
        };
        let (width, pixels) = decoded(&png(&chart("cell"), look).unwrap());
        assert_eq!(width, 640);
        let has = |colour: [u8; 3]| pixels.chunks(3).filter(|pixel| *pixel == colour).count();
        assert!(has([0, 114, 178]) > 300, "the line");
        assert!(has([255, 255, 255]) > 100_000, "the ground");
        assert!(has([28, 32, 38]) > 20, "the title's letters");
        let mixed = pixels
            .chunks(3)
            .filter(|p| p[0] > 180 && p[0] < 220 && p[2] > 230)
            .count();
        assert!(mixed > 1000, "the band: {mixed}");
    }

    #[test]
    fn themes_differ_in_their_ground() {
        let dark = Look {
            theme: Theme::Dark,
            ..Look::default()
        };
        let (_, pixels) = decoded(&png(&chart("cell"), dark).unwrap());
        assert_eq!(pixels[..3], [19, 22, 27]);
    }

    #[test]
    fn names_from_users_stay_text_in_an_svg() {
        let text = svg(&chart("<script>alert(1)</script>&"), Look::default()).unwrap();
        assert!(!text.contains("<script"), "{text}");
        assert!(text.contains("&lt;script&gt;"), "{text}");
        assert!(text.starts_with("<svg"));
    }

    #[test]
    fn nothing_missing_and_endless_numbers_are_drawn_all_the_same() {
        let mut odd = chart("odd");
        for (n, y) in [f64::NAN, f64::INFINITY, -f64::INFINITY, 1e308, -1e308]
            .into_iter()
            .enumerate()
        {
            odd.panels[0].line.points[n].y = y;
        }
        png(&odd, Look::default()).unwrap();
        odd.panels[0].line.points[9].std = Some(1e300);
        odd.panels[0].line.points[10].y = 1e140;
        png(&odd, Look::default()).unwrap();
        odd.panels[0].line.points.clear();
        svg(&odd, Look::default()).unwrap();
        odd.panels.clear();
        assert!(
            svg(&odd, Look::default())
                .unwrap()
                .contains("nothing to draw")
        );
    }

    #[test]
    fn numbers_on_an_axis_have_no_needless_digits() {
        let texts = [3.7, 0.1 + 0.2, 86_400.0, -0.0, 2.5e-6, 1.2e9].map(|x| number(&x));
        assert_eq!(texts, ["3.7", "0.3", "86400", "0", "2.50e-6", "1.20e9"]);
    }
}
