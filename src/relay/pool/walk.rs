//! Pool and breaker together, on random walks: whatever fails, times out, comes back or gives up, and in whatever order, never
//! more permits are held than the cap, one probe goes alone, and nobody who waits is forgotten.

use super::tests::Fake;
use super::*;
use crate::relay::breaker::{Admission, Breaker, Pass, Sign};
use proptest::prelude::*;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const CAP: usize = 4;

#[derive(Debug, Clone, Copy)]
enum Step {
    /// A message for one of the two upstreams; `true`: on a fresh connection.
    Begin(usize, bool),
    /// The oldest, or a later one, that has a connection.
    End(usize, Sign),
    /// Somebody who waits gives up.
    GiveUp(usize),
    /// Of the cap, as a provider's pace allows.
    Limit(usize),
    Pass(u64),
    /// A connection that was on its way out is gone.
    Closed,
    CutPause(usize),
}

enum Place {
    Waiting(Ticket<Fake>),
    Holding(Fake),
}

struct Job {
    upstream: usize,
    pass: Pass,
    place: Place,
}

struct Walk {
    pool: Arc<Pool<Fake>>,
    members: [Arc<Member>; 2],
    breakers: [Breaker; 2],
    jobs: Vec<Job>,
    /// Being closed.
    closing: Vec<Fake>,
    now: Instant,
}

impl Walk {
    fn new() -> Self {
        Self {
            pool: Pool::new(CAP),
            members: [Member::new(), Member::new()],
            breakers: [Breaker::new(CAP), Breaker::new(CAP)],
            jobs: Vec::new(),
            closing: Vec::new(),
            now: Instant::now(),
        }
    }

    fn act(&mut self, step: Step) {
        match step {
            Step::Begin(upstream, fresh) => self.begin(upstream, if fresh { Reuse::Fresh } else { Reuse::Allowed }),
            Step::End(which, sign) => self.end(which, sign),
            Step::GiveUp(which) => {
                let waiting = |(_, job): &(usize, &Job)| matches!(job.place, Place::Waiting(_));
                let found = self.jobs.iter().enumerate().filter(waiting).map(|(at, _)| at).nth(which);
                if let Some(job) = found.map(|at| self.jobs.remove(at)) {
                    self.breakers[job.upstream].ended(job.pass, Sign::None, self.now, 0);
                }
            }
            Step::Limit(limit) => self.closing.extend(self.pool.set_limit(limit)),
            Step::Pass(milliseconds) => self.now += Duration::from_millis(milliseconds),
            Step::Closed => drop((!self.closing.is_empty()).then(|| self.closing.remove(0))),
            Step::CutPause(upstream) => self.breakers[upstream].cut_pause(self.now),
        }
        self.look();
    }

    fn begin(&mut self, upstream: usize, reuse: Reuse) {
        let Admission::Go(pass) = self.breakers[upstream].admit(self.now, false) else { return };
        let place = match self.pool.claim(&self.members[upstream], reuse) {
            Claim::Granted(Grant::Permit(permit)) => Place::Holding(Fake(permit)),
            Claim::Granted(Grant::Connection(connection)) => Place::Holding(connection),
            Claim::Wait(ticket, evicted) => {
                self.closing.extend(evicted);
                Place::Waiting(ticket)
            }
            Claim::Closed => panic!("nobody closes it"),
        };
        self.jobs.push(Job { upstream, pass, place });
    }

    fn end(&mut self, which: usize, sign: Sign) {
        let holding = |(_, job): &(usize, &Job)| matches!(job.place, Place::Holding(_));
        let found = self.jobs.iter().enumerate().filter(holding).map(|(at, _)| at).nth(which);
        let Some(Job { upstream, pass, place: Place::Holding(connection) }) = found.map(|at| self.jobs.remove(at))
        else {
            return;
        };
        if sign == Sign::Up {
            if let Kept::Surplus(connection) = self.pool.put_back(connection, self.now + Duration::from_secs(30)) {
                self.closing.push(connection);
            }
        } else {
            connection.permit().leave();
            self.closing.push(connection);
        }
        self.breakers[upstream].ended(pass, sign, self.now, 0);
        // Whoever waits for an upstream that turned out away goes on.
        let breakers = &self.breakers;
        self.jobs.retain(|job| matches!(job.place, Place::Holding(_)) || breakers[job.upstream].is_current(job.pass));
    }

    /// Whoever was served holds it now.
    fn look(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for job in &mut self.jobs {
            let Place::Waiting(ticket) = &mut job.place else { continue };
            let granted = std::pin::pin!(ticket.granted()).poll(&mut cx);
            if let Poll::Ready(grant) = granted {
                job.place = Place::Holding(match grant.expect("nobody closes it") {
                    Grant::Permit(permit) => Fake(permit),
                    Grant::Connection(connection) => connection,
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

    /// Everything ends well: everybody must be served.
    fn finish(mut self) {
        self.closing.extend(self.pool.set_limit(CAP));
        for _ in 0..10 * (self.jobs.len() + self.closing.len() + 1) {
            self.closing.clear();
            self.look();
            self.act(Step::End(0, Sign::Up));
        }
        assert!(self.jobs.is_empty(), "{} wait for ever", self.jobs.len());
        self.closing.clear();
        for member in &self.members {
            drop(self.pool.close(member));
        }
        assert_eq!(self.members.iter().map(|member| member.open()).sum::<usize>(), 0);
    }
}

fn step() -> impl Strategy<Value = Step> {
    let sign = prop_oneof![
        6 => Just(Sign::Up),
        1 => Just(Sign::Away),
        1 => Just(Sign::Broken),
        1 => Just(Sign::SlowDown),
        1 => Just(Sign::None),
    ];
    prop_oneof![
        8 => (0..2_usize, prop::bool::weighted(0.2)).prop_map(|(upstream, fresh)| Step::Begin(upstream, fresh)),
        6 => (0..3_usize, sign).prop_map(|(which, sign)| Step::End(which, sign)),
        1 => (0..3_usize).prop_map(Step::GiveUp),
        1 => (0..=CAP).prop_map(Step::Limit),
        2 => (0..3000_u64).prop_map(Step::Pass),
        4 => Just(Step::Closed),
        1 => (0..2_usize).prop_map(Step::CutPause),
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
