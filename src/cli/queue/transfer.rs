//! `waxseal queue export` and `import`: the whole queue as a file, for a backup, or to move it to another machine or backend.

use super::print_json;
use super::progress::ProgressDisplay;
use crate::cli::{PROBLEM_FOUND, complain, unreadable};
use crate::config::QueueLocation;
use crate::gateway::backend::{self, BackendOptions};
use crate::gateway::lock::{Lock, refuse_other_users};
use crate::gateway::prepare_data_dir;
use crate::observe::log::Clean;
use crate::queue::export_file::{ExportCounts, ExportFileError, ExportItem, ExportReader, ExportWriter};
use crate::queue::portable::{ImportSource, Imported, PortableHistory, PortableKey, PortableMail};
use crate::queue::{Backend, HeldLane, Lane};
use crate::text::counted;
use anyhow::{Context as _, bail};
use serde_json::json;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, ErrorKind, IsTerminal as _, Read, Seek as _, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::task::JoinSet;

/// Messages that are stored with one sync.
const MOST: usize = 64;
/// Octets of messages in memory, beyond which no further one is read.
const MOST_OCTETS: u64 = 8 << 20;
/// Rows that are stored at once.
const MOST_ROWS: usize = 200;

#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The file to write, which must not exist; "-" is standard output
    file: PathBuf,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// The file to read; "-" is standard input
    file: PathBuf,

    /// Only look whether the file is whole
    #[arg(long)]
    check: bool,

    /// Print JSON, for programs
    #[arg(long)]
    json: bool,
}

fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

// Export.

/// Where an export goes. A file that is not whole is removed.
struct ExportTarget {
    to: Box<dyn Write + Send>,
    file: Option<(File, PathBuf)>,
}

impl ExportTarget {
    fn open(path: &Path) -> anyhow::Result<Self> {
        if is_standard(path) {
            if io::stdout().is_terminal() {
                bail!("messages are not written to a terminal; name a file, or redirect the output");
            }
            return Ok(Self { to: Box::new(BufWriter::new(io::stdout())), file: None });
        }
        let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = match opened {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("{} exists already; name another file, or remove it first", path.display())
            }
            opened => opened.with_context(|| format!("{} cannot be written", path.display()))?,
        };
        let kept = file.try_clone()?;
        Ok(Self { to: Box::new(BufWriter::with_capacity(256 * 1024, file)), file: Some((kept, path.to_owned())) })
    }
}

/// What an export could not take.
#[derive(Default)]
struct LeftOut {
    damaged: Vec<(String, String)>,
    ended: u64,
}

pub async fn export(args: &ExportArgs, location: QueueLocation) -> anyhow::Result<ExitCode> {
    let data_dir = location.data_dir.clone();
    if !backend::exists(&location).with_context(|| format!("the queue in {} cannot be read", data_dir.display()))? {
        bail!("there is no queue in {}; name the configuration's file with --config", data_dir.display());
    }
    refuse_other_users(&data_dir)?;
    let ExportTarget { to, file } = ExportTarget::open(&args.file)?;
    let written = write_export(to, location).await;
    let synced = written.and_then(|written| {
        if let Some((file, path)) = &file {
            file.sync_all()?;
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
        }
        Ok(written)
    });
    let (counts, left_out) = synced.inspect_err(|_| {
        if let Some((_, path)) = &file {
            let _an_incomplete_file_is_noticed = fs::remove_file(path);
        }
    })?;
    report_export(args, &counts, &left_out)
}

async fn write_export(to: Box<dyn Write + Send>, location: QueueLocation) -> anyhow::Result<(ExportCounts, LeftOut)> {
    let mut writer = ExportWriter::begin(to)?;
    let mut left_out = LeftOut::default();
    let progress = parking_lot::Mutex::new(None);
    let begin = |all| *progress.lock() = Some(ProgressDisplay::start("exporting messages", Some(all)));
    let mut each = |item: ExportItem| {
        if let (ExportItem::Mail(_) | ExportItem::Damaged { .. } | ExportItem::Ended, Some(bar)) =
            (&item, &*progress.lock())
        {
            bar.advance(1);
        }
        writer.write(&item)?;
        match item {
            ExportItem::Damaged { id, reason } => left_out.damaged.push((id, reason)),
            ExportItem::Ended => left_out.ended += 1,
            _ => {}
        }
        Ok(())
    };
    backend::export(location, begin, &mut each).await?;
    let (_, counts) = writer.end()?;
    Ok((counts, left_out))
}

