//! A figure: what was measured, how often, and how it spreads.

use interrex_actors::env::Moment;
use serde::Serialize;

/// One figure.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    n: usize,
    min: f64,
    median: f64,
    max: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    floor_median: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

impl Figure {
    /// A figure of samples; there is at least one.
    pub(crate) fn of(name: impl Into<String>, unit: &'static str, samples: &[f64]) -> Self {
        let sorted = sorted(samples);
        let (min, max) = (sorted.first().copied(), sorted.last().copied());
        Self {
            name: name.into(),
            unit,
            n: sorted.len(),
            min: rounded(min.unwrap_or(f64::NAN)),
            median: rounded(median(&sorted)),
            max: rounded(max.unwrap_or(f64::NAN)),
            p99: None,
            floor_median: None,
            ratio: None,
        }
    }

    /// The same with the sample that 99 of 100 do not exceed.
    pub(crate) fn with_tail(mut self, samples: &[f64]) -> Self {
        let sorted = sorted(samples);
        self.p99 = sorted.get((sorted.len() * 99).div_ceil(100).saturating_sub(1)).copied().map(rounded);
        self
    }

    /// The same beside a floor.
    pub(crate) fn beside(mut self, floor: &[f64]) -> Self {
        let floor = median(&sorted(floor));
        self.floor_median = Some(rounded(floor));
        self.ratio = Some(rounded(self.median / floor));
        self
    }
}

/// Milliseconds by the clock that nobody sets.
pub(crate) fn ms_between(from: Moment, to: Moment) -> f64 {
    (to.monotonic.saturating_sub(from.monotonic)).as_secs_f64() * 1000.0
}

/// Milliseconds between two times of events.
pub(crate) fn wall_ms(between: chrono::TimeDelta) -> f64 {
    between.num_microseconds().map_or(f64::NAN, |microseconds| microseconds as f64 / 1000.0)
}

fn sorted(samples: &[f64]) -> Vec<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len().is_multiple_of(2)) {
        (Some(upper), true) => f64::midpoint(sorted[middle - 1], *upper),
        (Some(value), false) => *value,
        (None, _) => f64::NAN,
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// A table for people, or a JSON object a line for programs.
pub(crate) fn print(figures: &[Figure], json: bool) {
    if json {
        for figure in figures {
            println!("{}", serde_json::to_string(figure).unwrap_or_default());
        }
        return;
    }
    println!(
        "{:<34} {:>7} {:>4} {:>11} {:>11} {:>11} {:>8} {:>11} {:>7}",
        "FIGURE", "UNIT", "N", "MIN", "MEDIAN", "MAX", "P99", "FLOOR", "RATIO"
    );
    let optional = |value: Option<f64>| value.map_or("-".to_owned(), |value| value.to_string());
    for figure in figures {
        println!(
            "{:<34} {:>7} {:>4} {:>11} {:>11} {:>11} {:>8} {:>11} {:>7}",
            figure.name,
            figure.unit,
            figure.n,
            figure.min,
            figure.median,
            figure.max,
            optional(figure.p99),
            optional(figure.floor_median),
            optional(figure.ratio)
        );
    }
}
