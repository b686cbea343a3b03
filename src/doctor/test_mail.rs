//! The test mail that `--send-to` asks for: handed to the running gateway's listener as an application would, and followed
//! until it is delivered, refused or deferred. The only probe that sends anything.
//!
//! The submission is in clear, on this machine, as Plausible's is; the relay's client cannot do that, by its types. If every
//! listener asks for TLS or a login, the mail is handed in through the control socket: only hashes of the users' passwords are
//! known here, and none should have to be known.

use super::check::CheckResult;
use super::examination::{Examination, QueueAccess, Results};
use super::listener::dialled;
use crate::config::ListenerSettings;
use crate::control::{ControlRequest, ControlResponse};
use crate::inbound::Tls;
use crate::message::MailId;
use crate::observe::{CheckId, random_u32};
use crate::queue::{MessageDetails, RecipientState};
use crate::smtp::reply::ReplyParser;
use crate::smtp::{Mailbox, Reply, ReversePath};
use bytes::BytesMut;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

const POLL: Duration = Duration::from_millis(250);
/// Then it is only said that the mail still waits; the probe's own time ends a little later.
const POLLS: usize = 80;

pub async fn probe(exam: &Examination, out: &Results) {
    let Some(to) = &exam.request.send_to else { return };
    let put = |result| out.put(result);
    let subject = to.to_string();
    if !exam.gateway_runs {
        return put(CheckResult::failed(CheckId::SendAccepted, &subject, "the gateway does not run")
            .evidence(format!("no gateway answers in {}", exam.settings.data_dir.display()))
            .cause("a test mail goes through the running gateway")
            .fix("start it with `waxseal run`, then repeat this"));
    }
    let access = exam.gateway_queue();
    let Some(ReversePath::Mailbox(from)) = exam.sender.as_ref().map(|sender| &sender.path) else {
        return put(CheckResult::failed(CheckId::SendAccepted, &subject, "no sender is known")
            .evidence("the configuration names no domain")
            .cause("no [[dkim]] key and no `senders` of a listener says from whom mail comes")
            .fix("name a sender with --from"));
    };
    let (place, submitted) = match listener(&exam.settings.listeners) {
        Some(address) => (address.to_string(), submit(address, from, to).await),
        None => (HANDED_IN.to_owned(), hand_in(&access, from, to).await),
    };
    match submitted {
        Err(error) => {
            put(CheckResult::failed(CheckId::SendAccepted, &subject, format!("{place} does not take the mail"))
                .evidence(error)
                .cause("the gateway refuses it, or the listener is not reached")
                .fix("the reply says why; name a sender that is allowed with --from"))
        }
        Ok((reply, queued)) => {
            let text = format!("{place} has taken the mail from {from}");
            put(CheckResult::ok(CheckId::SendAccepted, &subject, text).evidence(reply.clone()));
            put(match queued {
                None => CheckResult::ok(CheckId::SendOutcome, &subject, "the provider has taken it").evidence(reply),
                Some(id) => follow(&access, id, &subject).await,
            });
        }
    }
}

fn listener(listeners: &[ListenerSettings]) -> Option<SocketAddr> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let options = listeners.iter().map(|listener| &listener.options);
    let usable = options.filter(|options| matches!(options.tls, Tls::Off) && options.address.port() != 0);
    let plain = usable.filter(|options| options.needs_no_login(loopback) && !options.is_load_balancer(loopback));
    plain.map(|options| dialled(options.address)).next()
}

/// Where the mail is handed in if no listener takes it as it comes.
const HANDED_IN: &str = "the gateway's control socket (each listener asks for TLS, a login or a PROXY header, which is not \
                         tested by this)";

async fn hand_in(access: &dyn QueueAccess, from: &Mailbox, to: &Mailbox) -> Result<Submitted, String> {
    let request =
        ControlRequest::Submit { sender: from.to_string(), recipient: to.to_string(), message: message(from, to) };
    match access.ask(request).await {
        Ok(ControlResponse::Submitted(Some(reply))) if reply.is_accepted => {
            let id = queued_as(&reply.text);
            Ok((reply.text, id))
        }
        Ok(ControlResponse::Submitted(Some(reply))) => Err(reply.text),
        Ok(_) => Err("the gateway has no listener".to_owned()),
        Err(error) => Err(format!("{error:#}")),
    }
}

/// The reply to the final dot, and the id under which the mail is queued, if it is.
type Submitted = (String, Option<MailId>);

fn queued_as(reply: &str) -> Option<MailId> {
    reply.split_once("Queued as ").and_then(|(_, id)| id.trim().parse().ok())
}

