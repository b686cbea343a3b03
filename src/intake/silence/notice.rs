//! The mail about a silence: to `notify` of an `[[expect]]`, once per silence, through the queue like any other mail.
//!
//! It does not pass through intake, so it never counts as expected mail itself. Like a bounce it is sent from the null path,
//! unless `bounce_sender` is set, so that its own failure causes no bounce; its author is in a domain with a key, so that it is
//! signed. A digest of the silence is remembered with the queue: of several gateways that notice it, one sends the mail.

use super::Expectation;
use crate::delivery::SettlementPolicy;
use crate::message::accepted::{Accepted, Origin};
use crate::message::dsn::ReportError;
use crate::message::headers::{Field, FieldError};
use crate::message::trace::rfc5322_date;
use crate::message::{Author, Envelope, MailId, Mark, Marks, RawMessage, subject};
use crate::observe::random_u32;
use crate::queue::{Deduplication, IdempotencyKey, NewMail, Queue, QueueError};
use crate::smtp::{Mailbox, ReversePath};
use crate::text::{any_of, cleaned, in_words, roughly};
use aws_lc_rs::digest::{Context, SHA256};
use mail_builder::encoders::QuotedPrintableEncoder;
use std::sync::Arc;
use std::time::Duration;
use tracing::{error, info};

/// Gateways that share a queue notice a silence within minutes of each other.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

/// Who is notified of a silence, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoticeOptions {
    pub to: Mailbox,
    /// `None`: as the routes say.
    pub upstream: Option<Mark>,
}

/// What all notices share.
#[derive(Debug, Clone)]
pub struct NoticeWriter {
    /// `bounce_sender`: the envelope's sender.
    pub sender: ReversePath,
    /// The author.
    pub from: Mailbox,
    /// The gateway's.
    pub hostname: Arc<str>,
    pub settlement: SettlementPolicy,
    pub queue: Arc<dyn Queue>,
}

/// One silence, by [`QuotaLedger::lived`](crate::queue::QuotaLedger::lived).
#[derive(Debug, Clone, Copy)]
pub(super) struct Silence {
    /// When the last mail came.
    pub since: Duration,
    pub lasts: Duration,
}

impl NoticeWriter {
    /// Returns once the notice is stored, or another gateway has stored it. An error means that a retry is worthwhile; a notice
    /// that cannot be written is logged and dropped.
    pub(super) async fn send(
        &self,
        about: &Expectation,
        notice: &NoticeOptions,
        silence: Silence,
    ) -> Result<(), QueueError> {
        let (expect, to) = (&*about.name, &notice.to);
        let mail = match self.write(about, notice, silence) {
            Ok(mail) => mail,
            Err(error) => {
                error!(expect, %to, "no mail about a silence could be written: {error}");
                return Ok(());
            }
        };
        let id = mail.accepted.id;
        match self.queue.put_once(mail).await? {
            None => info!(%id, expect, %to, "queued a mail about the silence"),
            Some(first) => info!(id = %first, expect, %to, "another gateway has queued a mail about the silence"),
        }
        Ok(())
    }

    fn write(&self, about: &Expectation, notice: &NoticeOptions, silence: Silence) -> Result<NewMail, ReportError> {
        let now = self.settlement.clock.now();
        let id = MailId::new(now, random_u32());
        let mut data = self.header(id, &notice.to, rfc5322_date(now))?;
        data.extend_from_slice(b"\r\n");
        let text = self.text(about, silence);
        QuotedPrintableEncoder::new().preserve_line_breaks().encode_into(text.as_bytes(), &mut data);
        let message = RawMessage::from_data(data.into())?;
        let mut envelope = Envelope::new(self.sender.clone());
        envelope.add_recipient(notice.to.clone());
        let subject = subject(&message).unwrap_or_default();
        let author = Author::of(&message).ok();
        let marks = Marks { upstream: notice.upstream.clone(), ..Marks::default() };
        let accepted = Accepted { id, received_at: now, origin: Origin::default(), envelope, message, author, marks };
        let initial_states = self.settlement.waiting_states(&accepted);
        let deduplication = Some(Deduplication { key: key_of(about, silence), window: REMEMBERED });
        Ok(NewMail { accepted: Arc::new(accepted), initial_states, original: None, subject, deduplication })
    }

    fn header(&self, id: MailId, to: &Mailbox, date: String) -> Result<Vec<u8>, FieldError> {
        let fields = [
            Field::new("From", &["Mail Gateway", &format!("<{}>", self.from)])?,
            Field::new("To", &[&format!("<{to}>")])?,
            Field::new("Subject", &["Expected mail has not come"])?,
            Field::new("Date", &[&date])?,
            Field::new("Message-ID", &[&format!("<{id}@{}>", self.from.domain())])?,
            // RFC 3834 §5: prevents vacation notices in reply.
            Field::new("Auto-Submitted", &["auto-generated"])?,
            Field::new("MIME-Version", &["1.0"])?,
            Field::new("Content-Type", &["text/plain;", "charset=utf-8"])?,
            Field::new("Content-Transfer-Encoding", &["quoted-printable"])?,
        ];
        Ok(fields.iter().flat_map(|field| field.as_bytes().to_vec()).collect())
    }

    fn text(&self, about: &Expectation, silence: Silence) -> String {
        let senders = any_of(about.senders.iter());
        format!(
            "This is the mail gateway {hostname}.\r\n\r\nNo mail from {senders} has come for {lasts}. It is expected every \
             {every}\r\n([[expect]] \"{name}\" in the gateway's configuration).\r\n\r\nLook at the application that sends it: the \
             gateway has not refused it for being late.\r\nThis is the only mail about this silence; `waxseal status` shows \
             whether it goes on.\r\n",
            hostname = cleaned(&self.hostname),
            senders = cleaned(&senders),
            lasts = roughly(silence.lasts),
            every = in_words(about.every),
            name = cleaned(&about.name),
        )
    }
}

/// The same at every gateway of the queue.
fn key_of(about: &Expectation, silence: Silence) -> IdempotencyKey {
    let mut context = Context::new(&SHA256);
    context.update(b"waxseal silence\0");
    context.update(about.name.as_bytes());
    context.update(&silence.since.as_millis().to_be_bytes());
    let mut key = [0; 32];
    key.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    IdempotencyKey(key)
}
