//! `waxseal check --message`: a dry run that shows what the gateway would do with a message.
//!
//! The message goes through the same functions that listeners use; nothing is sent, stored or looked up.

use super::dry_run::{DryRunOutcome, Submission};
use super::{dry_run, pretty, print};
use crate::cli::message_file::{read, with_crlf};
use crate::cli::{PROBLEM_FOUND, WRONG};
use crate::config::{ListenerSettings, Settings};
use crate::gateway::DryRun;
use crate::inbound::{AuthMode, Client, Received};
use crate::message::optional::attempt;
use crate::message::{Author, Envelope, RawMessage};
use crate::observe::log::wants_colours;
use crate::smtp::address::AddressError;
use crate::smtp::{EhloName, Mailbox, Reply, ReversePath};
use anyhow::{Context as _, anyhow};
use mail_parser::MessageParser;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
pub struct SampleArgs {
    /// Show what would happen to this message (a file, "-": standard input): repairs, rules, routes and seals, as a
    /// diff. Nothing is sent, stored or looked up
    #[arg(long, value_name = "FILE", conflicts_with = "defaults")]
    message: Option<PathBuf>,

    /// Its envelope sender, "<>" for none. Default: the From header's address
    #[arg(long, value_name = "ADDRESS", requires = "message", value_parser = sender)]
    from: Option<ReversePath>,

    /// An envelope recipient; may be repeated. Without it: those of To, Cc and Bcc
    #[arg(long, value_name = "ADDRESS", requires = "message", value_parser = Mailbox::parse)]
    to: Vec<Mailbox>,

    /// The listener that receives it. Default: the first
    #[arg(long, value_name = "ADDRESS", requires = "message")]
    listener: Option<SocketAddr>,

    /// The client address that submits it. Default: 127.0.0.1, or the first that the listener's `allow` lets in
    #[arg(long, value_name = "ADDRESS", requires = "message")]
    client: Option<IpAddr>,

    /// The login that submits it. Default: none
    #[arg(long, value_name = "NAME", requires = "message")]
    user: Option<String>,
}

impl SampleArgs {
    pub fn is_given(&self) -> bool {
        self.message.is_some()
    }
}

fn sender(text: &str) -> Result<ReversePath, AddressError> {
    if text.is_empty() || text == "<>" {
        return Ok(ReversePath::Null);
    }
    Mailbox::parse(text).map(ReversePath::Mailbox)
}

pub fn run(sample: &SampleArgs, settings: Settings, json: bool) -> anyhow::Result<ExitCode> {
    let Some(path) = &sample.message else { return Ok(ExitCode::from(WRONG)) };
    let file = read(path)?;
    let listener = listener(sample, &settings)?.clone();
    let client = client(sample, &listener, &settings)?;
    let mut handed = Submission {
        file: path.display().to_string(),
        octets: file.len(),
        listener: listener.options.address.to_string(),
        client: client.peer.ip(),
        user: client.user.clone(),
        envelope: Envelope::new(ReversePath::Null),
        from_header: sample.from.is_none(),
        to_header: sample.to.is_empty(),
    };
    let received = Received::read(client, handed.envelope.clone(), &with_crlf(&file), &listener.options);
    let (seen, settings) = match received.and_then(|received| with_message(received, &listener)) {
        Err(refusal) => (DryRunOutcome::Early(refusal), settings),
        Ok((mut received, message)) => {
            received.envelope = envelope(sample, &message)?;
            handed.envelope.clone_from(&received.envelope);
            let runtime = tokio::runtime::Builder::new_current_thread().build().context("cannot start the runtime")?;
            let (dry_run, settings) = runtime.block_on(DryRun::of(received, &listener, settings))?;
            (DryRunOutcome::Whole { before: message, dry_run: Box::new(dry_run) }, settings)
        }
    };
    if json {
        print(pretty(&dry_run::to_json(&handed, &seen, &settings)));
    } else {
        print(dry_run::text(&handed, &seen, &settings, wants_colours()).trim_end());
    }
    Ok(if seen.refusal().is_none() { ExitCode::SUCCESS } else { ExitCode::from(PROBLEM_FOUND) })
}

