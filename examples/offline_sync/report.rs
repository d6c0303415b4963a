//! What the example prints: a live line while it runs and a table at the end.

use std::io::{self, IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use crate::audit::Audit;
use crate::options::Auth;
use crate::relay::Link;

/// Within this time after the link's return data has to flow again.
const FLOW_WAIT_MAX: Duration = Duration::from_secs(1);

/// Pause between two live lines where they overwrite each other, and where they scroll.
const TERMINAL_PAUSE: Duration = Duration::from_millis(200);
const SCROLL_PAUSE: Duration = Duration::from_secs(5);

/// The line that shows what happens now.
pub(crate) struct LiveLine {
    title: String,
    overwrite: bool,
    shown_at: Option<Instant>,
    phase: String,
}

impl LiveLine {
    pub(crate) fn new(title: String) -> Self {
        Self { title, overwrite: stdout().is_terminal(), shown_at: None, phase: String::new() }
    }

    /// Shows the figures, unless the last ones are too fresh to be replaced.
    pub(crate) fn show(
        &mut self,
        now: Instant,
        phase: &str,
        published: u64,
        stored: u64,
        at_hub: u64,
    ) {
        let pause = if self.overwrite { TERMINAL_PAUSE } else { SCROLL_PAUSE };
        let fresh = self.shown_at.is_some_and(|at| now.duration_since(at) < pause);
        if fresh && self.phase == phase {
            return;
        }
        self.shown_at = Some(now);
        phase.clone_into(&mut self.phase);
        let behind = stored.saturating_sub(at_hub);
        let line = format!(
            "{} {phase:<12} published {published:>6} stored {stored:>6} \
             at the hub {at_hub:>6} behind {behind:>6}",
            self.title
        );
        // Not print!, which panics when nobody reads any more; the servers are to be ended first.
        let mut out = stdout();
        let written =
            if self.overwrite { write!(out, "\r{line}") } else { writeln!(out, "{line}") };
        let _ = written.and_then(|()| out.flush());
    }

    /// Leaves the line as it is and starts a new one.
    pub(crate) fn finish(&self) {
        if self.overwrite {
            let _ = writeln!(stdout());
        }
    }
}

/// What one outage came to.
pub(crate) struct Verdict {
    pub(crate) auth: Auth,
    pub(crate) outage: Duration,
    pub(crate) link: Link,
    pub(crate) killed: bool,
    pub(crate) published: u64,
    pub(crate) acked: u64,
    /// Resent readings whose first copy had been stored.
    pub(crate) duplicates: u64,
    pub(crate) audit: Audit,
    /// From the link's return to the first reading at the hub that was stored after the cut.
    pub(crate) flows_after: Option<Duration>,
    /// From the link's return to the hub having everything that was acked a moment before.
    pub(crate) caught_up_after: Option<Duration>,
}

impl Verdict {
    pub(crate) fn is_good(&self) -> bool {
        self.troubles().is_empty()
    }

    fn troubles(&self) -> Vec<String> {
        let Audit { lost, doubled, disordered, foreign, .. } = self.audit;
        let mut troubles = Vec::new();
        let counts = [
            (lost, "acked readings lost"),
            (doubled, "readings doubled"),
            (disordered, "readings out of order"),
            (foreign, "messages at the hub that no sensor sent"),
            (self.published - self.acked, "readings never acked"),
        ];
        for (count, what) in counts {
            if count > 0 {
                troubles.push(format!("{count} {what}"));
            }
        }
        match self.flows_after {
            Some(after) if after <= FLOW_WAIT_MAX => {}
            Some(after) => troubles.push(format!(
                "data flowed only {:.2} s after the link was back",
                after.as_secs_f64()
            )),
            None => troubles.push("data never flowed again".to_owned()),
        }
        if self.flows_after.is_some() && self.caught_up_after.is_none() {
            troubles.push("the hub never caught up".to_owned());
        }
        troubles
    }
}

/// Writes one row per outage, then what was wrong, if anything was.
pub(crate) fn write_table(verdicts: &[Verdict], out: &mut impl Write) -> io::Result<()> {
    let seconds = |after: Option<Duration>| {
        after.map_or_else(|| "never".to_owned(), |after| format!("{:.2} s", after.as_secs_f64()))
    };
    writeln!(
        out,
        "\n{:<9} {:>6}  {:<8} {:<8} {:>8} {:>10} {:>5} {:>8} {:>9} {:>12} {:>10} {:>7}",
        "auth",
        "outage",
        "link",
        "gateway",
        "acked",
        "at the hub",
        "lost",
        "doubled",
        "in order",
        "flows after",
        "caught up",
        "resent"
    )?;
    for verdict in verdicts {
        writeln!(
            out,
            "{:<9} {:>4} s  {:<8} {:<8} {:>8} {:>10} {:>5} {:>8} {:>9} {:>12} {:>10} {:>7}",
            verdict.auth.name(),
            verdict.outage.as_secs(),
            match verdict.link {
                Link::Closed | Link::Up => "closed",
                Link::Stalled => "stalled",
            },
            if verdict.killed { "killed" } else { "lives" },
            verdict.acked,
            verdict.audit.at_hub,
            verdict.audit.lost,
            verdict.audit.doubled,
            if verdict.audit.disordered == 0 { "yes" } else { "no" },
            seconds(verdict.flows_after),
            seconds(verdict.caught_up_after),
            verdict.duplicates,
        )?;
    }
    writeln!(
        out,
        "\nflows after: from the link's return to the first reading stored during the outage;\n\
         caught up: to the hub being complete; resent: copies the gateway recognised and dropped."
    )?;
    let bad: Vec<&Verdict> = verdicts.iter().filter(|verdict| !verdict.is_good()).collect();
    if bad.is_empty() {
        writeln!(out, "All good: nothing lost, nothing doubled, everything in order.")?;
    }
    for verdict in bad {
        writeln!(
            out,
            "NOT GOOD ({}, {} s): {}",
            verdict.auth.name(),
            verdict.outage.as_secs(),
            verdict.troubles().join("; ")
        )?;
    }
    Ok(())
}
