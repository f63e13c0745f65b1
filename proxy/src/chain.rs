//! Errors in one line.

use std::error::Error;

/// An error with its causes, as `a: b: c`. A cause that its parent's text already ends with is not
/// said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::chain;
    use crate::maps::MapError;

    #[test]
    fn causes_follow_once_each() {
        let source = io::Error::other("out of luck");
        let error = MapError::Kernel {
            map: "slots",
            operation: "write",
            source,
        };
        assert_eq!(chain(&error), "cannot write map slots: out of luck");
    }
}
