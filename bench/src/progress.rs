//! One line on the terminal that says what is being measured; plain lines where there is no terminal.

use std::cell::Cell;
use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::Instant;

/// The display.
pub struct Progress {
    begun: Instant,
    steps: u32,
    done: Cell<u32>,
    terminal: bool,
}

impl Progress {
    /// For about so many steps.
    pub fn new(steps: u32) -> Self {
        Self {
            begun: Instant::now(),
            steps,
            done: Cell::new(0),
            terminal: stderr().is_terminal(),
        }
    }

    /// A new step begins.
    pub fn step(&self, what: &str) {
        let done = self.done.get();
        self.done.set(done + 1);
        let percent = (done * 100 / self.steps.max(1)).min(99);
        let seconds = self.begun.elapsed().as_secs();
        let line = format!("[{percent:2}%] {seconds:3} s  {what}");
        if self.terminal {
            eprint!("\r\x1b[K{line}");
            let _ = stderr().flush();
        } else {
            eprintln!("{line}");
        }
    }

    /// Takes the line away.
    pub fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
