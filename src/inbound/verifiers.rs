//! Decides whose password is checked next. argon2 is slow on purpose, so clients that guess passwords could otherwise
//! keep everyone else waiting.
//!
//! Clients of known networks go first, then networks without a recent wrong password, then guessers; within each rank,
//! networks take turns. Unauthenticated clients never use more than their share of the runs. Every queue is bounded,
//! per network and in total; if it is full, the client is told to try again later. Decides nothing about passwords. RFC
//! 4954 §6.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Per network.
const MOST_WAITING_OF_ONE: usize = 8;
/// Per rank, so that guessers use up only their own places.
const MOST_WAITING: usize = 256;
/// For this long after a wrong password, a network counts as guessers.
const GUESSER_PERIOD: Duration = Duration::from_secs(60);
/// After this many wrong passwords within that time, even a known network counts as guessers.
const MOST_MISTAKES: u32 = 10;
/// Number of networks whose guesses are remembered. If there are more, an unknown network counts as guessers.
const MOST_NETWORKS: usize = 4096;

/// Where a login comes from.
#[derive(Debug, Clone, Copy)]
pub struct LoginSource {
    pub address: IpAddr,
    /// Clients there need no login, or someone has logged in from there within the last day.
    pub is_known: bool,
}

/// The queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy;

/// Clones share the state.
#[derive(Debug, Clone)]
pub(super) struct Verifiers(Arc<Mutex<VerifierState>>);

#[derive(Debug)]
struct VerifierState {
    /// Maximum number of runs at once.
    most: usize,
    /// How many of them unknown clients may use.
    most_unauthenticated: usize,
    running: usize,
    running_unauthenticated: usize,
    waiting: [FairQueue; Rank::ALL.len()],
    /// Quiet networks with a login that is waiting or being checked. Until it proves correct, further logins from there
    /// count as guesses.
    first: HashSet<IpNet>,
    guesses: HashMap<IpNet, Guesses>,
    next_number: u64,
}

#[derive(Debug, Clone, Copy)]
struct Guesses {
    count: u32,
    until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Known,
    Quiet,
    Guessing,
}

impl Rank {
    const ALL: [Self; 3] = [Self::Known, Self::Quiet, Self::Guessing];
}

/// Networks in the order of their turns.
#[derive(Debug, Default)]
struct FairQueue(VecDeque<(IpNet, VecDeque<WaitingLogin>)>);

#[derive(Debug)]
struct WaitingLogin {
    number: u64,
    turn: oneshot::Sender<Run>,
}

/// The right to one run of argon2, until it is dropped.
#[derive(Debug)]
pub(super) struct Run {
    is_unauthenticated: bool,
    verifiers: Verifiers,
    /// Its network's place among the turns.
    place: Option<PendingLogin>,
}

/// A place in a queue, given up when it is dropped.
#[derive(Debug)]
struct PendingLogin {
    rank: Rank,
    network: IpNet,
    number: u64,
    verifiers: Verifiers,
}

impl Verifiers {
    /// `most`: as many runs as there are cores. Half of them, but at least one, are also open to unauthenticated
    /// clients.
    pub fn new(most: usize) -> Self {
        let most = most.max(1);
        let waiting = Rank::ALL.map(|_| FairQueue::default());
        Self(Arc::new(Mutex::new(VerifierState {
            most,
            most_unauthenticated: (most / 2).max(1),
            running: 0,
            running_unauthenticated: 0,
            waiting,
            first: HashSet::new(),
            guesses: HashMap::new(),
            next_number: 0,
        })))
    }

    /// Waits for its turn.
    pub async fn allowance(&self, source: LoginSource) -> Result<Run, Busy> {
        let (place, turn) = self.queue(source)?;
        self.start_checks();
        // The sender of a waiting login is never dropped.
        let mut run = turn.await.map_err(|_| Busy)?;
        run.place = Some(place);
        Ok(run)
    }

    /// Records whether a password from there was right or wrong. Called before the run is released.
    pub fn note(&self, source: LoginSource, was_right: bool) {
        let mut state = self.0.lock();
        let now = Instant::now();
        let network = network_of(source);
        if was_right {
            state.guesses.remove(&network);
            state.promote(network);
            return;
        }
        if state.guesses.len() >= MOST_NETWORKS {
            state.guesses.retain(|_, guesses| guesses.until > now);
        }
        if state.guesses.len() < MOST_NETWORKS || state.guesses.contains_key(&network) {
            let count =
                state.guesses.get(&network).filter(|guesses| guesses.until > now).map_or(0, |known| known.count);
            let guesses = Guesses { count: count.saturating_add(1), until: now + GUESSER_PERIOD };
            state.guesses.insert(network, guesses);
        }
    }