async fn submit(address: SocketAddr, from: &Mailbox, to: &Mailbox) -> Result<Submitted, String> {
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let mut dialogue = Dialogue { stream, input: BytesMut::new(), parser: ReplyParser::default() };
    dialogue.reply("greeting").await?;
    for line in ["EHLO doctor.waxseal.invalid", &format!("MAIL FROM:<{from}>"), &format!("RCPT TO:<{to}>")] {
        dialogue.ask(line).await?;
    }
    dialogue.ask("DATA").await?;
    let reply = dialogue.ask(&format!("{}.", message(from, to))).await?;
    let _it_may_close_first = dialogue.ask("QUIT").await;
    let id = queued_as(&reply.text());
    Ok((reply.to_string(), id))
}

/// No line begins with a dot. Date and Message-ID are the gateway's to add, as for an application that forgets them.
fn message(from: &Mailbox, to: &Mailbox) -> String {
    let number = random_u32();
    format!(
        "From: waxseal doctor <{from}>\r\nTo: <{to}>\r\nSubject: waxseal test mail {number:08x}\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\nAuto-Submitted: auto-generated\r\n\r\n\
         This is the test mail that \"waxseal doctor --send-to\" was asked for.\r\n\
         It came through the gateway and its provider, so mail arrives.\r\n\r\n\
         Look at its source: Authentication-Results says what the receiver\r\n\
         found of SPF, DKIM and DMARC.\r\n"
    )
}

struct Dialogue {
    stream: TcpStream,
    input: BytesMut,
    parser: ReplyParser,
}

impl Dialogue {
    /// An error holds what was asked and what was answered.
    async fn ask(&mut self, line: &str) -> Result<Reply, String> {
        let what = line.split(['\r', ':']).next().unwrap_or_default().to_owned();
        self.stream.write_all(format!("{line}\r\n").as_bytes()).await.map_err(|error| format!("{what}: {error}"))?;
        let reply = self.reply(&what).await?;
        if reply.is_positive() || reply.code() == 354 { Ok(reply) } else { Err(format!("{what}: {reply}")) }
    }

    async fn reply(&mut self, what: &str) -> Result<Reply, String> {
        loop {
            let (consumed, reply) = self.parser.parse(&self.input).map_err(|error| format!("{what}: {error}"))?;
            drop(self.input.split_to(consumed));
            if let Some(reply) = reply {
                return Ok(reply);
            }
            if self.stream.read_buf(&mut self.input).await.map_err(|error| format!("{what}: {error}"))? == 0 {
                return Err(format!("{what}: the gateway closed the connection"));
            }
        }
    }
}

/// Until something is known of it.
async fn follow(access: &dyn QueueAccess, id: MailId, subject: &str) -> CheckResult {
    let check = CheckId::SendOutcome;
    for _ in 0..POLLS {
        sleep(POLL).await;
        let details = match access.ask(ControlRequest::Show { id }).await {
            Ok(ControlResponse::Shown(details)) => details,
            Ok(_) => continue,
            Err(error) => {
                return CheckResult::unknown(check, subject, "the gateway cannot be asked")
                    .evidence(format!("{error:#}"));
            }
        };
        match details {
            None => {
                return CheckResult::unknown(check, subject, "it has left the queue, and no history is kept")
                    .fix("set `keep_history` to more, or look at the log");
            }
            Some(details) => {
                if let Some(result) = outcome(&details, subject, id) {
                    return result;
                }
            }
        }
    }
    CheckResult::unknown(check, subject, "it is accepted, and the provider has not answered yet")
        .fix(format!("`waxseal queue show {id}` shows what becomes of it"))
}

fn outcome(details: &MessageDetails, subject: &str, id: MailId) -> Option<CheckResult> {
    let check = CheckId::SendOutcome;
    if let Some(row) = details.delivered.first() {
        let text = format!("the provider has taken it, by upstream \"{}\"", row.delivery.upstream);
        return Some(CheckResult::ok(check, subject, text).evidence(row.delivery.reply.clone()));
    }
    let recipient = details.row.recipients.first()?;
    let reason = recipient.reason.clone().unwrap_or_else(|| "no reason is known".to_owned());
    match recipient.state {
        RecipientState::Failed => Some(
            CheckResult::failed(check, subject, "the provider refuses it")
                .evidence(reason)
                .cause("the provider's own words say why")
                .fix(format!("`waxseal queue show {id}` shows the whole dialogue; then `waxseal queue remove {id}`")),
        ),
        RecipientState::Waiting if recipient.attempts > 0 => Some(
            CheckResult::failed(check, subject, "it was tried and waits for another attempt")
                .evidence(reason)
                .cause("the upstream's checks say what is wrong there")
                .fix(format!("it is tried again by itself; `waxseal queue remove {id}` removes it")),
        ),
        RecipientState::Held => Some(
            CheckResult::warning(check, subject, "it is held")
                .evidence(reason)
                .fix(format!("waxseal queue release {id}")),
        ),
        _ => None,
    }
}
