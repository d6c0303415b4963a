//! The report: medians of the rounds, one aligned line for each row, and everything as JSON.
//!
//! Does not measure. A missing figure is a dash, never a zero.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::scenarios::{Budget, CLIENT_CPU, CPU, RSS, Row, Sample, Scenario};

/// Unit of a figure, which decides how it is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Each second, printed as k/s or M/s.
    PerSecond,
    /// µs.
    Micros,
    /// ms.
    Millis,
    /// Bytes.
    Bytes,
    /// KiB.
    Kib,
    /// MiB.
    Mib,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond if value >= 1e6 => format!("{} M/s", digits(value / 1e6)),
            Self::PerSecond if value >= 1e3 => format!("{} k/s", digits(value / 1e3)),
            Self::PerSecond => format!("{} /s", digits(value)),
            Self::Micros => format!("{} µs", digits(value)),
            Self::Millis => format!("{} ms", digits(value)),
            Self::Bytes => format!("{} B", digits(value)),
            Self::Kib => format!("{} KiB", digits(value)),
            Self::Mib => format!("{} MiB", digits(value)),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::PerSecond => "1/s",
            Self::Micros => "us",
            Self::Millis => "ms",
            Self::Bytes => "B",
            Self::Kib => "KiB",
            Self::Mib => "MiB",
        }
    }
}

/// Three significant digits.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Was a budget met?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Met,
    Missed,
    /// There is no budget, or a figure to judge by is missing.
    Open,
}

impl Verdict {
    fn show(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Missed => "MISSED",
            Self::Open => "",
        }
    }

    fn name(self) -> Option<&'static str> {
        match self {
            Self::Met => Some("met"),
            Self::Missed => Some("missed"),
            Self::Open => None,
        }
    }

    fn from(met: Option<bool>) -> Self {
        match met {
            Some(true) => Self::Met,
            Some(false) => Self::Missed,
            None => Self::Open,
        }
    }
}

impl Budget {
    fn show(self, unit: Unit) -> String {
        match self {
            Self::None => String::new(),
            Self::RatioMin(bound) => format!(">= {bound} x"),
            Self::RatioMax(bound) => format!("<= {bound} x"),
            Self::Max(bound) => format!("<= {}", unit.show(bound)),
        }
    }

    fn judge(self, theirs: Option<f64>, ours: Option<f64>) -> Verdict {
        Verdict::from(match self {
            Self::None => None,
            Self::RatioMin(bound) => ratio(theirs, ours).map(|ratio| ratio >= bound),
            Self::RatioMax(bound) => ratio(theirs, ours).map(|ratio| ratio <= bound),
            Self::Max(bound) => ours.map(|ours| ours <= bound),
        })
    }

    fn json(self) -> Value {
        match self {
            Self::None => Value::Null,
            Self::RatioMin(bound) => json!({ "ratio_min": bound }),
            Self::RatioMax(bound) => json!({ "ratio_max": bound }),
            Self::Max(bound) => json!({ "max": bound }),
        }
    }
}

fn ratio(theirs: Option<f64>, ours: Option<f64>) -> Option<f64> {
    Some(ours? / theirs.filter(|theirs| *theirs > 0.0)?)
}

/// All samples of one scenario, by arm.
pub(crate) type Samples = BTreeMap<&'static str, Vec<Sample>>;

/// Median of a figure over the rounds of an arm.
fn median(samples: &Samples, arm: &str, figure: &str) -> Option<f64> {
    let mut values: Vec<f64> =
        samples.get(arm)?.iter().filter_map(|sample| sample.get(figure).copied()).collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        len if len % 2 == 1 => values.get(middle).copied(),
        _ => Some(f64::midpoint(*values.get(middle - 1)?, *values.get(middle)?)),
    }
}

/// Collects what was printed, for the JSON and the last line.
#[derive(Debug, Default)]
pub(crate) struct Report {
    scenarios: Vec<Value>,
    met: u32,
    missed: Vec<String>,
    failed: Vec<String>,
}

impl Report {
    /// Prints the heads of the columns.
    pub(crate) fn heading() {
        println!(
            "{:<66} {:>11} {:>11} {:>7}  {:<11} {:<6} | {:^31} | {:^20}",
            "", "", "", "", "", "", "server CPU a message, µs", "memory, MiB"
        );
        println!(
            "{:<66} {:>11} {:>11} {:>7}  {:<11} {:<6} | {:>7} {:>7} {:>7} {:<7} | {:>6} {:>6} {:<6}",
            "scenario",
            "nats-server",
            "sedge",
            "ratio",
            "budget",
            "",
            "nats",
            "sedge",
            "ratio",
            "<= 0.5",
            "nats",
            "sedge",
            "<= 12"
        );
    }

