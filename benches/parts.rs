//! The parts of a mail's way, one by one: a regression of the whole has a name here.
//!
//! `make bench`, or `cargo bench --bench parts -- sign` for those whose names contain a word. Sizes are octets of the message.

#![allow(clippy::unwrap_used, reason = "a benchmark ends where it fails")]

#[path = "gateway/mail.rs"]
#[allow(dead_code, reason = "the other benchmark uses all of it")]
mod mail;

use bytes::Bytes;
use divan::{Bencher, black_box};
use jiff::Timestamp;
use mail::Mail;
use mail_auth::common::crypto::HashAlgorithm;
use mail_auth::dkim::Canonicalization::Relaxed;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use waxseal::dkim::{KeyAlgorithm, SealOptions, Selector, SigningKey, generate, seal};
use waxseal::message::accepted::{Accepted, Origin};
use waxseal::message::repair::{RepairInputs, Repairs, repair};
use waxseal::message::{Author, Envelope, MailId, Marks, RawMessage};
use waxseal::observe::Clock;
use waxseal::queue::sqlite::{SqliteOptions, SqliteQueue};
use waxseal::queue::{Delivered, InitialState, Lane, Leased, NewMail, Queue, Settlement};
use waxseal::smtp::dot::{DotDecoder, DotEncoder};
use waxseal::smtp::{Domain, Mailbox, ReversePath};

const SIZES: [usize; 2] = [4 << 10, 100 << 10];
/// Operations of the queue that wait at the same time: alone, and with others to share a commit.
const AT_ONCE: [u32; 2] = [1, 50];

fn main() {
    divan::main();
}

/// As it arrives, without the final dot.
fn data(size: usize) -> Bytes {
    let mut mail = Mail::new(size);
    let octets = mail.size();
    Bytes::copy_from_slice(&mail.numbered(1)[..octets])
}

fn message(size: usize) -> RawMessage {
    RawMessage::from_data(data(size)).unwrap()
}

#[divan::bench(args = SIZES)]
fn parse(bencher: Bencher<'_, '_>, size: usize) {
    let data = data(size);
    bencher.bench(|| {
        let message = RawMessage::from_data(black_box(data.clone())).unwrap();
        (Author::of(&message).unwrap(), message)
    });
}

#[divan::bench(name = "repair", args = SIZES)]
fn repair_all(bencher: Bencher<'_, '_>, size: usize) {
    let (message, now) = (message(size), Timestamp::now());
    let inputs = RepairInputs { now, id: MailId::new(now, 1), host: "gateway.example.com" };
    bencher.bench(|| repair(black_box(&message), &Repairs::ALL, &inputs));
}

/// Header and body as they are signed, and the body's hash.
#[divan::bench(args = SIZES)]
fn canonicalise(bencher: Bencher<'_, '_>, size: usize) {
    let message = message(size);
    let fields: Vec<(&[u8], &[u8])> = header_fields(message.header());
    bencher.bench(|| {
        let mut header = Vec::new();
        Relaxed.canonicalize_headers(fields.iter().copied(), &mut header);
        (header, HashAlgorithm::Sha256.hash(Relaxed.canonical_body(black_box(message.body()), u64::MAX)))
    });
}

/// Names and values of fields that are not folded, as those of the measured mail.
fn header_fields(header: &[u8]) -> Vec<(&[u8], &[u8])> {
    let lines = header.split_inclusive(|octet| *octet == b'\n');
    lines.filter_map(|line| memchr::memchr(b':', line).map(|at| (&line[..at], &line[at + 1..]))).collect()
}

#[divan::bench(args = SIZES)]
fn sign(bencher: Bencher<'_, '_>, size: usize) {
    let (message, pem) = (message(size), generate(KeyAlgorithm::Rsa2048).unwrap());
    let (domain, selector) = (Domain::parse(mail::DOMAIN).unwrap(), Selector::parse("wax1").unwrap());
    let keys = [Arc::new(SigningKey::from_pem(domain, selector, pem.reveal().as_bytes()).unwrap())];
    bencher.bench(|| seal(black_box(&message), &keys, &SealOptions::default()).unwrap());
}

#[divan::bench(args = SIZES)]
fn frame_in(bencher: Bencher<'_, '_>, size: usize) {
    let wire = Mail::new(size).numbered(1).to_vec();
    bencher.bench(|| {
        let (mut decoder, mut message) = (DotDecoder::default(), Vec::with_capacity(wire.len()));
        decoder.decode(black_box(&wire), &mut message);
        assert!(decoder.is_done());
        message
    });
}

