//! Termination messages: what a container left behind when it ended, from its file or from the end of its log.

use std::collections::HashMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use super::observed::{Instance, Observed, State};
use crate::logs;

/// Bytes of a message file that are kept.
const MAX_FILE: u64 = 4096;
/// Bytes and lines of a log that stand in for a message.
const MAX_LOG: usize = 2048;
const MAX_LOG_LINES: usize = 80;

/// Messages of ended instances by instance id. `known` ones are not read again.
pub fn read(observed: &Observed, known: &HashMap<String, String>) -> HashMap<String, String> {
    let ended = observed
        .instances
        .iter()
        .filter(|instance| instance.state == State::Exited);
    let message = |instance: &Instance| {
        known
            .get(&instance.id)
            .cloned()
            .unwrap_or_else(|| of(instance))
    };
    ended
        .map(|instance| (instance.id.clone(), message(instance)))
        .collect()
}

fn of(instance: &Instance) -> String {
    let file = instance.termination_message_file.as_deref();
    let message = file
        .and_then(|file| head(Path::new(file), MAX_FILE))
        .unwrap_or_default();
    if message.is_empty() && instance.message_from_log && instance.exit_code != 0 {
        return tail_of_log(Path::new(&instance.log_path));
    }
    message
}

fn head(path: &Path, limit: u64) -> Option<String> {
    let mut data = Vec::new();
    std::fs::File::open(path)
        .ok()?
        .take(limit)
        .read_to_end(&mut data)
        .ok()?;
    Some(String::from_utf8_lossy(&data).into_owned())
}

fn tail_of_log(path: &Path) -> String {
    // Timestamps and tags make lines on disk longer than what they say.
    let raw = tail(path, 4 * MAX_LOG as u64).unwrap_or_default();
    let lines = raw
        .split_inclusive(|byte| *byte == b'\n')
        .filter_map(logs::Line::parse);
    let content: Vec<_> = lines.map(|line| line.content.to_vec()).collect();
    let last = content.len().saturating_sub(MAX_LOG_LINES);
    let joined = content[last..].concat();
    String::from_utf8_lossy(&joined[joined.len().saturating_sub(MAX_LOG)..]).into_owned()
}

fn tail(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut file = std::fs::File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit)))
        .ok()?;
    let mut data = Vec::new();
    file.read_to_end(&mut data).ok()?;
    Some(data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::running_instance;

    #[test]
    fn the_file_wins_and_the_log_stands_in_for_failures_only() {
        let directory = tempfile::tempdir().unwrap();
        let (file, log) = (
            directory.path().join("message"),
            directory.path().join("0.log"),
        );
        std::fs::write(&log, "2026-01-01T00:00:00.000000000Z stderr F panic: no\n").unwrap();
        let mut instance = Instance {
            state: State::Exited,
            exit_code: 1,
            termination_message_file: Some(file.to_string_lossy().into_owned()),
            log_path: log.to_string_lossy().into_owned(),
            message_from_log: true,
            ..running_instance("c", "id")
        };
        assert_eq!(of(&instance), "panic: no\n");
        std::fs::write(&file, "x".repeat(5000)).unwrap();
        assert_eq!(of(&instance), "x".repeat(4096));
        std::fs::write(&file, "").unwrap();
        instance.exit_code = 0;
        assert_eq!(of(&instance), "");
    }
}
