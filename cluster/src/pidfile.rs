//! Pid files that can't be fooled: beside the number they hold when the process was started and in which
//! boot, so that a number that was given to another process is seen for what it is.

use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A process, identified for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// Its number.
    pub pid: i32,
    /// Clock ticks between boot and its start (field 22 of proc_pid_stat(5)).
    start_ticks: u64,
    boot_id: String,
}

impl Identity {
    /// Identifies a running process; a zombie does not run.
    pub fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (state, start_ticks) = parse_stat(&stat)
            .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat has an unknown form")))?;
        if matches!(state, 'Z' | 'X') {
            return Err(io::ErrorKind::NotFound.into());
        }
        let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        Ok(Self {
            pid,
            start_ticks,
            boot_id: boot_id.trim().to_string(),
        })
    }

    /// Whether that very process still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }
}

/// State letter and start time. The command's name stands in parentheses and may hold blanks and parentheses itself.
fn parse_stat(stat: &str) -> Option<(char, u64)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    Some((
        fields.first()?.chars().next()?,
        fields.get(19)?.parse().ok()?,
    ))
}

/// The file in which an identity is kept.
#[derive(Clone, Debug)]
pub struct PidFile(PathBuf);

impl PidFile {
    /// The file at that path.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The process, if it still runs.
    pub fn running(&self) -> Option<Identity> {
        let text = fs::read(&self.0).ok()?;
        let identity: Identity = serde_json::from_slice(&text).ok()?;
        identity.is_alive().then_some(identity)
    }

    /// Keeps the identity; readers see the old file or the new one, never half of it.
    pub fn write(&self, identity: &Identity) -> io::Result<()> {
        let temporary = self.0.with_extension("new");
        fs::write(&temporary, serde_json::to_vec(identity)?)?;
        fs::rename(temporary, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_name_can_not_confuse_the_parser() {
        let fields: Vec<String> = (4..=52).map(|number| number.to_string()).collect();
        let stat = format!("1 (a) b (c) S {}", fields.join(" "));
        assert_eq!(parse_stat(&stat), Some(('S', 22)));
        assert_eq!(parse_stat("1 (a"), None);
        assert_eq!(parse_stat("1 (a) S"), None);
    }

    #[test]
    fn a_reused_number_is_not_the_same_process() {
        let directory = tempfile::tempdir().unwrap();
        let file = PidFile::new(directory.path().join("x.pid"));
        let mut identity = Identity::of(std::process::id() as i32).unwrap();
        file.write(&identity).unwrap();
        assert_eq!(file.running(), Some(identity.clone()));
        identity.start_ticks += 1;
        file.write(&identity).unwrap();
        assert_eq!(file.running(), None);
    }

    #[test]
    fn a_zombie_does_not_run() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id() as i32;
        let zombie = || {
            fs::read_to_string(format!("/proc/{pid}/stat"))
                .unwrap()
                .contains(") Z")
        };
        while !zombie() {
            std::thread::yield_now();
        }
        assert!(Identity::of(pid).is_err());
        child.wait().unwrap();
    }
}
