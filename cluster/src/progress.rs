//! What `sluice up` is doing: a line that moves on a terminal, a line per finished step everywhere.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const TICK: Duration = Duration::from_millis(80);

/// One step; it says how it ended, also when it is left early.
pub struct Step {
    what: Cow<'static, str>,
    bar: ProgressBar,
    started: Instant,
    ended: bool,
}

impl Step {
    /// Begins a step.
    pub fn begin(what: impl Into<Cow<'static, str>>) -> Self {
        let what = what.into();
        let bar = if io::stdout().is_terminal() {
            ProgressBar::new_spinner()
        } else {
            ProgressBar::hidden()
        };
        if let Ok(style) = ProgressStyle::with_template("  {spinner} {prefix:32} {msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(what.to_string());
        bar.enable_steady_tick(TICK);
        Self {
            what,
            bar,
            started: Instant::now(),
            ended: false,
        }
    }

    /// Says how far it is.
    pub fn message(&self, message: impl Into<Cow<'static, str>>) {
        self.bar.set_message(message);
    }

    /// Ends it well, with a remark.
    pub fn done(mut self, remark: &str) {
        self.end("ok", remark);
    }

    fn end(&mut self, outcome: &str, remark: &str) {
        self.ended = true;
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        say(&format!(
            "{outcome:>4}  {:32} {seconds:6.2} s  {remark}",
            self.what
        ));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.end("FAIL", "");
        }
    }
}

/// Runs a step whose success needs no remark.
pub fn step<T>(what: &'static str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let step = Step::begin(what);
    let value = work()?;
    step.done("");
    Ok(value)
}

/// Prints a line. A reader that went away, as `head` does, is no reason to stop half-way.
pub fn say(text: &str) {
    let _ = writeln!(io::stdout(), "{}", text.trim_end());
}
