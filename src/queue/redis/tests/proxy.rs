//! A proxy in front of a server that breaks connections instead of passing on the answer to a put.

use crate::queue::redis::options::{RedisPlace, ServerAddress};
use crate::queue::redis::testing::RedisServer;
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
    swallowed: AtomicUsize,
}

pub(super) struct Proxy {
    folder: TempDir,
    switches: Arc<Switches>,
}

impl Proxy {
    pub(super) fn before(server: &RedisServer) -> Self {
        let folder = TempDir::new().expect("a folder");
        let listener = UnixListener::bind(folder.path().join("proxy")).expect("a socket");
        let (to, switches) = (server.socket(), Arc::<Switches>::default());
        let shared = switches.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, to.clone(), shared.clone()));
            }
        });
        Self { folder, switches }
    }

    pub(super) fn place(&self) -> RedisPlace {
        RedisPlace::Single(ServerAddress::Unix(self.folder.path().join("proxy")))
    }

    pub(super) fn swallow_next(&self) {
        self.switches.next.store(true, Ordering::SeqCst);
    }

    pub(super) fn swallow_all(&self, all: bool) {
        self.switches.all.store(all, Ordering::SeqCst);
    }

    pub(super) fn swallowed(&self) -> usize {
        self.switches.swallowed.load(Ordering::SeqCst)
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
                is_cut |= asks_put && (switches.all.load(Ordering::SeqCst) || switches.next.swap(false, Ordering::SeqCst));
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
