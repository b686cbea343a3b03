//! Reads SQLite's write-ahead log without SQLite. It finds damage in the middle, which SQLite would take for the end,
//! and recovers what follows. <https://www.sqlite.org/fileformat2.html#walformat>

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

pub(super) const PAGE: usize = 4096;
const HEADER: usize = 32;
const FRAME: usize = 24;

/// One page as a transaction wrote it.
pub(super) struct Frame {
    /// Numbered from 1.
    pub page: u32,
    /// The last frame of its transaction.
    pub is_commit: bool,
    pub data: Vec<u8>,
    /// Its checksum and those of all earlier frames are correct.
    pub is_sound: bool,
}

/// The frames of the current generation, in order. Frames of earlier generations may follow them and are skipped.
pub(super) struct Frames {
    input: BufReader<File>,
    salt: Option<[u8; 8]>,
    is_big_endian: bool,
    sum: (u32, u32),
    has_header: bool,
    is_sound: bool,
}

fn word(octets: &[u8], at: usize) -> u32 {
    octets.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_be_bytes)
}

impl Frames {
    /// `None`: there is no log, or it is empty.
    pub(super) fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut input = BufReader::with_capacity(1 << 18, file);
        let mut header = [0; HEADER];
        if !fill(&mut input, &mut header)? {
            return Ok(None);
        }
        let is_big_endian = word(&header, 0) & 1 == 1;
        let sum = checksum(is_big_endian, (0, 0), &header[..24]);
        let is_sound = word(&header, 0) & !1 == 0x377f_0682 && sum == (word(&header, 24), word(&header, 28));
        let salt = if is_sound { header[16..24].try_into().ok() } else { repeated_salt(path)? };
        Ok(Some(Self { input, salt, is_big_endian, sum, has_header: is_sound, is_sound }))
    }
}

impl Iterator for Frames {
    type Item = io::Result<Frame>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut header = [0; FRAME];
            let mut data = vec![0; PAGE];
            match fill(&mut self.input, &mut header).and_then(|whole| Ok(whole && fill(&mut self.input, &mut data)?)) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
            let salt: [u8; 8] = header[8..16].try_into().unwrap_or_default();
            let is_current = *self.salt.get_or_insert(salt) == salt;
            self.sum = checksum(self.is_big_endian, self.sum, &header[..8]);
            self.sum = checksum(self.is_big_endian, self.sum, &data);
            self.is_sound &= is_current && self.sum == (word(&header, 16), word(&header, 20));
            if is_current {
                let page = word(&header, 0);
                let is_commit = word(&header, 4) != 0;
                return Some(Ok(Frame { page, is_commit, data, is_sound: self.is_sound }));
            }
        }
    }
}

/// The first salt that two frames share. It identifies the generation if the log's header, and perhaps the first frame,
/// is damaged.
fn repeated_salt(path: &Path) -> io::Result<Option<[u8; 8]>> {
    let mut input = BufReader::with_capacity(1 << 18, File::open(path)?);
    let mut header = [0; HEADER];
    let mut frame = vec![0; FRAME + PAGE];
    let mut seen: Vec<[u8; 8]> = Vec::new();
    let mut is_whole = fill(&mut input, &mut header)?;
    while is_whole && fill(&mut input, &mut frame)? {
        let salt: [u8; 8] = frame[8..16].try_into().unwrap_or_default();
        if seen.contains(&salt) {
            return Ok(Some(salt));
        }
        // After this many different salts nothing recognisable is left.
        seen.push(salt);
        is_whole = seen.len() < 100;
    }
    Ok(None)
}

fn fill(input: &mut impl Read, octets: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(octets) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn checksum(is_big_endian: bool, (mut s0, mut s1): (u32, u32), octets: &[u8]) -> (u32, u32) {
    for pair in octets.chunks_exact(8) {
        let read = |at: usize| {
            let word = word(pair, at);
            if is_big_endian { word } else { word.swap_bytes() }
        };
        s0 = s0.wrapping_add(read(0)).wrapping_add(s1);
        s1 = s1.wrapping_add(read(4)).wrapping_add(s0);
    }
    (s0, s1)
}

/// Transactions after the place where SQLite sees the log's end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Remains {
    transactions: u64,
    /// A further transaction follows the first one, or the log's header is damaged.
    are_several: bool,
    /// The number of the first of their frames.
    first: u64,
}

impl Remains {
    pub(super) fn are_any(&self) -> bool {
        self.transactions > 0
    }

    /// The number of transactions that SQLite would silently skip because the log is damaged; 0 for a log that merely
    /// ends within a transaction, as after a power failure.
    ///
    /// A transaction is synced before the next one begins. If another transaction follows one whose checksum is wrong,
    /// the wrong one was completely on the disk and was changed later.
    ///
    /// Invariant: a log with remains is emptied before anything is written to it. Otherwise the rest of such a
    /// transaction could follow another one, and both together would look like damage.
    pub(super) fn lost(&self) -> u64 {
        if self.are_several { self.transactions } else { 0 }
    }
}

pub(super) fn remains(path: &Path) -> io::Result<Remains> {
    let mut remains = Remains::default();
    let Some(frames) = Frames::open(path)? else { return Ok(remains) };
    // SQLite syncs the log's header before the first frame, so a bad header followed by a transaction was changed
    // later.
    remains.are_several = !frames.has_header;
    for (number, frame) in (0..).zip(frames) {
        let frame = frame?;
        if frame.is_sound {
            remains.first = number + 1;
            continue;
        }
        remains.are_several |= remains.are_any();
        remains.transactions += u64::from(frame.is_commit);
    }
    Ok(remains)
}

/// The same while a gateway writes to the log: a transaction that is just being written looks like damage too, but not
/// at the same place twice.
pub(super) fn remains_beside_a_writer(path: &Path) -> io::Result<Remains> {
    let mut found = remains(path)?;
    for _ in 0..LOOKS {
        let again = remains(path)?;
        if again == found || again.lost() == 0 {
            return Ok(again);
        }
        found = again;
    }
    Ok(Remains::default())
}

/// Attempts on a log that keeps changing, which shows that it is being written to.
const LOOKS: usize = 10;
