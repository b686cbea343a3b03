//! Mail for the sandbox: any mail is kept and answered, and a signature passes only for the signed bytes.

use super::scratch;
use crate::dkim::{Records, SealOptions, Selector, SigningKey, seal, verify};
use crate::inbound::{Client, Intake as _, Received};
use crate::message::{Envelope, MemoryBudget, RawMessage};
use crate::observe::Clock;
use crate::sandbox::{SandboxIntake, SandboxLimits, SandboxStore};
use crate::smtp::dot::{DotDecoder, Oddities};
use crate::smtp::{Domain, EhloName, Mailbox, ReversePath};
use bytes::Bytes;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use tokio::runtime::{Builder, Runtime};

/// A message as DATA.
pub fn sandbox(wire: &[u8]) {
    static HARNESS: LazyLock<SandboxHarness> = LazyLock::new(SandboxHarness::new);
    let mut decoder = DotDecoder::default();
    let mut data = Vec::new();
    decoder.decode(wire, &mut data);
    // The sandbox accepts no other mail.
    if decoder.oddities() == Oddities::default() {
        HARNESS.take(data.into());
    }
}

struct SandboxHarness {
    intake: SandboxIntake,
    key: Arc<SigningKey>,
    records: Records,
    runtime: Runtime,
    folder: PathBuf,
}

impl SandboxHarness {
    fn new() -> Self {
        let pem = include_str!("../dkim/testdata/ed25519.pem");
        let domain = Domain::parse("example.com");
        let selector = Selector::parse("wax1");
        let key = SigningKey::from_pem(domain.expect("a domain"), selector.expect("a selector"), pem.as_bytes());
        let key = key.expect("a key");
        let records = Records::of_keys([&key]);
        let limits = SandboxLimits { messages: 4, ..SandboxLimits::default() };
        let folder = scratch("sandbox");
        let store = SandboxStore::open(folder.clone(), limits).expect("a store");
        let intake = SandboxIntake::new(store, records.clone(), Clock::System);
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        Self { intake, key: Arc::new(key), records, runtime, folder }
    }

    fn take(&self, data: Bytes) {
        let before = passes(&data, &self.records);
        let reply = self.runtime.block_on(self.intake.accept(received(data.clone())));
        assert!(reply.code() == 250 && reply.text().contains("NOT sent"), "{reply}");
        let text = reply.text();
        let (_, rest) = text.split_once("sandbox as ").expect("its id");
        let id = rest.split(',').next().expect("its id");
        let kept = std::fs::read(self.folder.join(format!("{id}.eml"))).expect("its file");
        assert!(kept.ends_with(&data));
        // The sandbox verifies this gateway's signature, whatever else is in the message.
        let Ok(message) = RawMessage::from_data(data) else { return };
        let Ok(sealed) = seal(&message, std::slice::from_ref(&self.key), &SealOptions::default()) else { return };
        let sent = [sealed.message().header(), b"\r\n", sealed.message().body()].concat();
        let after = passes(&sent, &self.records);
        assert!(after > before || after > 0, "{}", sent.escape_ascii());
    }
}

fn passes(message: &[u8], records: &Records) -> usize {
    verify(message, records).iter().filter(|verification| verification.is_pass()).count()
}

fn received(data: Bytes) -> Received {
    let budget = MemoryBudget::new(u64::MAX);
    let mut share = budget.share();
    let envelope_share = budget.share();
    share.grow(data.len()).expect("room");
    let mut envelope = Envelope::new(ReversePath::Null);
    envelope.add_recipient(Mailbox::parse("c@d.example").expect("an address"));
    let client = Client {
        peer: ([127, 0, 0, 1], 40_000).into(),
        ehlo: EhloName::parse(b"x").expect("a name"),
        esmtp: true,
        tls: None,
        user: None,
    };
    Received { client, envelope, data, line_endings_changed: false, share, envelope_share }
}
