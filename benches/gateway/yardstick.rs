//! What a run is compared with, measured in the same run: one signature, one sync, and the source straight into the sink.

use super::mail::Mail;
use super::measure::OwnThread;
use super::sink::Sink;
use super::source::{Load, send};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

const SIGNATURES: u32 = 400;
const SYNCS: usize = 200;
/// A log that is written round and round: its size does not change, so a sync is of the octets alone. Room for some of the
/// largest messages.
const LOG_OCTETS: u64 = 4 << 20;

/// CPU of one RSA-2048 signature in milliseconds, with every core signing, as under load.
pub fn signature(dkim_key: &str) -> f64 {
    let der = rustls_pemfile::private_key(&mut dkim_key.as_bytes()).unwrap().unwrap();
    let key = RsaKeyPair::from_pkcs8(der.secret_der()).unwrap();
    let message = Mail::new(500).numbered(0).to_vec();
    let sign = || {
        let (own, random) = (OwnThread::current(), SystemRandom::new());
        let mut signature = vec![0; key.public_modulus_len()];
        let before = own.cpu();
        for _ in 0..SIGNATURES {
            key.sign(&RSA_PKCS1_SHA256, &random, &message, &mut signature).unwrap();
        }
        (own.cpu() - before).as_secs_f64() * 1000.0 / f64::from(SIGNATURES)
    };
    let all: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores()).map(|_| scope.spawn(sign)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    all.iter().sum::<f64>() / all.len() as f64
}

/// The median of writing so many octets into a log on this disk and syncing it, in milliseconds.
pub fn sync(folder: &Path, octets: usize) -> f64 {
    let mut log = Log::create(folder, octets);
    let mut times: Vec<Duration> = (0..SYNCS).map(|_| log.append()).collect();
    times.sort_unstable();
    times[SYNCS / 2].as_secs_f64() * 1000.0
}

/// The least that a durable acknowledgement needs: a file that grows no more, its octets written and synced.
pub struct Log {
    file: File,
    data: Vec<u8>,
    at: u64,
}

impl Log {
    pub fn create(folder: &Path, octets: usize) -> Self {
        let file = tempfile::tempfile_in(folder).unwrap();
        file.write_all_at(&vec![1; LOG_OCTETS as usize], 0).unwrap();
        file.sync_all().unwrap();
        Self { file, data: vec![2; octets], at: 0 }
    }

    /// How long it took.
    pub fn append(&mut self) -> Duration {
        if self.at + self.data.len() as u64 > LOG_OCTETS {
            self.at = 0;
        }
        let began = Instant::now();
        self.file.write_all_at(&self.data, self.at).unwrap();
        self.file.sync_data().unwrap();
        self.at += self.data.len() as u64;
        began.elapsed()
    }
}

/// The source straight into the sink over TLS.
#[derive(Debug, Clone, Copy)]
pub struct Alone {
    pub messages_per_second: f64,
    /// CPU of both, per message.
    pub cpu: f64,
    /// The median, in milliseconds.
    pub acknowledged: f64,
}

pub fn alone(sink: &Sink, clients: usize, messages: usize, size: usize) -> Result<Alone, String> {
    let load = Load {
        address: sink.address,
        tls: Some(sink.client_tls()),
        clients,
        messages_per_connection: messages,
        messages,
        size,
    };
    sink.expect(messages);
    let before = sink.thread.cpu();
    let sent = send(load)?;
    let (last, _) = sink.wait(Duration::from_secs(10))?;
    let cpu = sent.cpu + sink.thread.cpu() - before;
    Ok(Alone {
        messages_per_second: messages as f64 / (last - sent.began).as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1000.0 / messages as f64,
        acknowledged: sent.acknowledged(0.5),
    })
}

pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
