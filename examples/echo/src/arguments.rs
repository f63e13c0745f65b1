//! Command line words: options with a value, switches, and at most one bare word.

use std::collections::HashMap;
use std::str::FromStr;

const SWITCHES: [&str; 3] = ["keep", "json", "continuous"];
const OPTIONS: [&str; 8] = [
    "port",
    "drain-ms",
    "requests",
    "concurrency",
    "timeout-ms",
    "pause-ms",
    "duration-ms",
    "interval-ms",
];

/// The words after the mode.
#[derive(Default)]
pub struct Arguments {
    bare: Option<String>,
    options: HashMap<String, String>,
}

impl Arguments {
    /// Sorts the words; an unknown option or a second bare word is an error that names it.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self::default();
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some(option) => parsed.option(option, &mut words)?,
                None if parsed.bare.is_none() => parsed.bare = Some(word),
                None => return Err(format!("unexpected word {word:?}")),
            }
        }
        Ok(parsed)
    }

    fn option(
        &mut self,
        option: &str,
        words: &mut impl Iterator<Item = String>,
    ) -> Result<(), String> {
        let (name, inline) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (option, None),
        };
        let value = if SWITCHES.contains(&name) {
            Some(inline.unwrap_or_else(|| "true".into()))
        } else if OPTIONS.contains(&name) {
            inline.or_else(|| words.next())
        } else {
            return Err(format!("unknown option --{name}"));
        };
        let value = value.ok_or_else(|| format!("--{name} needs a value"))?;
        self.options.insert(name.to_string(), value);
        Ok(())
    }

    /// The bare word, or an error that says what was expected in its place.
    pub fn bare(&self, what: &str) -> Result<&str, String> {
        self.bare
            .as_deref()
            .ok_or_else(|| format!("{what} is missing"))
    }

    /// An option's value, or its default.
    pub fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        match self.options.get(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .map_err(|_| format!("--{name}: {text:?} is not a valid value")),
        }
    }

    /// Whether a switch was given.
    pub fn has(&self, name: &str) -> bool {
        self.options.get(name).is_some_and(|value| value == "true")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Arguments, String> {
        Arguments::parse(words.iter().map(ToString::to_string))
    }

    #[test]
    fn options_switches_and_one_bare_word_are_told_apart() {
        let arguments = parse(&["http://a", "--requests", "5", "--keep", "--port=9"]).unwrap();
        assert_eq!(arguments.bare("URL"), Ok("http://a"));
        assert_eq!(arguments.get("requests", 1), Ok(5));
        assert_eq!(arguments.get("port", 1), Ok(9));
        assert_eq!(arguments.get("concurrency", 7), Ok(7));
        assert!(arguments.has("keep") && !arguments.has("json"));
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(parse(&["--nope"]).err().unwrap(), "unknown option --nope");
        assert_eq!(parse(&["--port"]).err().unwrap(), "--port needs a value");
        assert!(parse(&["a", "b"]).is_err());
        assert!(parse(&["--port", "x"]).unwrap().get("port", 1u16).is_err());
    }
}
