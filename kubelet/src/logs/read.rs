//! Reading a container's log: from the end, from a time, to a limit, and on as it grows.

use std::io::SeekFrom;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use k8s_openapi::jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncSeekExt, BufReader};
use tokio::sync::mpsc;

use super::Line;

/// How often a followed log is looked at. The file is written by the runtime, possibly on a file system without
/// notifications, so polling is what always works.
const POLL: Duration = Duration::from_millis(100);
/// Block in which the end of a file is searched for line ends.
const BLOCK: u64 = 64 * 1024;

/// What `kubectl logs` can ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Go on as the log grows, until the container ends.
    pub follow: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail: Option<u64>,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// At most this many bytes.
    pub limit: Option<u64>,
}

/// Where a log is, and whether it may still grow.
#[async_trait::async_trait]
pub trait Source: Send + Sync + 'static {
    /// Whether the container that writes the log still runs.
    async fn is_running(&self) -> bool;
}

/// Streams a log; ends at its end, or, when following, when the container has ended.
///
/// # Errors
/// When the file can't be opened.
pub async fn stream<S: Source>(
    path: PathBuf,
    options: Options,
    source: S,
) -> std::io::Result<impl Stream<Item = std::io::Result<Bytes>> + use<S>> {
    let file = open(&path, options).await?;
    let (sender, receiver) = mpsc::channel(16);
    let mut reader = Reader {
        path,
        options,
        left: options.limit,
        at_line_start: true,
        out: Vec::new(),
        sender,
    };
    tokio::spawn(async move {
        if let Err(error) = reader.run(file, &source).await {
            let _ = reader.sender.send(Err(error)).await;
        }
    });
    Ok(tokio_stream::wrappers::ReceiverStream::new(receiver))
}

async fn open(path: &Path, options: Options) -> std::io::Result<File> {
    let mut file = File::open(path).await?;
    if let Some(lines) = options.tail {
        let start = tail_offset(&mut file, lines).await?;
        file.seek(SeekFrom::Start(start)).await?;
    }
    Ok(file)
}

/// Offset at which the last `lines` lines start.
async fn tail_offset(file: &mut File, lines: u64) -> std::io::Result<u64> {
    let length = file.metadata().await?.len();
    let (mut end, mut found) = (length, 0);
    let mut buffer = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        file.seek(SeekFrom::Start(start)).await?;
        buffer.clear();
        (&mut *file)
            .take(end - start)
            .read_to_end(&mut buffer)
            .await?;
        for (index, _) in buffer
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
        {
            let after = start + index as u64 + 1;
            // The newline at the very end closes the last line, it does not begin another.
            if after == length {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(after);
            }
        }
        end = start;
    }
    Ok(if lines == 0 { length } else { 0 })
}

struct Reader {
    path: PathBuf,
    options: Options,
    left: Option<u64>,
    at_line_start: bool,
    out: Vec<u8>,
    sender: mpsc::Sender<std::io::Result<Bytes>>,
}

impl Reader {
    async fn run(&mut self, file: File, source: &dyn Source) -> std::io::Result<()> {
        let mut inode = file.metadata().await?.ino();
        let mut file = BufReader::new(file);
        let mut raw = Vec::new();
        loop {
            // Asked before reading: what was written before the end is then read for sure.
            let running = self.options.follow && source.is_running().await;
            if !self.drain(&mut file, &mut raw).await? || !running {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
            if let Some((fresh, fresh_inode)) = self.rotated(inode).await {
                // Whatever came into the old file between the last read and its renaming.
                if !self.drain(&mut file, &mut raw).await? {
                    return Ok(());
                }
                (file, inode) = (BufReader::new(fresh), fresh_inode);
            }
        }
    }

    /// The new file, when the log was rotated.
    async fn rotated(&self, inode: u64) -> Option<(File, u64)> {
        let fresh = File::open(&self.path).await.ok()?;
        let fresh_inode = fresh.metadata().await.ok()?.ino();
        (fresh_inode != inode).then_some((fresh, fresh_inode))
    }

    /// Sends all complete lines that there are; false when nobody listens any more or the limit is reached.
    async fn drain(
        &mut self,
        file: &mut BufReader<File>,
        raw: &mut Vec<u8>,
    ) -> std::io::Result<bool> {
        while file.read_until(b'\n', raw).await? > 0 {
            if !raw.ends_with(b"\n") {
                // The runtime is in the middle of writing it.
                break;
            }
            self.take(raw);
            raw.clear();
            if (self.out.len() >= BLOCK as usize || self.left == Some(0)) && !self.send().await {
                return Ok(false);
            }
        }
        Ok(self.send().await)
    }

    fn take(&mut self, raw: &[u8]) {
        let Some(line) = Line::parse(raw) else { return };
        let wanted = self
            .options
            .since
            .is_none_or(|since| line.time.parse::<Timestamp>().is_ok_and(|at| at >= since));
        if !wanted {
            return;
        }
        if self.options.timestamps && self.at_line_start {
            self.push(line.time.as_bytes());
            self.push(b" ");
        }
        self.at_line_start = line.content.ends_with(b"\n");
        self.push(line.content);
    }

    fn push(&mut self, bytes: &[u8]) {
        let room = self.left.map_or(bytes.len(), |left| {
            usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len())
        });
        self.out.extend_from_slice(&bytes[..room]);
        self.left = self.left.map(|left| left - room as u64);
    }

