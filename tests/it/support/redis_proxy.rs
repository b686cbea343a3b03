//! A proxy in front of a Redis that breaks connections instead of passing on the answer to a put. Unit tests include this
//! file too; it must use nothing else of the tests' support.
#![allow(dead_code, reason = "unit tests and integration tests each use a part of it")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

#[derive(Debug, Default)]
struct Switches {
    /// The answer to the next put is swallowed.
    next: AtomicBool,
    /// All of them are.
    all: AtomicBool,
    /// Every so many; 0: none.
    every: AtomicUsize,
    puts: AtomicUsize,
    swallowed: AtomicUsize,
}

#[derive(Debug)]
pub struct RedisProxy {
    folder: TempDir,
    switches: Arc<Switches>,
}

impl RedisProxy {
    /// `server`: its Unix socket.
    pub fn before(server: PathBuf) -> Self {
        let folder = TempDir::new().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("proxy")).expect("a socket");
        let switches = Arc::<Switches>::default();
        let shared = switches.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, server.clone(), shared.clone()));
            }
        });
        Self { folder, switches }
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("proxy")
    }

    pub fn swallow_next(&self) {
        self.switches.next.store(true, Ordering::SeqCst);
    }

    pub fn swallow_all(&self, all: bool) {
        self.switches.all.store(all, Ordering::SeqCst);
    }

    /// Groups of commands with a put in them are counted.
    pub fn swallow_every(&self, every: usize) {
        self.switches.every.store(every, Ordering::SeqCst);
    }

    pub fn swallowed(&self) -> usize {
        self.switches.swallowed.load(Ordering::SeqCst)
    }
}

impl Switches {
    fn is_swallowed(&self) -> bool {
        let number = self.puts.fetch_add(1, Ordering::SeqCst) + 1;
        let every = self.every.load(Ordering::SeqCst);
        self.all.load(Ordering::SeqCst)
            || self.next.swap(false, Ordering::SeqCst)
            || (every > 0 && number.is_multiple_of(every))
    }
}

async fn pass(mut client: UnixStream, to: PathBuf, switches: Arc<Switches>) {
    let Ok(mut server) = UnixStream::connect(to).await else { return };
    let (mut asked, mut answered) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut is_cut = false;
    loop {
        tokio::select! {
            read = client.read(&mut asked) => {
                let Ok(count @ 1..) = read else { return };
                let asks_put = asked[..count].windows(7).any(|part| part == b"\r\nput\r\n");
                is_cut |= asks_put && switches.is_swallowed();
                if server.write_all(&asked[..count]).await.is_err() {
                    return;
                }
            }
            read = server.read(&mut answered) => {
                let Ok(count @ 1..) = read else { return };
                if is_cut && !answered[..count].starts_with(b"-NOSCRIPT") {
                    switches.swallowed.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                if client.write_all(&answered[..count]).await.is_err() {
                    return;
                }
            }
        }
    }
}
