//! Pool and breaker together, on random walks: whatever fails, times out, recovers or gives up, and in whatever order,
//! no more permits are held than the cap, one probe goes alone, and no waiting caller is forgotten.

use super::tests::Fake;
use super::*;
use crate::message::outcome::Signal;
use crate::relay::breaker::{Admission, AttemptPass, Breaker};
use proptest::prelude::*;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const CAP: usize = 4;

#[derive(Debug, Clone, Copy)]
enum WalkStep {
    /// A message for one of the two upstreams; `true`: on a fresh connection.
    Begin(usize, bool),
    /// Ends the oldest attempt that has a connection, or a later one.
    End(usize, Signal),
    /// A waiting caller gives up.
    GiveUp(usize),
    /// Limits the pool, as a provider's pace does.
    Limit(usize),
    Pass(u64),
    /// A connection that was being closed is gone.
    Closed,
    CutPause(usize),
}

enum JobState {
    Waiting(Ticket<Fake>),
    Holding(Fake),
}

struct WalkJob {
    upstream: usize,
    pass: AttemptPass,
    place: JobState,
}

struct Walk {
    pool: Arc<Pool<Fake>>,
    members: [Arc<PoolMember>; 2],
    breakers: [Breaker; 2],
    jobs: Vec<WalkJob>,
    /// Being closed.
    closing: Vec<Fake>,
    now: Instant,
}

impl Walk {
    fn new() -> Self {
        Self {
            pool: Pool::new(CAP),
            members: [PoolMember::new(), PoolMember::new()],
            breakers: [Breaker::new(CAP), Breaker::new(CAP)],
            jobs: Vec::new(),
            closing: Vec::new(),
            now: Instant::now(),
        }
    }

    fn act(&mut self, step: WalkStep) {
        match step {
            WalkStep::Begin(upstream, fresh) => self.begin(upstream, if fresh { Reuse::Fresh } else { Reuse::Allowed }),
            WalkStep::End(which, signal) => self.end(which, signal),
            WalkStep::GiveUp(which) => {
                let waiting = |(_, job): &(usize, &WalkJob)| matches!(job.place, JobState::Waiting(_));
                let found = self.jobs.iter().enumerate().filter(waiting).map(|(at, _)| at).nth(which);
                if let Some(job) = found.map(|at| self.jobs.remove(at)) {
                    self.breakers[job.upstream].ended(job.pass, Signal::None, self.now, 0);
                }
            }
            WalkStep::Limit(limit) => self.closing.extend(self.pool.set_limit(limit)),
            WalkStep::Pass(milliseconds) => self.now += Duration::from_millis(milliseconds),
            WalkStep::Closed => drop((!self.closing.is_empty()).then(|| self.closing.remove(0))),
            WalkStep::CutPause(upstream) => self.breakers[upstream].cut_pause(self.now),
        }
        self.look();
    }

    fn begin(&mut self, upstream: usize, reuse: Reuse) {
        let Admission::Go(pass) = self.breakers[upstream].admit(self.now, false) else { return };
        let place = match self.pool.claim(&self.members[upstream], reuse) {
            Claim::Granted(PoolGrant::Permit(permit)) => JobState::Holding(Fake(permit)),
            Claim::Granted(PoolGrant::Connection(connection)) => JobState::Holding(connection),
            Claim::Wait(ticket, evicted) => {
                self.closing.extend(evicted);
                JobState::Waiting(ticket)
            }
            Claim::Closed => panic!("nobody closes it"),
        };
        self.jobs.push(WalkJob { upstream, pass, place });
    }

    fn end(&mut self, which: usize, signal: Signal) {
        let holding = |(_, job): &(usize, &WalkJob)| matches!(job.place, JobState::Holding(_));
        let found = self.jobs.iter().enumerate().filter(holding).map(|(at, _)| at).nth(which);
        let Some(WalkJob { upstream, pass, place: JobState::Holding(connection) }) =
            found.map(|at| self.jobs.remove(at))
        else {
            return;
        };
        if signal == Signal::Success {
            if let PutBack::Surplus(connection) = self.pool.put_back(connection, self.now + Duration::from_secs(30)) {
                self.closing.push(connection);
            }
        } else {
            connection.permit().start_closing();
            self.closing.push(connection);
        }
        self.breakers[upstream].ended(pass, signal, self.now, 0);
        // Callers that wait for an upstream that became unavailable give up.
        let breakers = &self.breakers;
        self.jobs
            .retain(|job| matches!(job.place, JobState::Holding(_)) || breakers[job.upstream].is_current(job.pass));
    }

    /// The served caller holds it now.
    fn look(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for job in &mut self.jobs {
            let JobState::Waiting(ticket) = &mut job.place else { continue };
            let granted = std::pin::pin!(ticket.granted()).poll(&mut cx);
            if let Poll::Ready(grant) = granted {
                job.place = JobState::Holding(match grant.expect("nobody closes it") {
                    PoolGrant::Permit(permit) => Fake(permit),
                    PoolGrant::Connection(connection) => connection,
                });
            }
        }
        let held = self.members.iter().map(|member| member.open()).sum::<usize>();
        assert!(held <= CAP, "{held} connections");
        for (upstream, breaker) in self.breakers.iter().enumerate() {
            let current = self.jobs.iter().filter(|job| job.upstream == upstream && breaker.is_current(job.pass));
            assert!(breaker.is_closed() || current.count() <= 1, "a probe goes alone");
        }
    }

    /// Everything ends well: everyone must be served.
    fn finish(mut self) {
        self.closing.extend(self.pool.set_limit(CAP));
        for _ in 0..10 * (self.jobs.len() + self.closing.len() + 1) {
            self.closing.clear();
            self.look();
            self.act(WalkStep::End(0, Signal::Success));
        }
        assert!(self.jobs.is_empty(), "{} still wait", self.jobs.len());
        self.closing.clear();
        for member in &self.members {
            drop(self.pool.close(member));
        }
        assert_eq!(self.members.iter().map(|member| member.open()).sum::<usize>(), 0);
    }
}

fn step() -> impl Strategy<Value = WalkStep> {
    let signal = prop_oneof![
        6 => Just(Signal::Success),
        1 => Just(Signal::Unavailable),
        1 => Just(Signal::Broken),
        1 => Just(Signal::SlowDown),
        1 => Just(Signal::None),
    ];
    prop_oneof![
        8 => (0..2_usize, prop::bool::weighted(0.2)).prop_map(|(upstream, fresh)| WalkStep::Begin(upstream, fresh)),
        6 => (0..3_usize, signal).prop_map(|(which, signal)| WalkStep::End(which, signal)),
        1 => (0..3_usize).prop_map(WalkStep::GiveUp),
        1 => (0..=CAP).prop_map(WalkStep::Limit),
        2 => (0..3000_u64).prop_map(WalkStep::Pass),
        4 => Just(WalkStep::Closed),
        1 => (0..2_usize).prop_map(WalkStep::CutPause),
    ]
}

proptest! {
    #[test]
    fn never_more_than_the_cap_and_nobody_is_forgotten(steps in prop::collection::vec(step(), 1..400)) {
        let mut walk = Walk::new();
        steps.into_iter().for_each(|step| walk.act(step));
        walk.finish();
    }
}
