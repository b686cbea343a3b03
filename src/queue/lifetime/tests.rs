//! Records passed from one start to the next, whatever happens to the machine in between.

use super::*;
use crate::observe::clock::Simulated;
use proptest::prelude::*;
use std::sync::Arc;

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn machine(knows_boots: bool) -> Arc<Mutex<Simulated>> {
    let wall = "2026-11-24T03:00:00Z".parse().unwrap();
    Arc::new(Mutex::new(Simulated::starting(wall, knows_boots)))
}

fn resume(record: &Record, machine: &Arc<Mutex<Simulated>>, expire: Duration) -> Lifetime {
    Lifetime::resume(record, Clock::Simulated(machine.clone()), expire)
}

#[test]
fn it_goes_on_with_the_time_and_is_recorded_some_seconds_apart() {
    let machine = machine(true);
    let lifetime = resume(&Record::default(), &machine, 5 * DAY);
    assert_eq!(lifetime.record_if_due().map(|record| record.lived), Some(BEGINNING), "with the first commit");
    assert_eq!((lifetime.now(), lifetime.record_if_due()), (BEGINNING, None));
    machine.lock().pass(BETWEEN_RECORDS);
    let record = lifetime.record_if_due().unwrap();
    assert_eq!((record.lived, lifetime.record_if_due()), (BEGINNING + BETWEEN_RECORDS, None));
    assert_eq!(lifetime.age(BEGINNING), BETWEEN_RECORDS);
    assert_eq!(lifetime.before(BETWEEN_RECORDS), BEGINNING);
    assert_eq!(lifetime.age(BEGINNING + DAY), Duration::ZERO, "of what a crash has made younger than now");
}

#[test]
fn a_stop_that_only_the_wall_clock_tells_of_is_a_quarter_of_expire_at_most() {
    let machine = machine(false);
    let record = resume(&Record::default(), &machine, 5 * DAY).record();
    machine.lock().pass(2 * DAY);
    for (expire, counted) in [(DAY, 6 * HOUR), (5 * DAY, LONGEST_STOP), (30 * DAY, LONGEST_STOP)] {
        assert_eq!(resume(&record, &machine, expire).now(), record.lived + counted, "{expire:?}");
    }
}

/// A machine whose clock is ahead at each start and corrected each time.
#[test]
fn a_clock_that_is_ahead_at_each_start_is_believed_once() {
    let machine = machine(false);
    let mut record = resume(&Record::default(), &machine, 5 * DAY).record();
    for _ in 0..50 {
        machine.lock().jump(SignedDuration::from_hours(48));
        let lifetime = resume(&record, &machine, 5 * DAY);
        machine.lock().jump(SignedDuration::from_hours(-48));
        record = lifetime.record();
    }
    assert_eq!(record.lived, BEGINNING + LONGEST_STOP);
}

#[derive(Debug, Clone)]
enum Step {
    Run(u32),
    Jump(i32),
    Stop(u32),
    Reboot(u32, i32),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..100_000u32).prop_map(Step::Run),
        (-9_000_000..9_000_000).prop_map(Step::Jump),
        (0..900_000u32).prop_map(Step::Stop),
        ((0..900_000u32), (-9_000_000..9_000_000)).prop_map(|(stop, jump)| Step::Reboot(stop, jump)),
        Just(Step::Crash),
    ]
}

proptest! {
    /// All errors of the wall clocks together add at most one bound per start of the machine, and a crash costs at most
    /// the time between two records.
    #[test]
    fn what_was_lived_is_the_time_that_passed_within_bounds(steps in prop::collection::vec(step(), 1..200)) {
        let machine = machine(true);
        let expire = 5 * DAY;
        let mut record = Record::default();
        let mut lifetime = resume(&record, &machine, expire);
        let mut least = BEGINNING;
        let mut most = BEGINNING;
        for step in steps {
            match step {
                Step::Run(seconds) => {
                    let time = Duration::from_secs(seconds.into());
                    machine.lock().pass(time);
                    (least, most) = (least + time, most + time);
                    record = lifetime.record_if_due().unwrap_or(record);
                }
                Step::Jump(seconds) => machine.lock().jump(SignedDuration::from_secs(seconds.into())),
                Step::Stop(seconds) => {
                    record = lifetime.record();
                    let time = Duration::from_secs(seconds.into());
                    machine.lock().pass(time);
                    lifetime = resume(&record, &machine, expire);
                    (least, most) = (least + time.min(LONGEST_STOP), most + time.min(LONGEST_STOP));
                }
                Step::Reboot(seconds, jump) => {
                    record = lifetime.record();
                    let mut running = machine.lock();
                    running.pass(Duration::from_secs(seconds.into()));
                    running.reboot();
                    running.jump(SignedDuration::from_secs(jump.into()));
                    drop(running);
                    lifetime = resume(&record, &machine, expire);
                    most += LONGEST_STOP;
                }
                Step::Crash => {
                    lifetime = resume(&record, &machine, expire);
                    least = least.saturating_sub(BETWEEN_RECORDS);
                }
            }
            let now = lifetime.now();
            prop_assert!(least <= now && now <= most, "{least:?} {now:?} {most:?}");
            prop_assert!(record.lived <= now, "it never goes back behind what was recorded");
        }
    }
}

#[test]
fn a_clock_in_doubt_is_told_of_once_and_a_right_one_is_not() {
    let told = |record: &Record, now: &str| doubt(record, now.parse().unwrap());
    let used = |at: &str| Record { at: Some(at.parse().unwrap()), ..Record::default() };
    let table = [
        (Record::default(), "2026-11-24T03:00:00Z", None),
        (Record::default(), "2019-01-01T00:00:00Z", Some("this program is younger")),
        (used("2026-11-24T03:00:00Z"), "2026-11-24T02:59:30Z", None),
        (used("2026-11-24T03:00:00Z"), "2026-11-24T01:00:00Z", Some("2 hours behind the last use")),
        (used("2026-11-24T03:00:00Z"), "2026-12-20T03:00:00Z", None),
        (used("2026-11-24T03:00:00Z"), "2027-09-20T03:00:00Z", Some("last used 300 days ago")),
    ];
    for (record, now, expected) in table {
        let told = told(&record, now);
        match expected {
            None => assert_eq!(told, None, "{now}"),
            Some(part) => assert!(told.as_ref().is_some_and(|told| told.contains(part)), "{now}: {told:?}"),
        }
    }
}
