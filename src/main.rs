//! The `sluice` command line: parses arguments, starts the part that was asked for, turns errors into exit codes.

fn main() {}
