//! Records on disk: frames with a checksum, and a log that is appended to in batches, each of them
//! synced before anybody is told of it.
//!
//! A frame is `crc32 u32 | length u32 | position u64 | synced u64 | body`, little-endian, where the
//! checksum covers all that follows it, `position` is the frame's own offset in the file, and `synced`
//! is how much of the file was known to be on disk when the frame was written. The last two tell a torn
//! tail, which a crash leaves and nobody was told of, from damage to what was acknowledged: after a torn
//! frame there can be other frames of the same batch, but none that says the torn one had been synced.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::record::Record;

const FRAME_HEADER: usize = 24;
/// Far above the largest record: four details and an owner of at most 4 KiB each.
const MAX_BODY: usize = 64 * 1024;

/// The operations on a file that can fail. A trait, so that tests can make them fail.
pub(super) trait RawFile: Send {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

impl RawFile for File {
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}

/// Appends a frame to `out`, which will be written so that the frame starts at `position`.
pub(super) fn frame(out: &mut Vec<u8>, position: u64, synced: u64, body: &[u8]) {
    let start = out.len();
    out.extend([0; 4]);
    out.extend((body.len() as u32).to_le_bytes());
    out.extend(position.to_le_bytes());
    out.extend(synced.to_le_bytes());
    out.extend(body);
    let checksum = crc32fast::hash(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
}

struct Frame<'a> {
    synced: u64,
    body: &'a [u8],
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

fn frame_at(file: &[u8], position: usize) -> Option<Frame<'_>> {
    let bytes = file.get(position..)?;
    let length = u32_at(bytes, 4)? as usize;
    if length > MAX_BODY || u64_at(bytes, 8)? != position as u64 {
        return None;
    }
    let covered = bytes.get(4..FRAME_HEADER + length)?;
    (crc32fast::hash(covered) == u32_at(bytes, 0)?).then_some(Frame {
        synced: u64_at(bytes, 16)?,
        body: &covered[FRAME_HEADER - 4..],
    })
}

/// Why a file could not be read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The end of the file.
    End,
    /// An incomplete or damaged frame that nobody was told of.
    Torn,
    /// A damaged frame that had been synced.
    Damaged,
}

/// The records of a file in order. When it is exhausted, [`Reader::stop`] tells why.
pub(super) struct Reader<'a> {
    file: &'a [u8],
    position: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a [u8]) -> Self {
        Self { file, position: 0 }
    }

    /// Where the next frame starts: all before it was read.
    pub(super) fn position(&self) -> u64 {
        self.position as u64
    }

    pub(super) fn stop(&self) -> Stop {
        if self.position == self.file.len() {
            Stop::End
        } else if self.synced_later() {
            Stop::Damaged
        } else {
            Stop::Torn
        }
    }

    fn synced_later(&self) -> bool {
        let later = self.position + 1..self.file.len().saturating_sub(FRAME_HEADER - 1);
        later
            .filter_map(|position| frame_at(self.file, position))
            .any(|frame| frame.synced > self.position as u64)
    }
}

impl Iterator for Reader<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let frame = frame_at(self.file, self.position)?;
        let record = Record::decode(frame.body)?;
        self.position += FRAME_HEADER + frame.body.len();
        Some(record)
    }
}

/// A log that is open for appending.
pub(super) struct Log {
    file: Box<dyn RawFile>,
    length: u64,
    /// A failed append may have left bytes behind that could not be cut off yet.
    dirty: bool,
}

impl Log {
    /// A log of which the first `length` bytes are valid and on disk.
    pub(super) fn new(file: Box<dyn RawFile>, length: u64) -> Self {
        Self {
            file,
            length,
            dirty: false,
        }
    }

    /// How much is on disk.
    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// Writes the bodies (`ends` are their ends within `bodies`) and syncs. On an error the log is as
    /// it was before; what could not be cut off is cut off before the next append.
    pub(super) fn append(&mut self, bodies: &[u8], ends: &[usize]) -> io::Result<()> {
        self.clean()?;
        let mut bytes = Vec::with_capacity(bodies.len() + ends.len() * FRAME_HEADER);
        let mut start = 0;
        for &end in ends {
            let position = self.length + bytes.len() as u64;
            frame(&mut bytes, position, self.length, &bodies[start..end]);
            start = end;
        }
        let written = self.file.write_all_at(&bytes, self.length);
        match written.and_then(|()| self.file.sync()) {
            Ok(()) => self.length += bytes.len() as u64,
            Err(error) => {
                self.dirty = true;
                // The first error is the cause; a second one shows at the next append.
                let _ = self.clean();
                return Err(error);
            }
        }
        Ok(())
    }

    fn clean(&mut self) -> io::Result<()> {
        if self.dirty {
            self.file.truncate(self.length)?;
            self.file.sync()?;
            self.dirty = false;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::owner::Owner;
    use super::*;
    use proptest::prelude::*;

    fn record(n: u32) -> Record {
        Record::Release {
            owner: Owner::new(n.to_string(), "eth0"),
            at: n,
        }
    }

    fn batch(file: &mut Vec<u8>, records: &[Record]) {
        let synced = file.len() as u64;
        for record in records {
            let mut body = Vec::new();
            record.encode(&mut body);
            let position = file.len() as u64;
            frame(file, position, synced, &body);
        }
    }

    fn read(file: &[u8]) -> (usize, Stop) {
        let mut reader = Reader::new(file);
        let count = reader.by_ref().count();
        (count, reader.stop())
    }

    #[test]
    fn a_tail_torn_anywhere_is_told_from_damage() {
        let mut file = Vec::new();
        batch(&mut file, &[record(1)]);
        let acknowledged = file.len();
        batch(&mut file, &[record(2), record(3)]);
        for cut in acknowledged + 1..file.len() {
            let (count, stop) = read(&file[..cut]);
            assert!(count < 3);
            assert_ne!(stop, Stop::Damaged);
        }
        for at in 0..file.len() {
            let mut damaged = file.clone();
            damaged[at] ^= 0x40;
            let (_, stop) = read(&damaged);
            let expected = if at < acknowledged {
                Stop::Damaged
            } else {
                Stop::Torn
            };
            assert_eq!(stop, expected, "byte {at}");
        }
    }

    #[test]
    fn a_tail_of_zeros_is_torn() {
        let mut file = Vec::new();
        batch(&mut file, &[record(1)]);
        file.extend([0; 100]);
        assert_eq!(read(&file), (1, Stop::Torn));
    }

    #[test]
    fn a_batch_whose_parts_reached_the_disk_out_of_order_is_torn() {
        let mut file = Vec::new();
        batch(&mut file, &[record(1)]);
        let start = file.len();
        batch(&mut file, &[record(2), record(3)]);
        file[start..start + 30].fill(0);
        assert_eq!(read(&file), (1, Stop::Torn));
    }

    proptest! {
        #[test]
        fn garbage_is_never_a_record_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Reader::new(&bytes).count(), 0);
        }
    }
}