/// Refused before its content was examined.
fn with_message(received: Received, listener: &ListenerSettings) -> Result<(Received, RawMessage), Reply> {
    if listener.options.auth == AuthMode::Off && received.client.user.is_some() {
        return Err(Reply::no_logins_here());
    }
    listener.options.may_send(&received.client)?;
    let message = RawMessage::from_data(received.data.clone()).map_err(|_| Reply::header_too_large())?;
    Ok((received, message))
}

fn listener<'a>(sample: &SampleArgs, settings: &'a Settings) -> anyhow::Result<&'a ListenerSettings> {
    let mut listeners = settings.listeners.iter();
    let found = match sample.listener {
        Some(address) => listeners.find(|listener| listener.options.address == address),
        None => listeners.next(),
    };
    found.ok_or_else(|| {
        let addresses = settings.listeners.iter().map(|listener| listener.options.address.to_string());
        anyhow!("--listener: there is no such [[listener]]; there is {}", addresses.collect::<Vec<_>>().join(", "))
    })
}

fn client(sample: &SampleArgs, listener: &ListenerSettings, settings: &Settings) -> anyhow::Result<Client> {
    let user = match &sample.user {
        Some(name) => {
            let found = settings.users.iter().find(|user| *user.name == **name);
            Some(
                found
                    .map(|user| user.name.clone())
                    .ok_or_else(|| anyhow!("--user: there is no [[user]] of that name"))?,
            )
        }
        None => None,
    };
    let ehlo = EhloName::parse(b"waxseal-check").context("a name for EHLO")?;
    let peer = (sample.client.unwrap_or_else(|| usual_client(listener)), 0).into();
    Ok(Client { peer, ehlo, esmtp: true, tls: None, user: user as Option<Arc<str>> })
}

/// This machine's address, which most listeners allow; otherwise one that this listener allows, if there is any.
fn usual_client(listener: &ListenerSettings) -> IpAddr {
    let here = Ipv4Addr::LOCALHOST.into();
    let first = || listener.options.allow.first().map(|network| network.hosts().next().unwrap_or(network.addr()));
    if listener.options.allows(here) { here } else { first().unwrap_or(here) }
}

fn envelope(sample: &SampleArgs, message: &RawMessage) -> anyhow::Result<Envelope> {
    let of_header = || match Author::of(message) {
        Ok(author) => ReversePath::Mailbox(author.mailbox().clone()),
        // The gateway decides whether that matters.
        Err(_) => ReversePath::Null,
    };
    let mut envelope = Envelope::new(sample.from.clone().unwrap_or_else(of_header));
    let recipients = if sample.to.is_empty() { recipients_of(message) } else { sample.to.clone() };
    if recipients.is_empty() {
        return Err(anyhow!("the header names no recipient; add --to ADDRESS"));
    }
    recipients.into_iter().for_each(|recipient| envelope.add_recipient(recipient));
    Ok(envelope)
}

/// Each one once, in order; none if they cannot be read.
fn recipients_of(message: &RawMessage) -> Vec<Mailbox> {
    attempt("recipients", || Ok(addresses_in(message))).unwrap_or_default()
}

fn addresses_in(message: &RawMessage) -> Vec<Mailbox> {
    let block = [message.header(), b"\r\n"].concat();
    let Some(parsed) = MessageParser::new().parse_headers(&block) else { return Vec::new() };
    let lists = [parsed.to(), parsed.cc(), parsed.bcc()].into_iter().flatten();
    let mut found = Vec::new();
    for mailbox in lists.flat_map(|list| list.iter()).filter_map(|one| Mailbox::parse(one.address()?).ok()) {
        if !found.contains(&mailbox) {
            found.push(mailbox);
        }
    }
    found
}
