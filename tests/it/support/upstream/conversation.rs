//! One connection of the scripted provider.

use super::super::canaries;
use super::Shared;
use super::record::{Connected, Message};
use super::script::{Action, At};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use waxseal::relay::TlsMode;

/// `connected` is dropped before the socket is: a client that sees the end is counted no more.
pub async fn serve(tcp: TcpStream, connected: Connected, shared: Arc<Shared>) {
    let mut plain = Conversation::new(tcp, false, connected.number, &shared);
    let starttls = shared.tls == TlsMode::StartTls;
    if (starttls && plain.until_starttls().await.is_none()) || plain.instead_of_handshake().await.is_none() {
        drop(connected);
        return;
    }
    let acceptor = TlsAcceptor::from(Arc::clone(&shared.tls_config));
    match acceptor.accept(plain.stream).into_fallible().await {
        Ok(stream) => {
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            let certificate = shown.map(|certificate| certificate.to_vec()).unwrap_or_default();
            let mut secured = Conversation::new(stream, true, connected.number, &shared);
            secured.certificate = certificate;
            if starttls || secured.act(At::Greeting, "", GREETING).await.is_some() {
                let _ended = secured.converse().await;
            }
            drop(connected);
        }
        Err((_error, _socket)) => drop(connected),
    }
}

const GREETING: &str = "220 scripted.example ESMTP";

/// `None` in what the functions return: the connection ends here.
struct Conversation<'a, S> {
    stream: S,
    secured: bool,
    number: usize,
    shared: &'a Shared,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Something was said since the client's last octets.
    answered: bool,
    /// The name given with AUTH.
    login: String,
    /// Shown in the handshake.
    certificate: Vec<u8>,
    /// The login is over: segments and round trips count.
    counting: bool,
}

/// A transaction under way.
#[derive(Default)]
struct Transaction {
    mail: Option<String>,
    recipients: Vec<String>,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Conversation<'a, S> {
    fn new(stream: S, secured: bool, number: usize, shared: &'a Shared) -> Self {
        let input = Vec::new();
        let output = Vec::new();
        let login = String::new();
        let certificate = Vec::new();
        Self { stream, secured, number, shared, input, output, answered: false, login, certificate, counting: false }
    }

    async fn until_starttls(&mut self) -> Option<()> {
        self.act(At::Greeting, "", GREETING).await?;
        loop {
            let line = self.line().await?;
            match verb(&line).as_str() {
                "EHLO" => {
                    let usual = ehlo(&self.shared.keywords_in_clear);
                    self.act(At::Ehlo, &line, &usual).await?;
                }
                "STARTTLS" => {
                    if self.act(At::StartTls, &line, "220 2.0.0 go").await?.starts_with("220") {
                        return self.flush().await;
                    }
                }
                "QUIT" => {
                    self.act(At::Quit, &line, "221 2.0.0 bye").await?;
                    self.flush().await?;
                    return None;
                }
                _ => self.say("530 5.7.0 Must issue a STARTTLS command first"),
            }
        }
    }

    async fn instead_of_handshake(&mut self) -> Option<()> {
        if let Some(action) = self.shared.script.next(At::Handshake, "") {
            // The client's first TLS octets come first, so that this text is not part of the 220.
            self.fill().await?;
            self.perform(action, "").await?;
            while self.fill().await.is_some() {
                self.input.clear();
            }
            return None;
        }
        Some(())
    }

    async fn converse(&mut self) -> Option<()> {
        let mut transaction = Transaction::default();
        let mut messages = 0;
        loop {
            let line = self.line().await?;
            self.shared.record.command(&line);
            match verb(&line).as_str() {
                "EHLO" => {
                    let usual = ehlo(&self.shared.keywords);
                    if let Some(goodbye) = self.shared.rules.about_name(&line) {
                        self.broken(goodbye);
                        return self.flush().await;
                    }
                    self.act(At::EhloInTls, &line, &usual).await?;
                    self.counting = !usual.to_ascii_uppercase().contains("AUTH");
                }
                "AUTH" => self.auth(&line).await?,
                "MAIL" => {
                    let sender = line.get("MAIL FROM:".len()..).unwrap_or_default();
                    let usual = match self.shared.rules.about_mail(messages, sender) {
                        Some(refusal) => self.noted(refusal),
                        None => "250 2.1.0 sender ok",
                    };
                    let said = self.act(At::Mail, &line, usual).await?;
                    let mail = said.starts_with('2').then(|| sender.to_owned());
                    transaction = Transaction { mail, recipients: Vec::new() };
                }
                "RCPT" => {
                    let usual = match self.shared.rules.about_recipient(transaction.recipients.len()) {
                        _ if transaction.mail.is_none() => "503 5.5.1 MAIL first",
                        Some(refusal) => self.noted(refusal),
                        None => "250 2.1.5 recipient ok",
                    };
                    if self.act(At::Rcpt, &line, usual).await?.starts_with('2') {
                        transaction.recipients.push(line["RCPT TO:<".len()..line.len() - 1].to_owned());
                    }
                }
                "DATA" => {
                    let nobody = transaction.recipients.is_empty();
                    let usual = if nobody { "554 5.5.1 no valid recipients" } else { "354 go ahead" };
                    if self.act(At::Data, &line, usual).await?.starts_with("354") {
                        self.data(std::mem::take(&mut transaction)).await?;
                        messages += 1;
                    }
                }
                "RSET" => {
                    self.act(At::Rset, &line, "250 2.0.0 flushed").await?;
                    transaction = Transaction::default();
                }
                "QUIT" => {
                    self.act(At::Quit, &line, "221 2.0.0 bye").await?;
                    self.flush().await?;
                    return None;
                }
                _ => self.say("500 5.5.1 unknown command"),
            }
        }
    }

