//! The file of `waxseal queue export`: records one after the other, each with a digest over itself and all before it, and a last
//! one that says how many there are. docs/backup.md describes it. Pure over a reader or a writer; keeps one record in memory.

use super::portable::{PortableContent, PortableHistory, PortableKey, PortableMail};
use super::{HeldLane, QueueError};
use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read, Write};

/// What the first line says before the version.
const MAGIC: &str = "waxseal queue export ";
const VERSION: u32 = 1;
/// Of a line with the lengths of a record, in octets.
const MAX_LINE: u64 = 256;
/// Of the JSON of a record. A message with a hundred thousand recipients has less.
const MAX_JSON: u64 = 64 << 20;
/// Of the texts of a record. Listeners accept less.
const MAX_OCTETS: u64 = 4 << 30;
/// Octets kept of a SHA-256: a random match has a probability of 1 in 2^128.
const DIGEST: usize = 16;

/// What is exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExportItem {
    Holds(Vec<HeldLane>),
    Mail(Box<PortableMail>),
    Key(PortableKey),
    History(PortableHistory),
    /// A message that is not what was stored, and is left out.
    Damaged {
        id: String,
        reason: String,
    },
    /// A message that was delivered or removed while it was to be read.
    Ended,
}

/// How many there are of each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportCounts {
    pub messages: u64,
    pub history: u64,
    pub keys: u64,
    pub holds: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ExportFileError {
    #[error("it is not a file of `waxseal queue export`")]
    Foreign,
    #[error(
        "it has version {0} of the format, and this program knows version {VERSION}: use the waxseal that wrote it, or a newer one"
    )]
    Version(String),
    #[error("it ends after {records} records, before its last one: it was cut off")]
    Cut { records: u64 },
    #[error("record {record} is damaged: {what}")]
    Damaged { record: u64, what: String },
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why an export ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error(transparent)]
    Queue(#[from] QueueError),
    #[error("the database cannot be read: {0}")]
    Unreadable(String),
    #[error("the export cannot be written: {0}")]
    Write(#[from] io::Error),
}

/// Of a message, in front of its own fields.
#[derive(Serialize, Deserialize)]
struct MailRecord {
    header: u64,
    body: u64,
    original: Option<u64>,
    mail: PortableMail,
}

pub struct ExportWriter<W> {
    to: W,
    chain: Vec<u8>,
    counts: ExportCounts,
}

impl<W: Write> ExportWriter<W> {
    pub fn begin(mut to: W) -> io::Result<Self> {
        let first = format!("{MAGIC}{VERSION}\n");
        to.write_all(first.as_bytes())?;
        Ok(Self { to, chain: first.into_bytes(), counts: ExportCounts::default() })
    }

    /// What cannot be exported is not written.
    pub fn write(&mut self, item: &ExportItem) -> io::Result<()> {
        match item {
            ExportItem::Holds(holds) => {
                self.counts.holds += holds.len() as u64;
                self.record("holds", holds, &[])
            }
            ExportItem::Mail(mail) => {
                self.counts.messages += 1;
                let PortableContent { header, body, original } = &mail.content;
                let length = |octets: &Bytes| octets.len() as u64;
                let (header_length, body_length) = (length(header), length(body));
                let record = MailRecord {
                    header: header_length,
                    body: body_length,
                    original: original.as_ref().map(length),
                    mail: PortableMail { content: PortableContent::default(), ..(**mail).clone() },
                };
                let original = original.as_deref().unwrap_or_default();
                self.record("message", &record, &[header, body, original])
            }
            ExportItem::Key(key) => {
                self.counts.keys += 1;
                self.record("key", key, &[])
            }
            ExportItem::History(row) => {
                self.counts.history += 1;
                self.record("history", row, &[])
            }
            ExportItem::Damaged { .. } | ExportItem::Ended => Ok(()),
        }
    }

    /// The file is whole when this returns `Ok`.
    pub fn end(mut self) -> io::Result<(W, ExportCounts)> {
        self.record("end", &self.counts.clone(), &[])?;
        self.to.flush()?;
        Ok((self.to, self.counts))
    }

    fn record(&mut self, kind: &str, value: &impl Serialize, octets: &[&[u8]]) -> io::Result<()> {
        let json = serde_json::to_vec(value).map_err(io::Error::other)?;
        let length: usize = octets.iter().map(|part| part.len()).sum();
        let head = format!("{kind} {} {length}", json.len());
        let digest = digest([&self.chain, head.as_bytes(), &json], octets);
        writeln!(self.to, "{head} {}", hexadecimal(&digest))?;
        self.to.write_all(&json)?;
        self.to.write_all(b"\n")?;
        octets.iter().try_for_each(|part| self.to.write_all(part))?;
        self.to.write_all(b"\n")?;
        self.chain = digest;
        Ok(())
    }
}

pub struct ExportReader<R> {
    from: R,
    chain: Vec<u8>,
    records: u64,
    counts: ExportCounts,
    is_ended: bool,
}

impl<R: BufRead> ExportReader<R> {
    pub fn begin(mut from: R) -> Result<Self, ExportFileError> {
        let first = line(&mut from)?.ok_or(ExportFileError::Foreign)?;
        let version = first.strip_prefix(MAGIC).ok_or(ExportFileError::Foreign)?;
        if version != VERSION.to_string() {
            return Err(ExportFileError::Version(version.escape_debug().take(20).collect()));
        }
        let chain = format!("{first}\n").into_bytes();
        Ok(Self { from, chain, records: 0, counts: ExportCounts::default(), is_ended: false })
    }

    /// What was read so far.
    pub fn counts(&self) -> ExportCounts {
        self.counts
    }

    /// `None`: the file is at its end and whole. After an error nothing more can be read.
    pub fn next(&mut self) -> Result<Option<ExportItem>, ExportFileError> {
        if self.is_ended {
            return Ok(None);
        }
        let (kind, json, octets) = self.record()?;
        let item = match kind.as_str() {
            "holds" => {
                let holds: Vec<HeldLane> = self.parsed(&json)?;
                self.counts.holds += holds.len() as u64;
                ExportItem::Holds(holds)
            }
            "message" => {
                self.counts.messages += 1;
                ExportItem::Mail(Box::new(self.mail(&json, octets)?))
            }
            "key" => {
                let key: PortableKey = self.parsed(&json)?;
                key.key().ok_or_else(|| self.damaged("its key is not 64 hexadecimal digits"))?;
                self.counts.keys += 1;
                ExportItem::Key(key)
            }
            "history" => {
                self.counts.history += 1;
                ExportItem::History(self.parsed(&json)?)
            }
            "end" => {
                let told: ExportCounts = self.parsed(&json)?;
                if told != self.counts || !self.from.fill_buf()?.is_empty() {
                    return Err(self.damaged("what comes before or after it does not belong to it"));
                }
                self.is_ended = true;
                return Ok(None);
            }
            _ => return Err(self.damaged("its kind is not known")),
        };
        Ok(Some(item))
    }

    fn mail(&self, json: &[u8], octets: Bytes) -> Result<PortableMail, ExportFileError> {
        let MailRecord { header, body, original, mut mail } = self.parsed(json)?;
        let lengths = [Some(header), Some(body), original].into_iter().flatten();
        let whole = lengths.fold(0_u64, u64::saturating_add);
        if whole != octets.len() as u64 {
            return Err(self.damaged("its parts are not as long as it says"));
        }
        // Both are at most the length of what is in memory.
        let (header, body) = (header as usize, (header + body) as usize);
        mail.content = PortableContent {
            header: octets.slice(..header),
            body: octets.slice(header..body),
            original: original.map(|_| octets.slice(body..)),
        };
        mail.check().map_err(|what| self.damaged(&what))?;
        Ok(mail)
    }

    fn parsed<T: DeserializeOwned>(&self, json: &[u8]) -> Result<T, ExportFileError> {
        serde_json::from_slice(json).map_err(|error| self.damaged(&error.to_string()))
    }

    fn record(&mut self) -> Result<(String, Vec<u8>, Bytes), ExportFileError> {
        self.records += 1;
        let head = match line(&mut self.from) {
            Err(ExportFileError::Foreign) => return Err(self.damaged("it does not begin as a record")),
            head => head?.ok_or_else(|| self.cut())?,
        };
        let (told, expected) = head.rsplit_once(' ').ok_or_else(|| self.damaged("it does not begin as a record"))?;
        let mut words = told.split(' ');
        let mut next = || words.next().unwrap_or_default();
        let (kind, lengths) = (next().to_owned(), [next().parse::<u64>(), next().parse::<u64>()]);
        let [Ok(json), Ok(octets)] = lengths else { return Err(self.damaged("it does not begin as a record")) };
        if json > MAX_JSON || octets > MAX_OCTETS {
            return Err(self.damaged("it is longer than any record"));
        }
        let json = self.octets(json)?;
        let octets = self.octets(octets)?;
        let digest = digest([&self.chain, told.as_bytes(), &json], &[&octets]);
        if hexadecimal(&digest) != expected {
            return Err(self.damaged("its digest does not fit: it was changed, or records before it are missing"));
        }
        self.chain = digest;
        Ok((kind, json, octets.into()))
    }

    /// So many octets and the end of a line. Takes no more memory than there is to read.
    fn octets(&mut self, length: u64) -> Result<Vec<u8>, ExportFileError> {
        let mut octets = Vec::new();
        (&mut self.from).take(length + 1).read_to_end(&mut octets)?;
        if octets.len() as u64 != length + 1 {
            return Err(self.cut());
        }
        if octets.pop() != Some(b'\n') {
            return Err(self.damaged("it is longer than it says"));
        }
        Ok(octets)
    }

    fn damaged(&self, what: &str) -> ExportFileError {
        ExportFileError::Damaged { record: self.records, what: what.to_owned() }
    }

    fn cut(&self) -> ExportFileError {
        ExportFileError::Cut { records: self.records - 1 }
    }
}

/// Without its end. `None`: the file ends before it.
fn line(from: &mut impl BufRead) -> Result<Option<String>, ExportFileError> {
    let mut line = Vec::new();
    from.take(MAX_LINE).read_until(b'\n', &mut line)?;
    match line.pop() {
        Some(b'\n') => String::from_utf8(line).map(Some).map_err(|_| ExportFileError::Foreign),
        Some(_) if line.len() as u64 + 1 == MAX_LINE => Err(ExportFileError::Foreign),
        _ => Ok(None),
    }
}

/// `octets`: in parts, which count as one.
fn digest(parts: [&[u8]; 3], octets: &[&[u8]]) -> Vec<u8> {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let length: usize = octets.iter().map(|part| part.len()).sum();
    context.update(&(length as u64).to_be_bytes());
    octets.iter().for_each(|part| context.update(part));
    context.finish().as_ref()[..DIGEST].to_vec()
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests;
