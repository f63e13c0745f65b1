//! Killed at random moments, the store loses nothing that it acknowledged.
//!
//! The test runs itself as a child that says what it is about to write and what was acknowledged, kills it with SIGKILL,
//! and opens the file again.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sluice_store::{Embedded, Expect, ListQuery, Options, Outcome, Revision, Store, Txn, Write};

const DIRECTORY: &str = "SLUICE_STORE_CRASH_DIRECTORY";
const ROUNDS: usize = 12;
const WRITERS: usize = 8;
const KEYS: usize = 5;

fn options() -> Options {
    Options {
        keep_age: Duration::ZERO,
        keep_revisions: 20,
        max_revisions: 50,
        compact_every: Duration::from_millis(5),
    }
}

#[test]
#[ignore = "the child process of the crash test"]
fn child() {
    let directory = std::env::var(DIRECTORY).expect("run by the crash test only");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let path = Path::new(&directory).join("store.redb");
        let store = Arc::new(Embedded::open(path, options()).unwrap());
        let writers: Vec<_> = (0..WRITERS)
            .map(|id| tokio::spawn(write(store.clone(), id)))
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

/// Writes and deletes its own keys for ever, one after the other. A deleted key's value is `-`.
async fn write(store: Arc<Embedded>, id: usize) {
    for count in 0.. {
        let key = format!("/{id}/{}", count % KEYS);
        let (value, write) = match count % 7 == 3 {
            true => ("-".to_owned(), Write::Delete),
            false => {
                let value = format!("{}-{id}-{count}", std::process::id());
                (value.clone(), Write::Put(Bytes::from(value)))
            }
        };
        say(&format!("try {key} {value}"));
        let txn = Txn {
            key: Bytes::from(key.clone()),
            expect: Expect::Any,
            write,
        };
        if let Outcome::Committed { revision, .. } = store.txn(txn).await.unwrap() {
            say(&format!("ack {key} {value} {revision}"));
        }
    }
}

/// The kill may cut a line off; only those that end so are whole.
fn say(line: &str) {
    std::io::stdout()
        .write_all(format!("\n{line} end\n").as_bytes())
        .unwrap();
}

/// What is known of a key.
#[derive(Default)]
struct Known {
    /// What was acknowledged last.
    value: String,
    revision: Revision,
    /// What was begun since, and may have reached the disk.
    begun: Option<String>,
}

#[derive(Default)]
struct Record {
    keys: HashMap<String, Known>,
    acknowledged: usize,
    newest: Revision,
}

impl Record {
    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["try", key, value, "end"] => {
                self.keys.entry(key.to_owned()).or_default().begun = Some(value.to_owned());
            }
            ["ack", key, value, revision, "end"] => {
                let revision = revision.parse().unwrap();
                let known = self.keys.get_mut(key).expect("begun before acknowledged");
                assert!(revision > known.revision, "the revisions of {key} go up");
                *known = Known {
                    value: value.to_owned(),
                    revision,
                    begun: None,
                };
                self.newest = self.newest.max(revision);
                self.acknowledged += 1;
            }
            _ => {}
        }
    }
}

fn spawn(directory: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([
            "child",
            "--exact",
            "--ignored",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap()
}

/// Lets the child acknowledge some writes, kills it, and notes all that it said.
fn run_and_kill(directory: &Path, writes: usize, record: &mut Record) {
    let mut child = spawn(directory);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let enough = record.acknowledged + writes;
    while record.acknowledged < enough {
        record.note(
            &lines
                .next()
                .expect("the child writes until it is killed")
                .unwrap(),
        );
    }
    child.kill().unwrap();
    lines
        .map_while(Result::ok)
        .for_each(|line| record.note(&line));
    child.wait().unwrap();
}

#[test]
fn nothing_acknowledged_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut record = Record::default();
    for round in 0..ROUNDS {
        // A number of writes that differs in each round ends in a different moment of commit and compaction.
        run_and_kill(directory.path(), 1 + round * 37 % 101, &mut record);
        runtime.block_on(check(directory.path(), &mut record));
    }
}

async fn check(directory: &Path, record: &mut Record) {
    let options = Options {
        compact_every: Duration::ZERO,
        ..options()
    };
    let store = Embedded::open(directory.join("store.redb"), options).unwrap();
    let revision = store.revision().await.unwrap();
    assert!(revision >= record.newest, "the revision never goes back");
    for (key, known) in &mut record.keys {
        let found = store.get(key.as_bytes()).await.unwrap();
        let value = found.map_or("-".to_owned(), |kv| {
            String::from_utf8(kv.value.to_vec()).unwrap()
        });
        let allowed = value == known.value
            || Some(&value) == known.begun.as_ref()
            || (known.revision == 0 && value == "-");
        assert!(
            allowed,
            "{key}: found {value}, acknowledged {}, begun {:?}",
            known.value, known.begun
        );
        // What is found now stays until the next write.
        *known = Known {
            value,
            revision: known.revision,
            begun: None,
        };
    }
    record.newest = revision;
    store.list(ListQuery::default()).await.unwrap();
    store.close().await;
}