    async fn auth(&mut self, line: &str) -> Option<()> {
        let mut words = line.split(' ').skip(1).map(str::to_owned);
        let mechanism = words.next()?.to_ascii_uppercase();
        let initial = words.next();
        let last = if mechanism == "EXTERNAL" {
            let said = self.act(At::Auth, line, "235 2.7.0 known by its certificate").await?;
            if said.starts_with("334") {
                assert_eq!(self.line().await?, "", "the identity is the certificate's");
                self.act(At::AuthAnswer, "", "235 2.7.0 known by its certificate").await?;
            } else {
                assert_eq!(initial.as_deref(), Some("="), "RFC 4954 §4: an empty initial response");
            }
            self.shared.record.login(&mechanism, String::new(), String::new());
            said
        } else if mechanism == "LOGIN" {
            let mut answers = Vec::new();
            let mut said = self.act(At::Auth, line, "334 VXNlcm5hbWU6").await?;
            while said.starts_with("334") && answers.len() < 2 {
                answers.push(decode(&self.line().await?));
                let usual = match &answers[..] {
                    [username, password] => self.welcome(username, password),
                    _ => "334 UGFzc3dvcmQ6".to_owned(),
                };
                said = self.act(At::AuthAnswer, "", &usual).await?;
            }
            if let [username, password] = &answers[..] {
                self.login.clone_from(username);
                self.shared.record.login(&mechanism, username.clone(), password.clone());
            }
            said
        } else {
            let login = |response: &str| {
                let response = decode(response);
                let mut parts = response.split('\0').skip(1).map(str::to_owned);
                Some((parts.next()?, parts.next()?))
            };
            let mut login_given = initial.as_deref().and_then(login);
            let usual = login_given.as_ref().map(|(username, password)| self.welcome(username, password));
            let mut said = self.act(At::Auth, line, usual.as_deref().unwrap_or("334 ")).await?;
            if said.starts_with("334") {
                login_given = login(&self.line().await?);
                let (username, password) = login_given.as_ref()?;
                let usual = self.welcome(username, password);
                said = self.act(At::AuthAnswer, "", &usual).await?;
            }
            let (username, password) = login_given?;
            self.login = username.clone();
            self.shared.record.login(&mechanism, username, password);
            said
        };
        self.counting |= last.starts_with("235");
        Some(())
    }

    /// What a login with these is answered, as long as not too many are there. Says the login back, in clear and encoded,
    /// as real servers do: it must not get into a log or a database from here either.
    fn welcome(&self, username: &str, password: &str) -> String {
        canaries::learn(password);
        let said = match self.shared.rules.about_login(username, password, self.shared.record.counts().now) {
            Some(refusal) => self.noted(refusal),
            None => "235 2.7.0 welcome",
        };
        format!("{said} {password} {}", STANDARD.encode(format!("\0{username}\0{password}")))
    }