    fn queue(&self, source: LoginSource) -> Result<(PendingLogin, oneshot::Receiver<Run>), Busy> {
        let (sender, turn) = oneshot::channel();
        let network = network_of(source);
        let mut state = self.0.lock();
        let rank = state.rank(source, network);
        let queue = &mut state.waiting[rank as usize];
        if queue.len_of(network) >= MOST_WAITING_OF_ONE || queue.len() >= MOST_WAITING {
            return Err(Busy);
        }
        if rank == Rank::Quiet {
            state.first.insert(network);
        }
        state.next_number += 1;
        let number = state.next_number;
        state.waiting[rank as usize].push(network, WaitingLogin { number, turn: sender });
        drop(state);
        Ok((PendingLogin { rank, network, number, verifiers: self.clone() }, turn))
    }

    /// Starts the checks that may run now.
    fn start_checks(&self) {
        // The lock is released before the run is sent: if the client is gone, the run is dropped at once, which needs
        // the lock.
        while let Some((waiting, is_unauthenticated)) = self.begin_next() {
            drop(waiting.turn.send(Run { is_unauthenticated, verifiers: self.clone(), place: None }));
        }
    }

    fn begin_next(&self) -> Option<(WaitingLogin, bool)> {
        let mut state = self.0.lock();
        let (waiting, is_unauthenticated) = state.next()?;
        state.count(is_unauthenticated, 1);
        Some((waiting, is_unauthenticated))
    }
}

impl VerifierState {
    fn rank(&self, source: LoginSource, network: IpNet) -> Rank {
        let now = Instant::now();
        match self.guesses.get(&network).filter(|guesses| guesses.until > now) {
            Some(guesses) if !source.is_known || guesses.count >= MOST_MISTAKES => Rank::Guessing,
            _ if source.is_known => Rank::Known,
            _ if self.guesses.len() >= MOST_NETWORKS || self.first.contains(&network) => Rank::Guessing,
            _ => Rank::Quiet,
        }
    }

    /// Someone there knew the password, so the network's other logins go before guessers.
    fn promote(&mut self, network: IpNet) {
        for waiting in self.waiting[Rank::Guessing as usize].take(network) {
            self.waiting[Rank::Quiet as usize].push(network, waiting);
        }
    }

    fn next(&mut self) -> Option<(WaitingLogin, bool)> {
        if self.running >= self.most {
            return None;
        }
        let unauthenticated_may = self.running_unauthenticated < self.most_unauthenticated;
        Rank::ALL.into_iter().find_map(|rank| {
            let is_unauthenticated = rank != Rank::Known;
            let next =
                if is_unauthenticated && !unauthenticated_may { None } else { self.waiting[rank as usize].pop() };
            next.map(|waiting| (waiting, is_unauthenticated))
        })
    }

    fn count(&mut self, is_unauthenticated: bool, change: isize) {
        self.running = self.running.saturating_add_signed(change);
        if is_unauthenticated {
            self.running_unauthenticated = self.running_unauthenticated.saturating_add_signed(change);
        }
    }
}

impl FairQueue {
    fn len(&self) -> usize {
        self.0.iter().map(|(_, waiting)| waiting.len()).sum()
    }

    fn len_of(&self, network: IpNet) -> usize {
        self.0.iter().find(|(known, _)| *known == network).map_or(0, |(_, waiting)| waiting.len())
    }

    fn push(&mut self, network: IpNet, one: WaitingLogin) {
        match self.0.iter_mut().find(|(known, _)| *known == network) {
            Some((_, waiting)) => waiting.push_back(one),
            None => self.0.push_back((network, VecDeque::from([one]))),
        }
    }

    /// The first login of the network whose turn it is; the network then goes to the end.
    fn pop(&mut self) -> Option<WaitingLogin> {
        let (network, mut waiting) = self.0.pop_front()?;
        let first = waiting.pop_front();
        if !waiting.is_empty() {
            self.0.push_back((network, waiting));
        }
        first
    }