#[divan::bench(args = SIZES)]
fn frame_out(bencher: Bencher<'_, '_>, size: usize) {
    let data = data(size);
    bencher.bench(|| {
        let (mut encoder, mut wire) = (DotEncoder::default(), Vec::with_capacity(data.len() + 1024));
        encoder.encode(black_box(&data), &mut wire);
        encoder.finish(&mut wire);
        wire
    });
}

/// A queue on the disk that is measured, and what waits in it.
struct Bed {
    queue: Arc<SqliteQueue>,
    runtime: tokio::runtime::Runtime,
    next: AtomicU32,
    _folder: tempfile::TempDir,
}

impl Bed {
    fn new() -> Self {
        let folder = std::env::var("WAXSEAL_BENCH_FOLDER").unwrap_or_else(|_| "target".into());
        let folder = tempfile::tempdir_in(folder).unwrap();
        let options = SqliteOptions {
            data_dir: folder.path().to_owned(),
            cache_octets: 16 << 20,
            min_free_space: 0,
            schedule: Default::default(),
            clock: Clock::System,
            metrics: Default::default(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let queue = Arc::new(SqliteQueue::open(options).unwrap());
        Self { queue, runtime, next: AtomicU32::new(1), _folder: folder }
    }

    fn mails(&self, count: u32) -> Vec<NewMail> {
        (0..count).map(|_| self.mail()).collect()
    }

    fn mail(&self) -> NewMail {
        let (number, now, message) = (self.next.fetch_add(1, Ordering::Relaxed), Timestamp::now(), message(4 << 10));
        let mut envelope = Envelope::new(ReversePath::Mailbox(Mailbox::parse(mail::SENDER).unwrap()));
        envelope.add_recipient(Mailbox::parse(&mail::recipient(number as usize)).unwrap());
        let accepted = Accepted {
            id: MailId::new(now, number),
            received_at: now,
            origin: Origin::default(),
            envelope,
            author: Author::of(&message).ok(),
            message,
            marks: Marks::default(),
        };
        NewMail {
            accepted: Arc::new(accepted),
            initial_states: vec![InitialState::Waiting(lane())],
            original: None,
            subject: "Weekly report".into(),
            deduplication: None,
        }
    }

    fn put(&self, mails: Vec<NewMail>) {
        self.together(mails, |queue, mail| async move { queue.put(mail).await.map(drop).unwrap() });
    }

    fn lease(&self, count: u32) -> Vec<Leased> {
        let lane = lane();
        let leased = self.queue.lease(&lane, Timestamp::now(), count as usize, u64::MAX);
        self.runtime.block_on(leased).unwrap()
    }

    fn settle(&self, leased: Vec<Leased>) {
        self.together(leased, |queue, leased| async move {
            let now = Timestamp::now();
            let taken = Delivered { at: now, upstream: "sink".into(), reply: "250 ok".into(), milliseconds: 1 };
            queue.settle(leased.lease, vec![Settlement::Delivered(taken)], now).await.map(drop).unwrap();
        });
    }

    /// All at once, to the end of the last.
    fn together<T, F>(&self, all: Vec<T>, work: impl Fn(Arc<SqliteQueue>, T) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.runtime.block_on(async {
            let tasks: Vec<_> = all.into_iter().map(|one| tokio::spawn(work(self.queue.clone(), one))).collect();
            for task in tasks {
                task.await.unwrap();
            }
        });
    }
}

fn lane() -> Lane {
    Lane::new("default")
}

#[divan::bench(args = AT_ONCE)]
fn queue_put(bencher: Bencher<'_, '_>, at_once: u32) {
    let bed = Bed::new();
    bencher.with_inputs(|| bed.mails(at_once)).bench_local_values(|mails| bed.put(mails));
}

#[divan::bench(args = AT_ONCE)]
fn queue_lease(bencher: Bencher<'_, '_>, at_once: u32) {
    let bed = Bed::new();
    bencher.with_inputs(|| bed.put(bed.mails(at_once))).bench_local_values(|()| bed.lease(at_once));
}

#[divan::bench(args = AT_ONCE)]
fn queue_settle(bencher: Bencher<'_, '_>, at_once: u32) {
    let bed = Bed::new();
    let leased = || {
        bed.put(bed.mails(at_once));
        bed.lease(at_once)
    };
    bencher.with_inputs(leased).bench_local_values(|leased| bed.settle(leased));
}
