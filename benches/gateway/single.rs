//! What is asked of waxseal alone: a lone mail's wait, direct mode, memory, large messages, syncs, and the end of an outage.

use super::measure::memory;
use super::options::Options;
use super::run::{Bed, PATIENCE, Scenario};
use super::servers::waxseal::{Waxseal, metric};
use super::servers::{Place, Running};
use super::sink::{Certificate, Sink};
use super::source::{Load, idle, send, send_one_by_one};
use super::yardstick::Log;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

const KIB: usize = 1024;
/// After the last mail has arrived: what is left to do for it.
const SETTLED: Duration = Duration::from_millis(10);
const LONE_MAILS: usize = 200;
const IDLE_CONNECTIONS: usize = 10_000;
const UPSTREAM_CONNECTIONS: usize = 20;

/// Times in milliseconds, memory in MiB. `None`: not measured here, and a line of the output says why.
#[derive(Debug, Clone, Default)]
pub struct Single {
    /// A lone mail's acknowledgement, and a sync measured between the mails.
    pub lone: Option<(f64, f64)>,
    /// What direct mode adds to the sink's own answer.
    pub direct_added: Option<f64>,
    pub idle_memory: Option<f64>,
    pub idle_connections_memory: Option<f64>,
    /// 25 MiB messages, 20 at once: messages per second and memory.
    pub large: Option<(f64, f64)>,
    pub syncs_per_message: Option<f64>,
    /// Messages per second after an outage, the same with an empty queue, and the start with what was queued.
    pub drain: Option<(f64, f64, f64)>,
}

type Outcome<T> = Result<T, String>;

/// Everything, one after the other; failures are added to the list.
pub fn all(options: &Options, bed: &Bed<'_>, failures: &mut Vec<String>) -> Single {
    let waxseal = Waxseal::new(&options.program);
    let mut kept = |what: &str, outcome: Outcome<String>| match outcome {
        Ok(text) => println!("{what}: {text}"),
        Err(e) => failures.push(format!("{what}: {e}")),
    };
    let mut single = Single::default();
    let lone = lone(bed, &waxseal);
    single.lone = lone.as_ref().ok().copied();
    kept("a lone mail", lone.map(|(wait, sync)| format!("acknowledged in {wait:.2} ms, a sync in {sync:.2} ms")));
    let direct = direct(bed, &waxseal);
    single.direct_added = direct.as_ref().ok().copied();
    kept("direct mode", direct.map(|added| format!("{added:.2} ms more than the sink itself")));
    let memory = idle_memory(bed, &waxseal);
    single.idle_memory = memory.as_ref().ok().map(|memory| memory.0);
    single.idle_connections_memory = memory.as_ref().ok().map(|memory| memory.1);
    kept(
        "idle",
        memory.map(|(alone, held)| format!("{alone:.1} MiB; with {IDLE_CONNECTIONS} connections {held:.1} MiB")),
    );
    let large = large(bed, &waxseal, 2 * 20);
    single.large = large.as_ref().ok().copied();
    kept("25 MiB, 20 at once", large.map(|(rate, memory)| format!("{rate:.1}/s, at most {memory:.0} MiB")));
    let syncs = syncs(bed, &waxseal, options.messages(4 * KIB));
    single.syncs_per_message = syncs.as_ref().ok().copied();
    kept("syncs per message, 50x100", syncs.map(|syncs| format!("{syncs:.2}")));
    let drain = drain(bed, &waxseal, options.queued(), options.messages(4 * KIB));
    single.drain = drain.as_ref().ok().copied();
    kept(
        "after an outage",
        drain.map(|(rate, empty, start)| {
            format!("{} queued: start {start:.0} ms, {rate:.0}/s, with an empty queue {empty:.0}/s", options.queued())
        }),
    );
    single
}

fn load(address: SocketAddr, clients: usize, messages: usize, size: usize) -> Load {
    Load { address, tls: None, clients, messages_per_connection: messages, messages, size }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

/// Waits for the mail of this number, and until its delivery is noted.
fn after_arrival(sink: &Sink, number: usize) {
    let asked = Instant::now();
    while sink.arrived() <= number && asked.elapsed() < PATIENCE {
        std::thread::park_timeout(Duration::from_millis(1));
    }
    std::thread::park_timeout(SETTLED);
}

fn lone(bed: &Bed<'_>, waxseal: &Waxseal) -> Outcome<(f64, f64)> {
    let (sink, folder) = (Sink::start(), bed.folder());
    let running = waxseal.start(&bed.place(folder.path(), &sink, UPSTREAM_CONNECTIONS));
    let mut log = Log::create(folder.path(), 4 * KIB);
    let mut syncs = Vec::new();
    sink.expect(LONE_MAILS);
    let waits = send_one_by_one(load(running.address, 1, LONE_MAILS, 4 * KIB), |number| {
        after_arrival(&sink, number);
        syncs.push(log.append());
    })?;
    Ok((median(waits), median(syncs)))
}

fn direct(bed: &Bed<'_>, waxseal: &Waxseal) -> Outcome<f64> {
    let (sink, folder) = (Sink::start(), bed.folder());
    let direct = Waxseal { delivery: "direct", ..waxseal.clone() };
    let running = direct.start(&bed.place(folder.path(), &sink, UPSTREAM_CONNECTIONS));
    sink.expect(LONE_MAILS);
    let through = send_one_by_one(load(running.address, 1, LONE_MAILS, 4 * KIB), |_| ())?;
    sink.expect(LONE_MAILS);
    let straight = Load { tls: Some(sink.client_tls()), ..load(sink.address, 1, LONE_MAILS, 4 * KIB) };
    Ok(median(through) - median(send_one_by_one(straight, |_| ())?))
}

fn idle_memory(bed: &Bed<'_>, waxseal: &Waxseal) -> Outcome<(f64, f64)> {
    allow_sockets(IDLE_CONNECTIONS as u64 + 1000)?;
    let (sink, folder) = (Sink::start(), bed.folder());
    let many = Waxseal { max_connections: 2 * IDLE_CONNECTIONS, ..waxseal.clone() };
    let running = many.start(&bed.place(folder.path(), &sink, UPSTREAM_CONNECTIONS));
    let settle = Duration::from_secs(2);
    std::thread::park_timeout(settle);
    let alone = memory(&running.processes);
    let _held = idle(load(running.address, IDLE_CONNECTIONS, 0, KIB))?;
    std::thread::park_timeout(settle);
    Ok((alone, memory(&running.processes)))
}

/// Children inherit the limit, so the server gets it as well.
fn allow_sockets(count: u64) -> Outcome<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if now.current.is_none_or(|current| current >= count) {
        return Ok(());
    }
    let wanted = Rlimit { current: Some(count), maximum: now.maximum.map(|maximum| maximum.max(count)) };
    setrlimit(Resource::Nofile, wanted).map_err(|e| format!("{count} open files are not allowed here: {e}"))
}

