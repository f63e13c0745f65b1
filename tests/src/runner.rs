//! Runs scenarios one after another on one cluster and reports as Rust's own test runner does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, anyhow};

/// A scenario's name and what it does.
pub type Scenario<T> = (&'static str, fn(&T) -> Result<()>);

/// Runs those scenarios whose name contains one of the command line's words, or all.
pub fn run<T>(world: &T, scenarios: &[Scenario<T>], explain: impl Fn(&T) -> String) -> ExitCode {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with('-'))
        .collect();
    let wanted =
        |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    let chosen = scenarios.iter().filter(|(name, _)| wanted(name));
    let started = Instant::now();
    let (mut passed, mut failed) = (0, Vec::new());
    for (name, scenario) in chosen {
        let began = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| scenario(world)));
        let outcome = outcome.unwrap_or_else(|_| Err(anyhow!("panicked")));
        let seconds = began.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok ({seconds:.1} s)");
            }
            Err(error) => {
                println!(
                    "test {name} ... FAILED ({seconds:.1} s)\n{error:?}\n{}",
                    explain(world)
                );
                failed.push(*name);
            }
        }
    }
    summary(passed, &failed, scenarios.len(), started)
}

fn summary(passed: usize, failed: &[&str], all: usize, started: Instant) -> ExitCode {
    if !failed.is_empty() {
        println!("\nfailures:\n    {}", failed.join("\n    "));
    }
    println!(
        "\ntest result: {}. {passed} passed; {} failed; 0 ignored; 0 measured; {} filtered out; finished in {:.2}s",
        if failed.is_empty() { "ok" } else { "FAILED" },
        failed.len(),
        all - passed - failed.len(),
        started.elapsed().as_secs_f64(),
    );
    ExitCode::from(u8::from(!failed.is_empty()))
}
