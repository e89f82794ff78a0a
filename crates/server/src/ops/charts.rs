//! Charts, as SVG: drawn by `plotters`, coloured by the page's style sheet.
//!
//! The colours here are names, one for each role: the style sheet says what they look like, in light
//! and in dark. They stand for themselves where there is no style sheet.

use super::annotations::{Annotation, What};
use super::view::Span;
use marquee_model::format_time_ms;
use marquee_pipeline::matches::{BOUNDS_MS, Matches};
use marquee_runtime::history::{Bucket, Stage};
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::prelude::*;
use std::ops::Range;

/// Width and height of a chart, in its own units.
const SIZE: (u32, u32) = (440, 170);

/// What the style sheet calls `text`, `line`, `mark` and `limit`.
const TEXT: RGBColor = RGBColor(0x66, 0x66, 0x61);
const LINE: RGBColor = RGBColor(0xcc, 0xcc, 0xc1);
const MARK: RGBColor = RGBColor(0x88, 0x44, 0x01);
const LIMIT: RGBColor = RGBColor(0xaa, 0x33, 0x01);

/// Series, in the order of the style sheet's `--c1` to `--c5`.
const SERIES: [RGBColor; 5] = [
    RGBColor(0x22, 0x66, 0xa1),
    RGBColor(0xc0, 0x6a, 0x12),
    RGBColor(0x2a, 0x8a, 0x53),
    RGBColor(0x8a, 0x4f, 0xa4),
    RGBColor(0x77, 0x77, 0x74),
];

/// A drawing that failed. It is a text in memory, so this is a fault of the program.
#[derive(Debug, thiserror::Error)]
#[error("a chart could not be drawn: {0}")]
pub(super) struct ChartError(String);

type Drawn = Result<String, ChartError>;

fn failed(error: impl std::fmt::Display) -> ChartError {
    ChartError(error.to_string())
}

/// What a chart over time shows, and of which time.
pub(super) struct Frame<'a> {
    pub(super) span: Span,
    pub(super) now_ms: i64,
    pub(super) buckets: &'a [Bucket],
    pub(super) annotations: &'a [Annotation],
}

