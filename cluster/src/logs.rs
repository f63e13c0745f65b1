//! The last lines of a log file, for an error message that shows the cause.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

const WINDOW: u64 = 16 * 1024;

/// The last `count` lines, each indented; a note when there is nothing to show.
pub fn tail(path: &Path, count: usize) -> String {
    let text = read_end(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let shown = &lines[lines.len().saturating_sub(count)..];
    if shown.is_empty() {
        return format!("{} is empty", path.display());
    }
    let indented: Vec<String> = shown.iter().map(|line| format!("    {line}")).collect();
    format!("{} ends with:\n{}", path.display(), indented.join("\n"))
}

fn read_end(path: &Path) -> std::io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(WINDOW)))?;
    let mut bytes = Vec::new();
    file.take(WINDOW).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "one\ntwo\nthree\n").unwrap();
        let text = tail(file.path(), 2);
        assert!(
            text.ends_with("    two\n    three") && !text.contains("one"),
            "{text}"
        );
        assert!(tail(Path::new("/nonexistent"), 2).ends_with("is empty"));
    }
}