fn report_export(args: &ExportArgs, counts: &ExportCounts, left_out: &LeftOut) -> anyhow::Result<ExitCode> {
    let LeftOut { damaged, ended } = left_out;
    for (id, reason) in damaged {
        complain(format_args!("{} is damaged and left out: {}", Clean(id), Clean(reason)));
    }
    let text = format!(
        "{}, {} of history, {} of deduplication.{}\n",
        counted(counts.messages, "message"),
        counted(counts.history, "row"),
        counted(counts.keys, "key"),
        match ended {
            0 => String::new(),
            ended => format!(" {} delivered or removed meanwhile.", was(*ended)),
        }
    );
    let damaged: Vec<_> = damaged.iter().map(|(id, reason)| json!({ "id": id, "reason": reason })).collect();
    let is_whole = damaged.is_empty();
    match (is_standard(&args.file), args.json) {
        (true, _) => eprint!("{text}"),
        (false, true) => print_json(&json!({ "written": counts, "damaged": damaged, "ended": ended }))?,
        (false, false) => super::print(format!("Written to {}: {text}", args.file.display()))?,
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(PROBLEM_FOUND) })
}

fn was(number: u64) -> String {
    format!("{} {}", counted(number, "message"), if number == 1 { "was" } else { "were" })
}

// Import.

/// What an import did.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
struct ImportReport {
    imported: u64,
    /// Already in the queue.
    present: u64,
    /// All their recipients had them.
    delivered: u64,
    history: u64,
    keys: u64,
    held: Vec<HeldLane>,
}

pub async fn import(args: &ImportArgs, location: QueueLocation) -> anyhow::Result<ExitCode> {
    let (from, told) = match opened(&args.file) {
        Ok(opened) => opened,
        Err(error) => return refused(&args.file, error, None),
    };
    if args.check {
        return checked(args, from, told);
    }
    let data_dir = location.data_dir.clone();
    prepare_data_dir(&data_dir).with_context(|| format!("the data folder {} cannot be used", data_dir.display()))?;
    let _lock =
        Lock::take_as_owner(&data_dir).context("an import needs the queue for itself: stop the gateway first")?;
    let queue = backend::open(location, BackendOptions::for_import()).await?;
    let mut report = ImportReport::default();
    let progress = ProgressDisplay::start("importing messages", told.map(|told| told.messages));
    let result = read_import(from, &queue, &mut report, &progress).await;
    queue.close().await;
    drop(progress);
    match result {
        Ok(()) => report_import(&report, args.json),
        Err(error) => refused(&args.file, error, Some(&report)),
    }
}

/// At its beginning, and what it says of itself if it can be read twice; then it is whole, too.
fn opened(path: &Path) -> anyhow::Result<(Box<dyn Read>, Option<ExportCounts>)> {
    if is_standard(path) {
        return Ok((Box::new(io::stdin()), None));
    }
    let mut file = File::open(path).map_err(|error| unreadable(path, &error))?;
    if !file.metadata()?.is_file() {
        return Ok((Box::new(file), None));
    }
    let all = file.metadata()?.len();
    let progress = ProgressDisplay::start("checking the file", Some(all));
    let mut reader = ExportReader::begin(BufReader::new(Counted { from: &file, progress: &progress }))?;
    while reader.next()?.is_some() {}
    let told = reader.counts();
    drop(reader);
    drop(progress);
    file.rewind()?;
    Ok((Box::new(file), Some(told)))
}

struct Counted<'a> {
    from: &'a File,
    progress: &'a ProgressDisplay,
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.progress.advance(read as u64);
        Ok(read)
    }
}