impl Frame<'_> {
    fn steps(&self) -> usize {
        (self.span.ms() / self.span.step_ms()) as usize
    }

    /// Start of the first point.
    fn start_ms(&self) -> i64 {
        let step_ms = self.span.step_ms();
        // The last whole step is the last point.
        self.now_ms.div_euclid(step_ms) * step_ms - self.span.ms()
    }

    /// The buckets of each step of the time that is shown.
    fn by_step<T>(&self, of: impl Fn(&[&Bucket]) -> T) -> Vec<(i64, T)> {
        let (from_ms, step_ms) = (self.start_ms(), self.span.step_ms());
        let mut steps: Vec<Vec<&Bucket>> = vec![Vec::new(); self.steps()];
        for bucket in self.buckets {
            let step = (bucket.at_ms - from_ms).div_euclid(step_ms);
            if let Some(step) = usize::try_from(step).ok().and_then(|step| steps.get_mut(step)) {
                step.push(bucket);
            }
        }
        let at = |step: usize| from_ms + step as i64 * step_ms;
        steps.iter().enumerate().map(|(step, buckets)| (at(step), of(buckets))).collect()
    }

    /// A line, or an area, for each series; `limit`: a level that should not be exceeded.
    fn draw(&self, series: &[Vec<(i64, f64)>], stacked: bool, limit: Option<f64>) -> Drawn {
        let values = series.iter().flatten().map(|(_, value)| *value);
        let top = nice(values.chain(limit.map(|limit| 1.2 * limit)).fold(0.0, f64::max));
        // Up to now: what has just been noted shows at once.
        let (from_ms, to_ms) = (self.start_ms(), self.now_ms + 1);
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let time = Time(from_ms..to_ms);
            let mut chart = ChartBuilder::on(&area)
                .margin_top(8)
                .margin_right(10)
                .x_label_area_size(24)
                .y_label_area_size(44)
                .build_cartesian_2d(time, 0.0..top)
                .map_err(failed)?;
            let text = ("sans-serif", 12).into_font().color(&TEXT);
            chart
                .configure_mesh()
                .disable_x_mesh()
                .light_line_style(TRANSPARENT)
                .bold_line_style(LINE)
                .axis_style(LINE)
                .label_style(text)
                .x_labels(6)
                .y_labels(4)
                .y_label_formatter(&|value| short(*value))
                .draw()
                .map_err(failed)?;
            // The largest is drawn first, so that the others stand before it.
            for (number, points) in series.iter().enumerate().rev() {
                let color = SERIES[number % SERIES.len()];
                let points = points.iter().copied();
                if stacked {
                    let area = AreaSeries::new(points, 0.0, color.filled());
                    chart.draw_series(area).map_err(failed)?;
                } else {
                    let line = LineSeries::new(points, color.stroke_width(2));
                    chart.draw_series(line).map_err(failed)?;
                }
            }
            let vertical =
                |ms: i64| PathElement::new(vec![(ms, 0.0), (ms, top)], MARK.stroke_width(1));
            let marks = self.annotations.iter().filter(|a| (from_ms..to_ms).contains(&a.at_ms));
            chart
                .draw_series(marks.filter(|a| a.what != What::Stop).map(|a| vertical(a.at_ms)))
                .map_err(failed)?;
            if let Some(limit) = limit {
                let points = [(from_ms, limit), (to_ms, limit)];
                let line = LineSeries::new(points, LIMIT.stroke_width(1));
                chart.draw_series(line).map_err(failed)?;
            }
            area.present().map_err(failed)?;
        }
        Ok(svg)
    }

    /// Records a second that were read.
    pub(super) fn input(&self) -> Drawn {
        let seconds = self.span.step_ms() as f64 / 1000.0;
        let records = |of: &[&Bucket]| of.iter().map(|b| b.records).sum::<u64>() as f64 / seconds;
        self.draw(&[self.by_step(records)], true, None)
    }

    /// Records of the log that were not counted yet.
    pub(super) fn waiting(&self) -> Drawn {
        let waiting = |of: &[&Bucket]| of.iter().map(|b| b.waiting).max().unwrap_or(0) as f64;
        self.draw(&[self.by_step(waiting)], true, None)
    }

    /// Milliseconds of a batch in each stage, each stage on top of the others before it, and the
    /// batch interval.
    pub(super) fn stages(&self, interval_ms: i64) -> Drawn {
        let until = |last: usize| {
            self.by_step(move |of: &[&Bucket]| {
                let batches = of.iter().map(|b| b.batches).sum::<u64>().max(1);
                let us: u64 = of.iter().flat_map(|b| &b.stages_us[..=last]).sum();
                us as f64 / 1000.0 / batches as f64
            })
        };
        let series: Vec<_> = (0..Stage::ALL.len()).map(until).collect();
        self.draw(&series, true, Some(interval_ms as f64))
    }

    /// Events a second that were late, dead, or there before, and records that were read again.
    pub(super) fn aside(&self) -> Drawn {
        let seconds = self.span.step_ms() as f64 / 1000.0;
        // Late, dead, doubles, replayed.
        let rate = |total: usize| {
            let ends = self.by_step(|of: &[&Bucket]| of.last().map(|b| b.totals[total]));
            let mut before: Option<u64> = None;
            let rise = |(ms, end): (i64, Option<u64>)| {
                let Some(end) = end else { return (ms, 0.0) };
                // After a start the first total is no rise.
                let rise = before.replace(end).map_or(0, |before| end.saturating_sub(before));
                (ms, rise as f64 / seconds)
            };
            ends.into_iter().map(rise).collect::<Vec<_>>()
        };
        self.draw(&[rate(1), rate(2), rate(3), rate(4)], false, None)
    }
}

/// How long after their impressions plays come.
pub(super) fn delays(matches: &Matches, within_ms: i64) -> Drawn {
    // What lies beyond the bound after `within` can only be empty.
    let last = BOUNDS_MS.partition_point(|bound| *bound < within_ms).min(BOUNDS_MS.len());
    let shown = &matches.delays[..=last];
    let all = matches.found().max(1) as f64;
    let share = |count: u64| 100.0 * count as f64 / all;
    let top = nice(shown.iter().map(|count| share(*count)).fold(0.0, f64::max));
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin_top(8)
            .margin_right(10)
            .x_label_area_size(24)
            .y_label_area_size(44)
            .build_cartesian_2d(Bars(shown.len()), 0.0..top)
            .map_err(failed)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(LINE)
            .axis_style(LINE)
            .label_style(("sans-serif", 12).into_font().color(&TEXT))
            .x_labels(shown.len() + 1)
            .y_labels(4)
            .y_label_formatter(&|value| format!("{} %", short(*value)))
            .draw()
            .map_err(failed)?;
        let bar = |(place, count): (usize, &u64)| {
            let (left, right) = (place as f64 + 0.1, place as f64 + 0.9);
            Rectangle::new([(left, 0.0), (right, share(*count))], SERIES[0].filled())
        };
        chart.draw_series(shown.iter().enumerate().map(bar)).map_err(failed)?;
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

/// The counts of a video's epochs, the oldest first: a line without axes, for a row of a table.
pub(super) fn sparkline(values: &[u64]) -> Drawn {
    let top = values.iter().copied().max().unwrap_or(0).max(1) as f64;
    let last = values.len().saturating_sub(1).max(1) as f64;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (120, 28)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin(3)
            .build_cartesian_2d(0.0..last, 0.0..top)
            .map_err(failed)?;
        let points = values.iter().enumerate().map(|(at, value)| (at as f64, *value as f64));
        chart.draw_series(LineSeries::new(points, SERIES[0].stroke_width(2))).map_err(failed)?;
        area.present().map_err(failed)?;
    }
    Ok(svg)
}

