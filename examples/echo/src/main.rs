//! `echo serve` answers with the name of its pod and node; `echo load` sends requests to it and counts
//! which pod answered, how long it took and what failed. One static binary without an async runtime,
//! because it has to be understood in one sitting and copied into an image by itself.

mod arguments;
mod histogram;
mod http;
mod load;
mod report;
mod serve;
mod signals;

use std::process::ExitCode;

use arguments::Arguments;

const USAGE: &str = "usage:
  echo serve [--port 8080] [--drain-ms 1000]
  echo get URL
  echo load URL [--requests 10000] [--concurrency 16] [--keep] [--timeout-ms 2000] [--json]
  echo load URL --continuous [--duration-ms 10000] [--interval-ms 100] [--concurrency 4]
                     [--pause-ms 0] [--keep]

URL is http://ADDRESS[:PORT][/PATH] or udp://ADDRESS:PORT; an IPv6 address stands in brackets.
--continuous prints one JSON line per interval; without it a summary is printed at the end.";

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let outcome = match words.next().as_deref() {
        Some("serve") => Arguments::parse(words).and_then(serve::run),
        Some("load") => Arguments::parse(words).and_then(load::run),
        Some("get") => Arguments::parse(words).and_then(load::get),
        Some("help" | "--help" | "-h") => {
            println!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        _ => Err(USAGE.to_string()),
    };
    outcome.unwrap_or_else(|message| {
        eprintln!("{message}");
        ExitCode::from(2)
    })
}