    async fn send(&mut self) -> bool {
        if self.sender.is_closed() {
            return false;
        }
        if !self.out.is_empty() {
            let chunk = Bytes::from(std::mem::take(&mut self.out));
            if self.sender.send(Ok(chunk)).await.is_err() {
                return false;
            }
        }
        self.left != Some(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use futures::{StreamExt, TryStreamExt};

    use super::*;

    #[derive(Clone, Default)]
    struct Running(Arc<AtomicBool>);

    #[async_trait::async_trait]
    impl Source for Running {
        async fn is_running(&self) -> bool {
            self.0.load(Ordering::SeqCst)
        }
    }

    fn line(second: u32, text: &str) -> String {
        format!("2026-01-01T00:00:{second:02}.000000000Z stdout F {text}\n")
    }

    async fn read(path: &Path, options: Options) -> String {
        let stream = stream(path.to_owned(), options, Running::default())
            .await
            .unwrap();
        let chunks: Vec<Bytes> = stream.try_collect().await.unwrap();
        String::from_utf8(chunks.concat()).unwrap()
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[tokio::test]
    async fn options_select_what_is_shown() {
        let log = file(&(0..5).map(|n| line(n, &n.to_string())).collect::<String>());
        let of = async |options| read(log.path(), options).await;
        assert_eq!(of(Options::default()).await, "0\n1\n2\n3\n4\n");
        assert_eq!(
            of(Options {
                tail: Some(2),
                ..Default::default()
            })
            .await,
            "3\n4\n"
        );
        assert_eq!(
            of(Options {
                tail: Some(0),
                ..Default::default()
            })
            .await,
            ""
        );
        assert_eq!(
            of(Options {
                tail: Some(9),
                ..Default::default()
            })
            .await,
            "0\n1\n2\n3\n4\n"
        );
        assert_eq!(
            of(Options {
                limit: Some(3),
                ..Default::default()
            })
            .await,
            "0\n1"
        );
        let since = "2026-01-01T00:00:03Z".parse().ok();
        assert_eq!(
            of(Options {
                since,
                ..Default::default()
            })
            .await,
            "3\n4\n"
        );
        let timed = of(Options {
            timestamps: true,
            tail: Some(1),
            ..Default::default()
        })
        .await;
        assert_eq!(timed, "2026-01-01T00:00:04.000000000Z 4\n");
    }

    #[tokio::test]
    async fn cut_lines_are_joined_and_garbage_is_left_out() {
        let log = file("T stdout P ab\ngarbage\nT stdout F cd\nT stdout F half");
        assert_eq!(read(log.path(), Options::default()).await, "abcd\n");
    }

    #[tokio::test]
    async fn a_tail_longer_than_a_block_is_found() {
        let log = file(
            &(0..4000)
                .map(|n| line(n % 60, &format!("{n:0100}")))
                .collect::<String>(),
        );
        let text = read(
            log.path(),
            Options {
                tail: Some(3000),
                ..Default::default()
            },
        )
        .await;
        assert_eq!(text.lines().count(), 3000);
        assert!(text.starts_with(&format!("{:0100}\n", 1000)));
    }

    #[tokio::test]
    async fn following_goes_on_over_a_rotation_until_the_container_ends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0.log");
        std::fs::write(&path, line(0, "a")).unwrap();
        let running = Running(Arc::new(AtomicBool::new(true)));
        let options = Options {
            follow: true,
            ..Default::default()
        };
        let mut stream = Box::pin(
            stream(path.clone(), options, running.clone())
                .await
                .unwrap(),
        );
        assert_eq!(stream.next().await.unwrap().unwrap(), "a\n");
        std::fs::rename(&path, directory.path().join("0.log.old")).unwrap();
        std::fs::write(&path, line(1, "b")).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap(), "b\n");
        running.0.store(false, Ordering::SeqCst);
        assert!(stream.next().await.is_none());
    }
}