/// Milliseconds since 1970 UTC, with labels at round times.
struct Time(Range<i64>);

impl Ranged for Time {
    type FormatOption = NoDefaultFormatting;
    type ValueType = i64;

    fn map(&self, value: &i64, limit: (i32, i32)) -> i32 {
        let share = (value - self.0.start) as f64 / (self.0.end - self.0.start) as f64;
        limit.0 + (share * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<i64> {
        const STEPS_MS: [i64; 7] =
            [10_000, 60_000, 300_000, 600_000, 1_800_000, 7_200_000, 14_400_000];
        let most = hint.max_num_points().max(1) as i64;
        let span_ms = self.0.end - self.0.start;
        let step_ms = STEPS_MS.into_iter().find(|step| span_ms / step <= most);
        let step_ms = step_ms.unwrap_or(STEPS_MS[STEPS_MS.len() - 1]);
        let first = self.0.start.div_euclid(step_ms) + 1;
        (first..).map(|n| n * step_ms).take_while(|ms| *ms < self.0.end).collect()
    }

    fn range(&self) -> Range<i64> {
        self.0.clone()
    }
}

impl ValueFormatter<i64> for Time {
    fn format_ext(&self, value: &i64) -> String {
        clock(*value)[..5].to_owned()
    }
}

/// Bars of delays, labelled with the bounds between them.
struct Bars(usize);

impl Ranged for Bars {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        limit.0 + (value / self.0 as f64 * f64::from(limit.1 - limit.0)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        // A bound stands at the end of its bar.
        (1..self.0).map(|place| place as f64).collect()
    }

    fn range(&self) -> Range<f64> {
        0.0..self.0 as f64
    }
}

impl ValueFormatter<f64> for Bars {
    fn format_ext(&self, value: &f64) -> String {
        let place = *value as usize - 1;
        BOUNDS_MS.get(place).map_or_else(String::new, |bound| duration(*bound))
    }
}

/// `HH:MM:SS`, UTC.
pub(super) fn clock(ms: i64) -> String {
    let text = format_time_ms(ms);
    text.split_once('T').map_or("00:00:00", |(_, time)| &time[..8]).to_owned()
}

fn duration(ms: i64) -> String {
    match ms / 1000 {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m", s / 60),
        s if s < 86_400 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

/// The next number of the form 1, 2 or 5 times a power of ten; 1 for nothing.
fn nice(value: f64) -> f64 {
    if value <= 1.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 1.5, 2.0, 3.0, 5.0, 7.5]
        .into_iter()
        .map(|n| n * power)
        .find(|n| *n >= value)
        .unwrap_or(10.0 * power)
}

/// `1.2 k`, `3 M`.
pub(super) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, " G"),
        v if v >= 1e6 => (value / 1e6, " M"),
        v if v >= 1e3 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let text = if value.fract().abs() < 0.05 || value.abs() >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.1}")
    };
    text + unit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_tops_are_round() {
        assert_eq!(
            [0.0, 7.25, 950.0, 1200.0, 2_000_000.0].map(short),
            ["0", "7.2", "950", "1.2 k", "2 M"]
        );
        assert_eq!(
            [0.0, 1.0, 1.2, 44.0, 76.0, 100.0].map(nice),
            [1.0, 1.0, 1.5, 50.0, 100.0, 100.0]
        );
        assert_eq!([0, 59_000, 60_000, 7_200_000].map(duration), ["0s", "59s", "1m", "2h"]);
        assert_eq!(clock(61_001), "00:01:01");
    }

    #[test]
    fn a_chart_shows_its_points_marks_and_limit() {
        let bucket = |at_ms| Bucket { at_ms, batches: 2, records: 100, ..Bucket::default() };
        let buckets = [bucket(400_000), bucket(500_000)];
        let mark = Annotation { at_ms: 450_000, what: What::Start, text: String::new() };
        let frame = Frame {
            span: Span::FiveMinutes,
            now_ms: 600_500,
            buckets: &buckets,
            annotations: &[mark],
        };
        let points = frame.by_step(|of| of.len());
        assert_eq!((points.len(), points[0].0, points[299].0), (300, 300_000, 599_000));
        assert_eq!(
            points.iter().filter(|(_, n)| *n == 1).map(|(ms, _)| *ms).collect::<Vec<_>>(),
            [400_000, 500_000]
        );
        let svg = frame.input().expect("a chart");
        assert!(svg.starts_with("<svg") && svg.contains("#884401"), "{svg}");
        assert!(!svg.contains("#AA3301") && !svg.contains("style="), "{svg}");
        let stages = frame.stages(200).expect("a chart");
        assert!(stages.contains("#AA3301"), "{stages}");
    }
}
