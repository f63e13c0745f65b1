//! Container logs in the CRI log format: reading them for `kubectl logs`, and rotating them.
//!
//! A line is `TIME STREAM TAG CONTENT`, such as `2026-01-01T00:00:00.000000000Z stdout F hello`. Tag `P` marks a
//! part of a line that the runtime has cut; the line ends with a part tagged `F`.

mod read;
mod rotate;

pub use read::{Options, Source, stream};
pub use rotate::{Limits, run as rotate};

/// One line, or part of a line, of a log file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// RFC 3339 time with nanoseconds.
    pub time: &'a str,
    /// Whether it came from standard error.
    pub stderr: bool,
    /// Content, with the newline when the line is complete.
    pub content: &'a [u8],
}

impl<'a> Line<'a> {
    /// Parses a raw line; `None` when it is not in the CRI format.
    pub fn parse(raw: &'a [u8]) -> Option<Self> {
        let (time, rest) = cut(raw)?;
        let (stream, rest) = cut(rest)?;
        let stderr = match stream {
            b"stdout" => false,
            b"stderr" => true,
            _ => return None,
        };
        let (tags, content) = cut(rest)?;
        let partial = match tags.split(|byte| *byte == b':').next() {
            Some(b"P") => true,
            Some(b"F") => false,
            _ => return None,
        };
        let content = if partial {
            content.strip_suffix(b"\n").unwrap_or(content)
        } else {
            content
        };
        Some(Self {
            time: std::str::from_utf8(time).ok()?,
            stderr,
            content,
        })
    }
}

fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = bytes.iter().position(|byte| *byte == b' ')?;
    Some((&bytes[..at], &bytes[at + 1..]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_in_the_cri_format() {
        let whole = Line::parse(b"T stdout F hello world\n").unwrap();
        assert_eq!(
            (whole.time, whole.stderr, whole.content),
            ("T", false, b"hello world\n".as_slice())
        );
        let part = Line::parse(b"T stderr P:x hello\n").unwrap();
        assert_eq!((part.stderr, part.content), (true, b"hello".as_slice()));
        assert_eq!(Line::parse(b"T stdout F \n").unwrap().content, b"\n");
        for bad in [
            "",
            "T",
            "T stdout",
            "T stdout F",
            "T other F x",
            "T stdout X x",
        ] {
            assert_eq!(Line::parse(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(raw in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Line::parse(&raw);
        }
    }
}