fn large(bed: &Bed<'_>, waxseal: &Waxseal, messages: usize) -> Outcome<(f64, f64)> {
    // A little less than the limit, which is for the message with our own headers.
    let size = 25 * KIB * KIB - 64 * KIB;
    let scenario = Scenario { clients: 20, messages_per_connection: 1, upstream_connections: 20, size };
    let measured = bed.run(|place| waxseal.start(place), &scenario, messages)?;
    Ok((measured.messages_per_second, measured.peak_memory))
}

/// Each commit of the queue is one sync, and the gateway counts its commits itself: a tracer would slow it down, and so change
/// how many operations share one. The first mails, which open the connections, do not count.
fn syncs(bed: &Bed<'_>, waxseal: &Waxseal, messages: usize) -> Outcome<f64> {
    let (sink, folder) = (Sink::start(), bed.folder());
    let port = super::ports::ReservedPort::take().number;
    let counting = Waxseal { admin_port: Some(port), ..waxseal.clone() };
    let running = counting.start(&bed.place(folder.path(), &sink, UPSTREAM_CONNECTIONS));
    let commits_after = |messages: usize| {
        sink.expect(messages);
        send(Load { messages_per_connection: 100, ..load(running.address, 50, messages, 4 * KIB) })?;
        sink.wait(PATIENCE)?;
        std::thread::park_timeout(10 * SETTLED);
        metric(port, "waxseal_queue_sync_seconds_count").ok_or("the gateway's metrics do not have it".to_owned())
    };
    let before = commits_after(messages / 10)?;
    Ok((commits_after(messages)? - before) / messages as f64)
}

/// Queues mail while the provider is away, kills the gateway, lets the provider come back, and starts it again.
fn drain(bed: &Bed<'_>, waxseal: &Waxseal, queued: usize, messages: usize) -> Outcome<(f64, f64, f64)> {
    let scenario = Scenario { clients: 50, messages_per_connection: 100, upstream_connections: 20, size: 4 * KIB };
    let empty = bed.run(|place| waxseal.start(place), &scenario, messages)?.messages_per_second;
    let (folder, certificate) = (bed.folder(), Certificate::new());
    let reserved = super::ports::ReservedPort::take();
    let address: SocketAddr = ([127, 0, 0, 1], reserved.number).into();
    let pem = certificate.pem();
    let place = Place {
        folder: folder.path(),
        sink: address,
        certificate: &pem,
        dkim_key: bed.dkim_key,
        upstream_connections: UPSTREAM_CONNECTIONS,
    };
    let mut away = waxseal.start(&place);
    send(Load { messages_per_connection: 1000, ..load(away.address, 50, queued, 4 * KIB) })?;
    away.processes.kill();
    drop(away);
    drop(reserved);
    let sink = Sink::start_on(TcpListener::bind(address).map_err(|e| e.to_string())?, &certificate);
    sink.expect(queued);
    let began = Instant::now();
    let running = waxseal.start(&place);
    let start = began.elapsed().as_secs_f64() * 1000.0;
    let rate = steady_rate(&sink, &running, queued)?;
    Ok((rate, empty, start))
}

/// Between a twentieth and nine tenths: without the first connections, and without those few that had been tried during the
/// outage and wait for their time.
fn steady_rate(sink: &Sink, running: &Running, queued: usize) -> Outcome<f64> {
    let at = |share: usize| {
        let (mut seen, mut changed) = (sink.arrived(), Instant::now());
        while seen < queued * share / 100 {
            std::thread::park_timeout(Duration::from_millis(5));
            if sink.arrived() > seen {
                (seen, changed) = (sink.arrived(), Instant::now());
            } else if changed.elapsed() > 2 * PATIENCE {
                return Err(format!("{seen} of {queued} have arrived; the log ends with\n{}", running.last_words()));
            }
        }
        Ok((seen, Instant::now()))
    };
    let (first, last) = (at(5)?, at(90)?);
    Ok((last.0 - first.0) as f64 / (last.1 - first.1).as_secs_f64())
}