    /// All waiting logins of one network.
    fn take(&mut self, network: IpNet) -> VecDeque<WaitingLogin> {
        let at = self.0.iter().position(|(known, _)| *known == network);
        at.and_then(|at| self.0.remove(at)).map(|(_, waiting)| waiting).unwrap_or_default()
    }

    fn remove(&mut self, network: IpNet, number: u64) {
        if let Some((_, waiting)) = self.0.iter_mut().find(|(known, _)| *known == network) {
            waiting.retain(|one| one.number != number);
        }
        self.0.retain(|(_, waiting)| !waiting.is_empty());
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.verifiers.0.lock().count(self.is_unauthenticated, -1);
        self.verifiers.start_checks();
    }
}

impl Drop for PendingLogin {
    fn drop(&mut self) {
        let mut state = self.verifiers.0.lock();
        state.waiting.iter_mut().for_each(|queue| queue.remove(self.network, self.number));
        if self.rank == Rank::Quiet {
            state.first.remove(&self.network);
        }
    }
}

/// A known client counts individually; an unauthenticated one may have many addresses in one network.
fn network_of(LoginSource { address, is_known }: LoginSource) -> IpNet {
    match address.to_canonical() {
        address if is_known => address.into(),
        IpAddr::V4(address) => Ipv4Net::new_assert(address, 24).trunc().into(),
        IpAddr::V6(address) => Ipv6Net::new_assert(address, 64).trunc().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;
    use tokio::time::sleep;

    const ONE_RUN: Duration = Duration::from_millis(40);

    fn from(address: [u8; 4], is_known: bool) -> LoginSource {
        LoginSource { address: address.into(), is_known }
    }

    /// A login whose check takes its time and has this result; returns when it was done.
    fn login(verifiers: &Verifiers, source: LoginSource, is_right: bool) -> JoinHandle<Result<Instant, Busy>> {
        let verifiers = verifiers.clone();
        tokio::spawn(async move {
            let run = verifiers.allowance(source).await?;
            sleep(ONE_RUN).await;
            verifiers.note(source, is_right);
            drop(run);
            Ok(Instant::now())
        })
    }

    async fn taken(login: JoinHandle<Result<Instant, Busy>>, since: Instant) -> Duration {
        login.await.expect("no panic").expect("a turn") - since
    }

    /// Guessers from this many networks that keep trying for as long as the test runs.
    async fn guess(verifiers: &Verifiers, networks: u8) {
        for network in 0..networks {
            for address in 0..10 {
                let verifiers = verifiers.clone();
                tokio::spawn(async move {
                    loop {
                        let guess = login(&verifiers, from([192, 0, network, address], false), false);
                        if guess.await.expect("no panic").is_err() {
                            sleep(ONE_RUN).await;
                        }
                    }
                });
            }
        }
        sleep(Duration::from_secs(5)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_right_login_does_not_wait_behind_other_peoples_guesses() {
        for cores in [1, 2, 4] {
            let verifiers = Verifiers::new(cores);
            guess(&verifiers, 25).await;
            let start = Instant::now();
            let quiet = login(&verifiers, from([198, 51, 100, 1], false), true);
            assert!(taken(quiet, start).await <= 2 * ONE_RUN, "one run under way, and its own");
            let start = Instant::now();
            let known = login(&verifiers, from([203, 0, 113, 1], true), true);
            let most = if cores == 1 { 2 * ONE_RUN } else { ONE_RUN };
            assert!(taken(known, start).await <= most, "{cores} cores");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn strangers_have_half_of_the_runs_and_known_clients_all() {
        for (cores, of_strangers) in [(1, 1), (2, 1), (4, 2), (8, 4)] {
            let verifiers = Verifiers::new(cores);
            let running = || {
                let state = verifiers.0.lock();
                (state.running, state.running_unauthenticated)
            };
            let unauthenticated: Vec<_> =
                (0..20).map(|n| login(&verifiers, from([192, 0, n, 1], false), false)).collect();
            sleep(ONE_RUN / 2).await;
            assert_eq!(running(), (of_strangers, of_strangers));
            let known: Vec<_> = (0..20).map(|n| login(&verifiers, from([10, 0, n, 1], true), true)).collect();
            sleep(ONE_RUN / 4).await;
            assert_eq!(running(), (cores, of_strangers));
            for one in unauthenticated.into_iter().chain(known) {
                assert!(one.await.expect("no panic").is_ok());
            }
            assert_eq!(running(), (0, 0), "every run is given back");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn queues_are_bounded_for_one_network_and_in_all_and_excess_is_told_so() {
        let verifiers = Verifiers::new(1);
        let refused = async |logins: Vec<JoinHandle<Result<Instant, Busy>>>| {
            let mut count = 0;
            for login in logins {
                count += usize::from(login.await.expect("no panic").is_err());
            }
            count
        };
        // One of them has its turn already, as the first of a quiet network.
        let of_one = (0..30).map(|n| login(&verifiers, from([192, 0, 2, n], false), true)).collect();
        assert_eq!(refused(of_one).await, 30 - 1 - MOST_WAITING_OF_ONE);
        let of_many = (0..300).map(|n: u16| {
            let [high, low] = n.to_be_bytes();
            login(&verifiers, from([10, high, low, 1], false), true)
        });
        assert_eq!(refused(of_many.collect()).await, 300 - 1 - MOST_WAITING);
        let state = verifiers.0.lock();
        let is_empty = state.waiting.iter().all(|queue| queue.0.is_empty());
        assert!(is_empty && state.guesses.is_empty() && state.first.is_empty(), "nothing is kept");
    }

    #[tokio::test(start_paused = true)]
    async fn of_a_quiet_network_one_login_goes_ahead_and_takes_the_others_along_if_it_was_right() {
        let verifiers = Verifiers::new(1);
        let guessers: Vec<_> = (0..20)
            .flat_map(|network| (0..5).map(move |address| [192, 0, network, address]))
            .map(|address| login(&verifiers, from(address, false), false))
            .collect();
        sleep(ONE_RUN / 2).await;
        let start = Instant::now();
        let ours: Vec<_> = (0..4).map(|n| login(&verifiers, from([198, 51, 100, n], false), true)).collect();
        for login in ours {
            // Each of the twenty others has had one first guess and no second one.
            assert!(taken(login, start).await <= (20 + 4) * ONE_RUN);
        }
        for login in guessers {
            assert!(login.await.expect("no panic").is_ok(), "and then they have theirs");
        }
        assert!(verifiers.0.lock().first.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_leaves_the_queue_and_the_run() {
        let verifiers = Verifiers::new(1);
        let first = verifiers.allowance(from([192, 0, 2, 1], false)).await.expect("free");
        let waiting: Vec<_> = (1..9).map(|n| login(&verifiers, from([192, 0, n, 1], false), true)).collect();
        sleep(ONE_RUN).await;
        waiting.iter().for_each(JoinHandle::abort);
        sleep(ONE_RUN).await;
        assert!(verifiers.0.lock().waiting.iter().all(|queue| queue.0.is_empty()));
        drop(first);
        assert!(verifiers.allowance(from([192, 0, 2, 1], false)).await.is_ok());
        assert_eq!(verifiers.0.lock().running, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn guesses_are_forgotten_after_a_minute_and_their_number_is_bounded() {
        let verifiers = Verifiers::new(1);
        let rank = |source| verifiers.0.lock().rank(source, network_of(source));
        let [stranger, neighbour] = [1, 2].map(|host| from([192, 0, 2, host], false));
        assert_eq!(rank(stranger), Rank::Quiet);
        verifiers.note(stranger, false);
        assert_eq!((rank(stranger), rank(neighbour)), (Rank::Guessing, Rank::Guessing));
        sleep(GUESSER_PERIOD).await;
        assert_eq!(rank(stranger), Rank::Quiet);
        let known = from([192, 0, 2, 1], true);
        for _ in 1..MOST_MISTAKES {
            verifiers.note(known, false);
        }
        assert_eq!(rank(known), Rank::Known, "it may mistype");
        verifiers.note(known, false);
        assert_eq!(rank(known), Rank::Guessing);
        verifiers.note(known, true);
        assert_eq!(rank(known), Rank::Known);
        for n in 0..u32::try_from(2 * MOST_NETWORKS).expect("small") {
            let source =
                LoginSource { address: std::net::Ipv4Addr::from(0x0a00_0000 + (n << 8)).into(), is_known: false };
            verifiers.note(source, false);
        }
        assert_eq!(verifiers.0.lock().guesses.len(), MOST_NETWORKS);
        assert_eq!((rank(from([198, 51, 100, 1], false)), rank(known)), (Rank::Guessing, Rank::Known));
        sleep(GUESSER_PERIOD).await;
        verifiers.note(stranger, false);
        assert_eq!(verifiers.0.lock().guesses.len(), 1);
    }
}