    /// A rule was broken.
    fn noted(&self, refusal: &'static str) -> &'static str {
        self.shared.record.broken(refusal);
        refusal
    }

    fn broken(&mut self, refusal: &'static str) {
        self.shared.record.broken(refusal);
        self.say(refusal);
    }

    async fn data(&mut self, transaction: Transaction) -> Option<()> {
        let mut scanned: usize = 0;
        let end = loop {
            if self.input.starts_with(b".\r\n") {
                break 3;
            }
            let from = scanned.saturating_sub(4);
            if let Some(at) = memchr::memmem::find(&self.input[from..], b"\r\n.\r\n") {
                break from + at + 5;
            }
            scanned = self.input.len();
            self.fill().await?;
            if scanned == 0
                && let Some(action) = self.shared.script.next(At::Midway, "")
            {
                self.perform(action, "").await?;
            }
        };
        let wire: Vec<u8> = self.input.drain(..end).collect();
        let Transaction { mail, recipients } = transaction;
        let mail = mail.unwrap_or_default();
        let data = unstuffed(&wire);
        let connection = self.number;
        let login = self.login.clone();
        let at = std::time::Instant::now();
        let certificate = self.certificate.clone();
        let message = Message { at, connection, login, certificate, mail, recipients, data, wire };
        // Taken down before the client can know.
        let refusal = self.shared.rules.about_message(&message.data).map(|refusal| self.noted(refusal));
        let action = self.shared.script.next(At::Dot, "").or(refusal.map(Action::from));
        let accepted = match &action {
            None | Some(Action::Late(_) | Action::OnceAllowed(_)) => true,
            Some(Action::Say(line)) => line.starts_with('2'),
            Some(_) => false,
        };
        self.shared.record.message(message, accepted);
        const USUAL: &str = "250 2.0.0 queued as SCRIPTED";
        match action {
            Some(action) => self.perform(action, USUAL).await.map(drop),
            None => {
                self.say(USUAL);
                Some(())
            }
        }
    }

    /// What was said.
    async fn act(&mut self, at: At, line: &str, usual: &str) -> Option<String> {
        let refused = self.shared.places.refusal(self.number, at);
        match refused.or_else(|| self.shared.script.next(at, line)) {
            Some(action) => self.perform(action, usual).await,
            None => {
                self.say(usual);
                Some(usual.to_owned())
            }
        }
    }

    async fn perform(&mut self, action: Action, usual: &str) -> Option<String> {
        match action {
            Action::Say(line) => {
                self.say(&line);
                return Some(line);
            }
            Action::Raw(octets) => {
                self.output.extend_from_slice(&octets);
                return Some(String::from_utf8_lossy(&octets).into_owned());
            }
            Action::Late(delay) => {
                self.flush().await?;
                tokio::time::sleep(delay).await;
                self.say(usual);
                return Some(usual.to_owned());
            }
            Action::OnceAllowed(permits) => {
                self.flush().await?;
                permits.acquire().await.expect("never closed").forget();
                self.say(usual);
                return Some(usual.to_owned());
            }
            Action::RawAndClose(octets) => {
                self.output.extend_from_slice(&octets);
                self.flush().await?;
            }
            Action::Close => self.flush().await?,
            Action::Stall => while self.fill().await.is_some() {},
            Action::Endless(line) => {
                // A client that reads forever is the bug to find; the test must still end.
                for _ in 0..10_000 {
                    self.say(line);
                    self.flush().await?;
                }
            }
        }
        None
    }

    fn say(&mut self, text: &str) {
        self.output.extend_from_slice(text.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.input, b"\r\n") {
                let line: Vec<u8> = self.input.drain(..end + 2).take(end).collect();
                return Some(String::from_utf8(line).expect("commands are UTF-8"));
            }
            self.fill().await?;
        }
    }

    /// Sends what was said, once there is nothing more to read. RFC 2920 §3.2.
    async fn fill(&mut self) -> Option<()> {
        self.flush().await?;
        let before = self.input.len();
        self.input.reserve(64 * 1024);
        let read = self.stream.read_buf(&mut self.input).await;
        if !read.is_ok_and(|octets| octets > 0) {
            return None;
        }
        self.shared.record.heard(self.secured, &self.input[before..]);
        if self.counting {
            self.shared.record.segment(self.answered);
        }
        self.answered = false;
        Some(())
    }

    async fn flush(&mut self) -> Option<()> {
        if !self.output.is_empty() {
            self.answered = true;
            self.stream.write_all(&self.output).await.ok()?;
            self.stream.flush().await.ok()?;
            self.output.clear();
        }
        Some(())
    }
}

fn verb(line: &str) -> String {
    line.split(' ').next().unwrap_or_default().to_ascii_uppercase()
}

fn ehlo(keywords: &[String]) -> String {
    let mut lines = vec!["scripted.example"];
    lines.extend(keywords.iter().map(String::as_str));
    let last = lines.len() - 1;
    let lines = lines.iter().enumerate();
    let lines = lines.map(|(at, line)| format!("250{}{line}", if at == last { ' ' } else { '-' }));
    lines.collect::<Vec<_>>().join("\r\n")
}

fn decode(base64: &str) -> String {
    String::from_utf8(STANDARD.decode(base64).expect("base64")).expect("UTF-8")
}

/// Without the final dot, and without the dots that were added. Asserts that CRLF alone ends lines.
fn unstuffed(wire: &[u8]) -> Vec<u8> {
    let content = wire.strip_suffix(b".\r\n").expect("data that ends with a dot");
    let mut data = Vec::with_capacity(content.len());
    for line in content.split_inclusive(|&octet| octet == b'\n') {
        let text = line.strip_suffix(b"\r\n").expect("a line that ends with CRLF");
        assert!(!text.contains(&b'\r') && !text.contains(&0), "a bare CR or NUL: {}", text.escape_ascii());
        assert!(text != b".", "a second end of data");
        data.extend_from_slice(line.strip_prefix(b".").unwrap_or(line));
    }
    data
}