fn checked(args: &ImportArgs, from: Box<dyn Read>, told: Option<ExportCounts>) -> anyhow::Result<ExitCode> {
    let told = match told {
        Some(told) => Ok(told),
        None => (|| {
            let mut reader = ExportReader::begin(BufReader::new(from))?;
            while reader.next()?.is_some() {}
            Ok(reader.counts())
        })(),
    };
    let told = match told {
        Ok(told) => told,
        Err(error) => return refused(&args.file, error, None),
    };
    if args.json {
        print_json(&json!({ "whole": true, "contains": told }))?;
    } else {
        let (messages, rows) = (counted(told.messages, "message"), counted(told.history, "row"));
        super::print(format!("The file is whole: {messages}, {rows} of history.\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

async fn read_import(
    from: Box<dyn Read>,
    queue: &Arc<dyn Backend>,
    report: &mut ImportReport,
    progress: &ProgressDisplay,
) -> anyhow::Result<()> {
    let mut reader = ExportReader::begin(BufReader::with_capacity(256 * 1024, from))?;
    let mut batch = ImportBatch::default();
    loop {
        let next = reader.next();
        match next {
            Ok(Some(ExportItem::Holds(holds))) => hold(queue.as_ref(), holds, report).await?,
            Ok(Some(item)) => {
                batch.add(item);
                if batch.is_full() {
                    batch.store(queue, report, progress).await?;
                }
            }
            Ok(None) => return batch.store(queue, report, progress).await,
            // What came before it is as it was written.
            Err(error) => {
                batch.store(queue, report, progress).await?;
                return Err(error.into());
            }
        }
    }
}

/// What is stored at once.
#[derive(Default)]
struct ImportBatch {
    mail: Vec<PortableMail>,
    octets: u64,
    keys: Vec<PortableKey>,
    history: Vec<PortableHistory>,
}

impl ImportBatch {
    fn add(&mut self, item: ExportItem) {
        match item {
            ExportItem::Mail(mail) => {
                self.octets += mail.size();
                self.mail.push(*mail);
            }
            ExportItem::Key(key) => self.keys.push(key),
            ExportItem::History(row) => self.history.push(row),
            ExportItem::Holds(_) | ExportItem::Damaged { .. } | ExportItem::Ended => {}
        }
    }

    fn is_full(&self) -> bool {
        self.mail.len() >= MOST
            || self.octets >= MOST_OCTETS
            || self.keys.len() >= MOST_ROWS
            || self.history.len() >= MOST_ROWS
    }

    /// The history first: it says which recipients have their mail.
    async fn store(
        &mut self,
        queue: &Arc<dyn Backend>,
        report: &mut ImportReport,
        progress: &ProgressDisplay,
    ) -> anyhow::Result<()> {
        let Self { mail, keys, history, .. } = std::mem::take(self);
        if !history.is_empty() {
            report.history += queue.import_history(history).await?;
        }
        if !keys.is_empty() {
            report.keys += keys.len() as u64;
            queue.import_keys(keys).await?;
        }
        progress.advance(mail.len() as u64);
        let mut imports = JoinSet::new();
        for mail in mail {
            let queue = queue.clone();
            imports.spawn(async move { queue.import(mail, ImportSource::Elsewhere).await });
        }
        let mut failed = None;
        for imported in imports.join_all().await {
            match imported {
                Ok(Imported::Stored) => report.imported += 1,
                Ok(Imported::Present) => report.present += 1,
                Ok(Imported::Delivered) => report.delivered += 1,
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// What is held already stays so.
async fn hold(queue: &dyn Backend, holds: Vec<HeldLane>, report: &mut ImportReport) -> anyhow::Result<()> {
    for held in &holds {
        queue.hold(held.lane.as_deref().map(Lane::new).as_ref(), true).await?;
        for lane in &held.except {
            queue.hold(Some(&Lane::new(lane.as_str())), false).await?;
        }
    }
    report.held.extend(holds);
    Ok(())
}

fn report_import(report: &ImportReport, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        print_json(report)?;
    } else {
        super::print(words(report) + "\n")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn words(report: &ImportReport) -> String {
    let ImportReport { imported, present, delivered, history, held, .. } = report;
    let mut text = format!("Imported {} and {} of history.", counted(*imported, "message"), counted(*history, "row"));
    if *present > 0 {
        text.push_str(&format!(" {} in the queue already.", was(*present)));
    }
    if *delivered > 0 {
        text.push_str(&format!(" {} delivered already.", was(*delivered)));
    }
    if !held.is_empty() {
        text.push_str(" Lanes that were held are held: `waxseal queue list` shows them.");
    }
    text
}

/// The file is at fault, or the queue.
fn refused(file: &Path, error: anyhow::Error, report: Option<&ImportReport>) -> anyhow::Result<ExitCode> {
    let name = if is_standard(file) { "standard input".to_owned() } else { file.display().to_string() };
    let is_of_the_file = error.downcast_ref::<ExportFileError>().is_some();
    let what_was_done = match report {
        None => "Nothing was imported.".to_owned(),
        Some(report) => {
            format!("{} Import it again when that is mended: what is in the queue stays as it is.", words(report))
        }
    };
    if !is_of_the_file && report.is_none() {
        return Err(error);
    }
    let subject = if is_of_the_file { format!("{name}: ") } else { String::new() };
    complain(format_args!("{subject}{error:#}. {what_was_done}"));
    Ok(ExitCode::from(PROBLEM_FOUND))
}
