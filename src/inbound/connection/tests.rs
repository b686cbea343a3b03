//! Deadlines under paused time, and what happens while the intake has a message.

use super::*;
use crate::inbound::limits::ConnectionCounter;
use crate::inbound::testing::{Recorder, budget, options, server_tls};
use crate::inbound::users::Password;
use crate::inbound::{AuthMode, Client};
use crate::observe::Secret;
use crate::smtp::ReversePath;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, DuplexStream, duplex};
use tokio::sync::Notify;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const ENVELOPE: &[u8] = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n";

/// One connection over a pipe.
struct Talk {
    client: DuplexStream,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Talk {
    fn start<I: Intake>(options: ListenerOptions, intake: &Arc<I>) -> Self {
        let slot = slot(&options);
        Self::start_in(slot, options, intake)
    }

    fn start_in<I: Intake>(slot: ConnectionSlot, options: ListenerOptions, intake: &Arc<I>) -> Self {
        let (client, server) = duplex(1024 * 1024);
        let stop = CancellationToken::new();
        let serving = tokio::spawn(run_in(slot, server, options, Arc::clone(intake), stop.clone()));
        Self { client, stop, serving }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.expect("a pipe");
    }

    /// Reads up to the last line of `codes.len()` replies; asserts their codes.
    async fn expect(&mut self, codes: &[&str]) {
        let mut said = Vec::new();
        while replies(&said).len() < codes.len() {
            let read = self.client.read_buf(&mut said).await.expect("a pipe");
            assert!(read > 0, "closed after {}", said.escape_ascii());
        }
        assert_eq!(replies(&said), codes);
    }

    /// Returns everything up to the end.
    async fn rest(mut self) -> Vec<String> {
        let mut said = Vec::new();
        self.client.read_to_end(&mut said).await.expect("a pipe");
        drop(self.client);
        self.serving.await.expect("no panic");
        replies(&said)
    }
}

const PEER: ([u8; 4], u16) = ([127, 0, 0, 1], 40_000);

/// The only connection of its listener.
fn slot(options: &ListenerOptions) -> ConnectionSlot {
    let address = SocketAddr::from(PEER).ip();
    ConnectionCounter::new(1, 0, 1).admit(address, options.needs_no_login(address)).expect("room")
}

async fn run<S, I>(socket: S, options: ListenerOptions, intake: Arc<I>, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
    I: Intake,
{
    run_in(slot(&options), socket, options, intake, stop).await;
}

async fn run_in<S, I>(
    slot: ConnectionSlot,
    socket: S,
    options: ListenerOptions,
    intake: Arc<I>,
    stop: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    I: Intake,
{
    let users = Users::new([("u".into(), Password::Plain(Secret::new("p")))]);
    let service = service(options, users, intake, stop);
    serve(socket, PEER.into(), slot, &service).await;
}

fn service<I>(options: ListenerOptions, users: Users, intake: Arc<I>, stop: CancellationToken) -> ListenerService<I> {
    let options = Arc::new(options);
    let role = ListenerRole { options: options.clone(), users: users.clone(), intake };
    let role = watch::Sender::new(Arc::new(role)).subscribe();
    ListenerService { options, users, budget: budget(), role, stop, log_limiter: Arc::default() }
}

fn replies(said: &[u8]) -> Vec<String> {
    let lines = std::str::from_utf8(said).expect("UTF-8").lines();
    lines.filter(|line| line.as_bytes().get(3) == Some(&b' ')).map(|line| line[..3].to_owned()).collect()
}

fn recorder() -> Arc<Recorder> {
    Arc::default()
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_sent_away_after_the_timeout() {
    let mut talk = Talk::start(options(), &recorder());
    talk.expect(&["220"]).await;
    let start = Instant::now();
    talk.expect(&["421"]).await;
    assert_eq!(start.elapsed(), options().timeout);
    assert_eq!(talk.rest().await, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_octet_now_and_then_does_not_prolong_a_command() {
    let mut talk = Talk::start(options(), &recorder());
    talk.expect(&["220"]).await;
    for _ in 0..4 {
        talk.send(b"x").await;
        sleep(options().timeout / 3).await;
    }
    talk.expect(&["421"]).await;
}

/// A client outside every `allow`.
fn stranger() -> ListenerOptions {
    ListenerOptions { auth: AuthMode::Required, ..options() }
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_login_cannot_hold_its_connection() {
    let mut talk = Talk::start(stranger(), &recorder());
    let start = Instant::now();
    talk.expect(&["220"]).await;
    for command in [&b"EHLO x\r\n"[..], b"NOOP\r\n", b"RSET\r\n", b"HELP\r\n", b"VRFY x\r\n"] {
        talk.send(command).await;
        sleep(LONGEST_LOGIN / 6).await;
    }
    let said = talk.rest().await;
    assert_eq!(said.last().map(String::as_str), Some("421"));
    assert_eq!(start.elapsed(), LONGEST_LOGIN);
}

#[tokio::test(start_paused = true)]
async fn a_client_without_a_login_that_reads_nothing_is_let_go_no_later() {
    let start = Instant::now();
    let (mut client, server) = duplex(64);
    let serving = tokio::spawn(run(server, stranger(), recorder(), CancellationToken::new()));
    client.write_all(b"HELP\r\nHELP\r\n").await.expect("a pipe");
    serving.await.expect("no panic");
    assert!(start.elapsed() <= LONGEST_LOGIN + LINGER);
}

#[tokio::test]
async fn the_one_that_has_waited_longest_for_its_login_makes_room_for_another() {
    let connections = ConnectionCounter::new(2, 0, 2);
    let recorder = recorder();
    let come = || {
        let slot = connections.admit(PEER.0.into(), false).expect("room");
        Talk::start_in(slot, stranger(), &recorder)
    };
    let mut first = come();
    first.send(b"EHLO x\r\nAUTH PLAIN AHUAcA==\r\n").await;
    first.expect(&["220", "250", "235"]).await;
    let mut second = come();
    second.send(b"EHLO x\r\n").await;
    second.expect(&["220", "250"]).await;
    let mut third = come();
    assert_eq!(second.rest().await, ["421"]);
    for (talk, said) in [(&mut first, &["250"][..]), (&mut third, &["220", "250"])] {
        talk.send(b"NOOP\r\n").await;
        talk.expect(said).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_may_send_keeps_its_connection_for_hours() {
    for (options, login) in [(options(), &b""[..]), (stranger(), b"AUTH PLAIN AHUAcA==\r\n")] {
        let recorder = recorder();
        let timeout = options.timeout;
        let mut talk = Talk::start(options, &recorder);
        talk.send(&[b"EHLO x\r\n", login].concat()).await;
        talk.expect(if login.is_empty() { &["220", "250"] } else { &["220", "250", "235"] }).await;
        for message in 0..40 {
            for _ in 0..10 {
                sleep(timeout * 9 / 10).await;
                talk.send(b"NOOP\r\n").await;
                talk.expect(&["250"]).await;
            }
            talk.send(&ENVELOPE[b"EHLO x\r\n".len()..]).await;
            talk.expect(&["250", "250", "354"]).await;
            talk.send(b"x\r\n.\r\n").await;
            talk.expect(&["250"]).await;
            assert_eq!(recorder.count(), message + 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn data_below_the_minimum_rate_is_given_up() {
    let recorder = recorder();
    let mut talk = Talk::start(options(), &recorder);
    talk.send(ENVELOPE).await;
    talk.expect(&["220", "250", "250", "250", "354"]).await;
    let start = Instant::now();
    for _ in 0..29 {
        talk.send(b"a line every ten seconds\r\n").await;
        sleep(Duration::from_secs(10)).await;
    }
    talk.expect(&["421"]).await;
    assert_eq!(start.elapsed(), options().timeout);
    drop(talk);
    assert_eq!(recorder.count(), 0);
}

#[tokio::test(start_paused = true)]
async fn slow_data_above_the_minimum_rate_arrives() {
    let recorder = recorder();
    let options = ListenerOptions { max_message_size: 10_000_000, ..options() };
    let mut talk = Talk::start(options, &recorder);
    talk.send(ENVELOPE).await;
    talk.expect(&["220", "250", "250", "250", "354"]).await;
    // Longer than the timeout for one command.
    for _ in 0..100 {
        talk.send(&[b'x'; 11_000]).await;
        sleep(Duration::from_secs(10)).await;
    }
    talk.send(b"\r\n.\r\n").await;
    talk.expect(&["250"]).await;
    assert_eq!(recorder.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_refused_has_an_end() {
    let mut talk = Talk::start(options(), &recorder());
    talk.send(ENVELOPE).await;
    talk.expect(&["220", "250", "250", "250", "354"]).await;
    let start = Instant::now();
    let longest = options().timeout + Duration::from_secs(options().max_message_size / MIN_RATE);
    // Far above the minimum rate; as much as twenty of the largest messages.
    while start.elapsed() < longest - Duration::from_secs(1) {
        talk.send(&[b'x'; 5_000]).await;
        sleep(Duration::from_secs(1)).await;
    }
    talk.expect(&["421"]).await;
    assert_eq!(start.elapsed(), longest);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_reading_is_let_go() {
    let (mut client, server) = duplex(64);
    let serving = tokio::spawn(run(server, options(), recorder(), CancellationToken::new()));
    // The reply to HELP does not fit into the pipe after the greeting.
    client.write_all(b"HELP\r\nHELP\r\n").await.expect("a pipe");
    serving.await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_never_begins_tls_is_let_go() {
    let options = ListenerOptions { tls: Tls::Implicit(server_tls()), ..options() };
    let talk = Talk::start(options, &recorder());
    talk.serving.await.expect("no panic");
    drop(talk.client);
}

/// Counts the writes; each is a segment.
struct Counting {
    socket: DuplexStream,
    writes: Arc<AtomicUsize>,
    /// Octets of the largest write.
    largest: Arc<AtomicUsize>,
}

impl AsyncRead for Counting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.largest.fetch_max(bytes.len(), Ordering::Relaxed);
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[tokio::test]
async fn a_pipelined_batch_is_answered_in_one_segment() {
    let (client, socket) = duplex(1024 * 1024);
    let writes = Arc::new(AtomicUsize::new(0));
    let counting = Counting { socket, writes: Arc::clone(&writes), largest: Arc::default() };
    let stop = CancellationToken::new();
    let serving = tokio::spawn(run(counting, options(), recorder(), stop.clone()));
    let mut talk = Talk { client, stop, serving };
    talk.expect(&["220"]).await;
    talk.send(ENVELOPE).await;
    talk.expect(&["250", "250", "250", "354"]).await;
    assert_eq!(writes.load(Ordering::Relaxed), 2);
    talk.send(b"x\r\n.\r\nQUIT\r\n").await;
    assert_eq!(talk.rest().await, ["250", "221"]);
    assert_eq!(writes.load(Ordering::Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn after_quit_nobody_waits_for_the_client_to_close() {
    // What follows QUIT has to be read first, or closing would reset the connection before its client has the replies.
    for (last, lingers) in [(&b"QUIT\r\n"[..], false), (b"QUIT\r\nNOOP\r\n", true)] {
        let mut talk = Talk::start(options(), &recorder());
        talk.expect(&["220"]).await;
        let start = Instant::now();
        talk.send(last).await;
        talk.expect(&["221"]).await;
        talk.serving.await.expect("no panic");
        assert_eq!(start.elapsed() >= LINGER, lingers, "{}", last.escape_ascii());
    }
}

/// Signals that a message has arrived, and keeps it until it is released.
#[derive(Default)]
struct Gate {
    entered: Notify,
    open: Notify,
    taken: Mutex<usize>,
    done: Notify,
}

impl Intake for Gate {
    fn admit(&self, _: &Client, _: &ReversePath, _: Option<u64>) -> Result<(), Reply> {
        Ok(())
    }

    async fn accept(&self, _: Received) -> Reply {
        self.entered.notify_one();
        self.open.notified().await;
        *self.taken.lock() += 1;
        self.done.notify_one();
        Reply::ok()
    }
}

async fn at_the_gate() -> (Arc<Gate>, Talk) {
    let gate = Arc::new(Gate::default());
    let mut talk = Talk::start(options(), &gate);
    talk.send(&[ENVELOPE, b"x\r\n.\r\nNOOP\r\n"].concat()).await;
    talk.expect(&["220", "250", "250", "250", "354"]).await;
    gate.entered.notified().await;
    (gate, talk)
}

#[tokio::test]
async fn a_client_that_closes_while_its_message_is_stored_takes_nothing_back() {
    let (gate, talk) = at_the_gate().await;
    drop(talk.client);
    gate.open.notify_one();
    talk.serving.await.expect("no panic");
    assert_eq!(*gate.taken.lock(), 1);
}

#[tokio::test]
async fn a_connection_that_is_cut_off_while_a_message_is_stored_takes_nothing_back() {
    let (gate, talk) = at_the_gate().await;
    talk.serving.abort();
    assert!(talk.serving.await.is_err_and(|error| error.is_cancelled()));
    gate.open.notify_one();
    gate.done.notified().await;
    assert_eq!(*gate.taken.lock(), 1);
}

#[tokio::test]
async fn a_stop_while_a_message_is_stored_comes_behind_its_reply() {
    let (gate, talk) = at_the_gate().await;
    talk.stop.cancel();
    gate.open.notify_one();
    // A client that is always one command ahead does not keep the gateway running.
    assert_eq!(talk.rest().await, ["250", "421"]);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_handshake() {
    let options = ListenerOptions { tls: Tls::Implicit(server_tls()), ..options() };
    let talk = Talk::start(options, &recorder());
    talk.stop.cancel();
    talk.serving.await.expect("no panic");
    drop(talk.client);
}

struct Panics;

impl Intake for Panics {
    fn admit(&self, _: &Client, _: &ReversePath, _: Option<u64>) -> Result<(), Reply> {
        Ok(())
    }

    async fn accept(&self, _: Received) -> Reply {
        panic!("on purpose")
    }
}

#[tokio::test]
async fn an_intake_that_panics_costs_one_message_for_now() {
    let mut talk = Talk::start(options(), &Arc::new(Panics));
    talk.send(&[ENVELOPE, b"x\r\n.\r\nNOOP\r\nQUIT\r\n"].concat()).await;
    talk.expect(&["220", "250", "250", "250", "354", "451", "250", "221"]).await;
    assert_eq!(talk.rest().await, [""; 0]);
}

/// Commands with the longest replies, from a client that reads none of them.
#[tokio::test(start_paused = true)]
async fn replies_that_nobody_reads_take_no_memory() {
    for command in ["EHLO x\r\n", "HELP\r\n", "RCPT TO:<>\r\n", "AUTH LOGIN\r\n*\r\n"] {
        let (mut client, socket) = duplex(READ_COMMANDS);
        let largest = Arc::new(AtomicUsize::new(0));
        let server = Counting { socket, writes: Arc::default(), largest: largest.clone() };
        let options = options();
        let serving = tokio::spawn(run_in(slot(&options), server, options, recorder(), CancellationToken::new()));
        client.write_all(command.repeat(READ_COMMANDS / command.len()).as_bytes()).await.expect("room");
        tokio::task::yield_now().await;
        serving.await.expect("it is let go");
        let largest = largest.load(Ordering::Relaxed);
        assert!(largest > 0 && largest <= MOST_UNWRITTEN + 1024, "{command:?}: {largest} octets");
    }
}

/// Ten thousand connections may wait at once.
#[tokio::test]
async fn a_connection_that_waits_holds_little() {
    let options = ListenerOptions { max_connections: 10, ..options() };
    let slot = slot(&options);
    let service = service(options, Users::none(), recorder(), CancellationToken::new());
    let (_client, server) = duplex(64);
    let size = size_of_val(&serve(server, ([127, 0, 0, 1], 40_000).into(), slot, &service));
    println!("a connection's future: {size} octets; a step: {}", size_of::<SessionStep>());
    assert!(size <= 2048, "{size} octets");
}