    /// Notes that an arm of a scenario could not be measured.
    pub(crate) fn fail(&mut self, what: &str) {
        println!("  FAILED {what}");
        // The end of the report repeats what failed, not the server's log.
        self.failed.push(what.lines().next().unwrap_or_default().to_owned());
    }

    /// Prints the rows of a scenario.
    pub(crate) fn scenario(&mut self, scenario: &Scenario, samples: &Samples) {
        let rows: Vec<Value> =
            scenario.rows.iter().map(|row| self.row(scenario, *row, samples)).collect();
        for (arm, arm_samples) in samples {
            let figure = |name| median(samples, arm, name);
            if let (Some(server), Some(client)) = (figure(CPU), figure(CLIENT_CPU))
                && client > server
                && !arm_samples.is_empty()
            {
                let (server, client) = (digits(server), digits(client));
                println!(
                    "  note: {arm}: the load cost more CPU ({client} µs) than the server ({server} µs)"
                );
            }
        }
        self.scenarios.push(json!({ "name": scenario.name, "rows": rows, "samples": samples }));
    }

    fn row(&mut self, scenario: &Scenario, row: Row, samples: &Samples) -> Value {
        let name = match row.label {
            "" => scenario.name.clone(),
            label => format!("{}: {label}", scenario.name),
        };
        let pair =
            |figure| (median(samples, row.theirs, figure), median(samples, row.ours, figure));
        let (theirs, ours) = pair(row.figure);
        let (cpu_theirs, cpu_ours) = pair(CPU);
        let (rss_theirs, rss_ours) = pair(RSS);
        let verdict = row.budget.judge(theirs, ours);
        let cpu_budget = scenario.cpu_ratio_max.map_or(Budget::None, Budget::RatioMax);
        let cpu_verdict = cpu_budget.judge(cpu_theirs, cpu_ours);
        let rss_verdict = Budget::Max(scenario.rss_mib_max).judge(None, rss_ours);

        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), digits);
        let figure =
            |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| row.unit.show(value));
        let mut line = format!(
            "{:<38}{:<28} {:>11} {:>11} {:>7}  {:<11} {:<6} |",
            scenario.name,
            row.label,
            figure(theirs),
            figure(ours),
            number(ratio(theirs, ours)),
            row.budget.show(row.unit),
            verdict.show()
        );
        self.judge(&name, verdict);
        if row.costs {
            let cells = format!(
                " {:>7} {:>7} {:>7} {:<7} | {:>6} {:>6} {:<6}",
                number(cpu_theirs),
                number(cpu_ours),
                number(ratio(cpu_theirs, cpu_ours)),
                cpu_verdict.show(),
                number(rss_theirs),
                number(rss_ours),
                rss_verdict.show()
            );
            line.push_str(&cells);
            self.judge(&format!("{name}: server CPU"), cpu_verdict);
            self.judge(&format!("{name}: memory"), rss_verdict);
        }
        println!("{}", line.trim_end_matches([' ', '|']));
        json!({
            "name": name,
            "figure": row.figure,
            "unit": row.unit.name(),
            "nats_arm": row.theirs,
            "sedge_arm": row.ours,
            "nats": theirs,
            "sedge": ours,
            "ratio": ratio(theirs, ours),
            "budget": row.budget.json(),
            "verdict": verdict.name(),
            "cpu_verdict": row.costs.then(|| cpu_verdict.name()).flatten(),
            "rss_verdict": row.costs.then(|| rss_verdict.name()).flatten(),
        })
    }

    fn judge(&mut self, name: &str, verdict: Verdict) {
        match verdict {
            Verdict::Met => self.met += 1,
            Verdict::Missed => self.missed.push(name.to_owned()),
            Verdict::Open => {}
        }
    }

    /// Prints the end of the report; says whether everything asked for was measured.
    pub(crate) fn close(&self) -> bool {
        println!("\nbudgets met: {}, missed: {}", self.met, self.missed.len());
        for name in &self.missed {
            println!("  missed: {name}");
        }
        for what in &self.failed {
            println!("  not measured: {what}");
        }
        self.failed.is_empty()
    }

    /// Everything, with the facts it belongs to.
    pub(crate) fn json(&self, facts: &Value) -> Value {
        json!({
            "facts": facts,
            "budgets_met": self.met,
            "budgets_missed": self.missed,
            "failed": self.failed,
            "scenarios": self.scenarios,
        })
    }
}
