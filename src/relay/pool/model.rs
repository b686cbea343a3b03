//! Random callers of two upstreams that share a pool: the cap holds, no one waits while a permit is free, callers are
//! served in order of arrival, a connection never changes hands between upstreams, and in the end every permit is back.

use super::*;
use crate::tally::Tally;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};
use std::time::Duration;

struct Fake {
    permit: Permit<Fake>,
    member: usize,
}

impl Pooled for Fake {
    fn permit(&self) -> &Permit<Self> {
        &self.permit
    }
}

#[derive(Debug, Clone, Copy)]
enum Do {
    Claim {
        member: usize,
        fresh: bool,
    },
    /// A second attempt beside the first.
    Try {
        member: usize,
    },
    /// One of those held; `sound`: it can carry another message.
    GiveBack {
        which: usize,
        sound: bool,
    },
    /// A surplus connection is finally closed.
    Close {
        which: usize,
    },
    GiveUp {
        which: usize,
    },
    /// Checks whether waiting callers were served.
    Look,
    Reap {
        member: usize,
    },
}

fn acts() -> impl Strategy<Value = Vec<Do>> {
    let member = 0..2usize;
    let which = 0..8usize;
    let one = prop_oneof![
        4 => (member.clone(), any::<bool>()).prop_map(|(member, fresh)| Do::Claim { member, fresh }),
        1 => member.clone().prop_map(|member| Do::Try { member }),
        4 => (which.clone(), any::<bool>()).prop_map(|(which, sound)| Do::GiveBack { which, sound }),
        2 => which.clone().prop_map(|which| Do::Close { which }),
        1 => which.prop_map(|which| Do::GiveUp { which }),
        3 => Just(Do::Look),
        1 => member.prop_map(|member| Do::Reap { member }),
    ];
    proptest::collection::vec(one, 0..80)
}

/// What the callers hold, without the pool's own data.
struct World {
    pool: Arc<Pool<Fake>>,
    members: [Arc<PoolMember>; 2],
    held: Vec<Fake>,
    /// Connections to be closed; their permits are not back yet.
    closing: Vec<Fake>,
    /// In the order of their arrival.
    waiting: Vec<(Ticket<Fake>, usize, bool)>,
    now: Instant,
}

impl World {
    fn new(cap: usize) -> Self {
        let members = [PoolMember::new(), PoolMember::new()];
        let held = Vec::new();
        let closing = Vec::new();
        let waiting = Vec::new();
        Self { pool: Pool::new(cap), members, held, closing, waiting, now: Instant::now() }
    }

    fn open(&self) -> usize {
        self.members.iter().map(|member| member.open()).sum()
    }

    fn act(&mut self, act: Do) -> Result<(), TestCaseError> {
        match act {
            Do::Claim { member, fresh } => self.claim(member, fresh)?,
            Do::Try { member } => {
                let permit = self.pool.try_permit(&self.members[member]);
                prop_assert!(permit.is_none() || self.waiting.is_empty() || self.open() <= self.pool.cap());
                self.held.extend(permit.map(|permit| Fake { permit, member }));
            }
            Do::GiveBack { which, sound } if !self.held.is_empty() => {
                let connection = self.held.remove(which % self.held.len());
                if sound {
                    let until = self.now + Duration::from_secs(1);
                    if let PutBack::Surplus(connection) = self.pool.put_back(connection, until) {
                        self.closing.push(connection);
                    }
                }
            }
            Do::Close { which } if !self.closing.is_empty() => drop(self.closing.remove(which % self.closing.len())),
            Do::GiveUp { which } if !self.waiting.is_empty() => drop(self.waiting.remove(which % self.waiting.len())),
            Do::Reap { member } => {
                self.now += Duration::from_millis(600);
                self.closing.extend(self.pool.take_expired(&self.members[member], self.now).0);
            }
            Do::Look => self.look()?,
            Do::GiveBack { .. } | Do::Close { .. } | Do::GiveUp { .. } => {}
        }
        prop_assert!(self.open() <= self.pool.cap(), "{} open, {} allowed", self.open(), self.pool.cap());
        Ok(())
    }

    fn claim(&mut self, member: usize, fresh: bool) -> Result<(), TestCaseError> {
        let reuse = if fresh { Reuse::Fresh } else { Reuse::Allowed };
        match self.pool.claim(&self.members[member], reuse) {
            Claim::Granted(grant) => self.take(grant, member, fresh)?,
            Claim::Wait(ticket, evicted) => {
                prop_assert_eq!(self.open(), self.pool.cap(), "somebody waits beside a free permit");
                self.closing.extend(evicted);
                self.waiting.push((ticket, member, fresh));
            }
            Claim::Closed => prop_assert!(false, "nobody closed it"),
        }
        Ok(())
    }

    fn take(&mut self, grant: PoolGrant<Fake>, member: usize, fresh: bool) -> Result<(), TestCaseError> {
        match grant {
            PoolGrant::Permit(permit) => self.held.push(Fake { permit, member }),
            PoolGrant::Connection(connection) => {
                prop_assert!(connection.member == member && !fresh, "a connection for somebody else");
                self.held.push(connection);
            }
        }
        Ok(())
    }

    /// Among callers that want the same, none was served before one that came earlier.
    fn look(&mut self) -> Result<(), TestCaseError> {
        let mut passed_over = Vec::new();
        for (mut ticket, member, fresh) in std::mem::take(&mut self.waiting) {
            match ticket.grant.try_recv() {
                Ok(grant) => {
                    prop_assert!(!passed_over.contains(&(member, fresh)), "served before somebody who came first");
                    self.take(grant, member, fresh)?;
                }
                Err(_) => {
                    passed_over.push((member, fresh));
                    self.waiting.push((ticket, member, fresh));
                }
            }
        }
        let waits = !self.waiting.is_empty();
        prop_assert!(!waits || self.open() == self.pool.cap(), "somebody waits beside a free permit");
        Ok(())
    }
}

fn holds(cap: usize, acts: &[Do]) -> Result<(), TestCaseError> {
    let mut world = World::new(cap);
    for act in acts {
        world.act(*act)?;
    }
    let World { pool, members, held, closing, waiting, .. } = world;
    drop((waiting, held, closing));
    for member in &members {
        drop(pool.close(member));
        prop_assert_eq!(member.open(), 0, "a permit is lost");
    }
    let other = PoolMember::new();
    let all: Vec<_> = std::iter::from_fn(|| pool.try_permit(&other)).collect();
    prop_assert_eq!(all.len(), pool.cap());
    Ok(())
}

#[test]
fn whatever_callers_do_the_cap_holds_and_no_permit_is_lost() {
    const CASES: u32 = 2048;
    let mut tally = Tally::new("state-models", "pool");
    let config = ProptestConfig { source_file: Some(file!()), ..ProptestConfig::with_cases(CASES) };
    let result = TestRunner::new(config).run(&(1..4usize, acts()), |(cap, acts)| holds(cap, &acts));
    tally.right(CASES as usize - 1);
    tally.case(result.is_ok(), || format!("{result:?}"));
    tally.finish();
}
