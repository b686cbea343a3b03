//! Rates over simulated time: whatever happens, no window of a rate's length contains more than the rate.

use super::super::quota::QuotaBucket;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// By the ledger's clock.
const START: Duration = Duration::from_secs(400 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

/// The load of one message to this many recipients.
fn load(recipients: u64) -> Load {
    Load { messages: 1, recipients }
}

/// A process with its limiter, and the data that outlives it.
struct Stage {
    rates: Vec<Rate>,
    limiter: Limiter,
    /// Time since the process began, as the limiter sees it.
    moment: Moment,
    /// The true time since the beginning.
    elapsed: Duration,
    /// The error of the ledger's clock, in milliseconds.
    off: i64,
    rows: BTreeMap<String, Vec<QuotaBucket>>,
    writes: usize,
    /// The times at which the provider counted.
    counted: Vec<Duration>,
}

impl Stage {
    fn new(rates: &[&str]) -> Self {
        let rates: Vec<Rate> = rates.iter().map(|text| Rate::parse(text).expect("a rate")).collect();
        let (limiter, rows) = (Limiter::new(&rates, Counting::RECIPIENTS), BTreeMap::new());
        let moment = 30 * 24 * HOUR;
        let mut stage =
            Self { rates, limiter, moment, elapsed: Duration::ZERO, off: 0, rows, writes: 0, counted: Vec::new() };
        stage.restart();
        stage
    }

    fn now(&self) -> TwoClocks {
        let off = Duration::from_millis(self.off.unsigned_abs());
        let right = START + self.elapsed;
        TwoClocks { moment: self.moment, kept: if self.off < 0 { right - off } else { right + off } }
    }

    fn pass(&mut self, time: Duration) {
        (self.moment, self.elapsed) = (self.moment + time, self.elapsed + time);
    }

    fn write(&mut self, quota: String, reservation: &QuotaReservation) {
        self.writes += 1;
        let rows = self.rows.entry(quota.clone()).or_default();
        rows.retain(|old| {
            old.number >= reservation.oldest && reservation.rows.iter().all(|new| new.number != old.number)
        });
        rows.extend(reservation.rows.iter().copied().filter(|row| row.number >= reservation.oldest));
        rows.sort_by_key(|row| row.number);
        self.limiter.mark_written(&quota, reservation);
    }

    /// The process ends without closing, and a new one begins.
    fn restart(&mut self) {
        self.limiter = Limiter::new(&self.rates, Counting::RECIPIENTS);
        // A different origin for each process.
        self.moment = 20 * 24 * HOUR + self.elapsed / 2;
        let now = self.now();
        let record = |period| {
            let rows = self.rows.get(&quota::name(period)).cloned().unwrap_or_default();
            QuotaRecord { period, rows }
        };
        self.limiter.remember(&Rate::QUOTA_PERIODS.map(record), now);
        self.close();
    }

    fn close(&mut self) {
        for (quota, reservation) in self.limiter.closing(self.now()) {
            self.write(quota, &reservation);
        }
    }

    fn check(&mut self, units: u64) -> LimitCheck {
        loop {
            match self.limiter.check(load(units), self.now()) {
                LimitCheck::Write { quota, reservation } => self.write(quota, &reservation),
                other => return other,
            }
        }
    }

    fn take(&mut self, units: u64) -> bool {
        let free = self.check(units) == LimitCheck::Free;
        if free {
            self.limiter.take(load(units), self.moment, ThrottleFactor::WHOLE);
        }
        free
    }

    fn count(&mut self, units: u64) {
        self.counted.extend(std::iter::repeat_n(self.elapsed, usize::try_from(units).expect("few")));
    }

    /// Sends one unit, which is counted at once.
    fn send(&mut self) -> bool {
        let taken = self.take(1);
        if taken {
            self.count(1);
            self.limiter.end(load(1), self.moment);
        }
        taken
    }

    /// Sends whenever it is allowed to, for this long.
    fn run(&mut self, time: Duration) {
        let end = self.elapsed + time;
        while self.elapsed < end {
            if !self.send() {
                let until = match self.check(1) {
                    LimitCheck::Until(until) | LimitCheck::UsedUp { until, .. } => until.saturating_sub(self.moment),
                    other => panic!("{other:?}"),
                };
                self.pass(until.clamp(Duration::from_millis(1), end - self.elapsed));
            }
        }
    }

    /// The most units in any window of each rate's length.
    fn most(&self) -> Vec<usize> {
        let most = |rate: &Rate| {
            let fits = |first: usize| {
                let end = self.counted[first] + rate.period();
                self.counted[first..].partition_point(|at| *at < end)
            };
            (0..self.counted.len()).map(fits).max().unwrap_or_default()
        };
        self.rates.iter().map(most).collect()
    }

    fn assert_kept(&self) {
        for (most, rate) in self.most().into_iter().zip(&self.rates) {
            assert!(most <= rate.units() as usize, "{most} within a window of {rate}");
        }
    }
}

#[test]
fn fourteen_a_second_are_never_fifteen_and_come_evenly() {
    let mut stage = Stage::new(&["14/s"]);
    stage.run(60 * Duration::from_secs(1));
    stage.assert_kept();
    assert!(stage.counted.len() >= 14 * 59, "{}", stage.counted.len());
    let gaps = stage.counted.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(gaps.min().expect("many") >= Duration::from_millis(71), "one after the other");
}

#[test]
fn thirty_a_minute_let_a_few_through_at_once_and_no_more() {
    let mut stage = Stage::new(&["30/min"]);
    let at_once = (0..30).take_while(|_| stage.send()).count();
    assert_eq!(at_once, 3);
    stage.run(HOUR);
    stage.assert_kept();
    assert!(stage.counted.len() >= 29 * 60, "{}", stage.counted.len());
}

#[test]
fn several_rates_hold_together_for_49_hours_with_a_restart_in_between() {
    let mut stage = Stage::new(&["14/s", "30/min", "1000/h", "5000/day"]);
    stage.run(20 * HOUR);
    let before = stage.counted.len();
    assert!(before >= 4_950, "the day's quota was used up before the restart: {before}");
    stage.restart();
    stage.run(29 * HOUR);
    stage.assert_kept();
    let (sent, writes) = (stage.counted.len(), stage.writes);
    assert!(sent >= 2 * 4_950, "and was there again the next day: {sent}");
    assert!(writes < sent / 3, "{writes} rows for {sent} messages");
}

#[test]
fn a_day_of_fifty_thousand_costs_a_row_for_hundreds_and_is_used_to_the_last() {
    let mut stage = Stage::new(&["50000/day"]);
    stage.run(49 * HOUR);
    stage.assert_kept();
    assert!(stage.counted.len() >= 3 * 49_500, "{}", stage.counted.len());
    assert!(stage.writes < stage.counted.len() / 100, "{}", stage.writes);
}

#[test]
fn a_process_that_is_killed_has_put_down_all_that_it_used() {
    let mut stage = Stage::new(&["1000/day"]);
    for hours in [1, 5, 3, 2, 7, 6, 11, 2, 10, 2] {
        for _ in 0..97 {
            stage.send();
            stage.pass(Duration::from_secs(20));
        }
        stage.pass(HOUR * hours - Duration::from_secs(20 * 97));
        stage.restart();
    }
    stage.assert_kept();
    assert!(stage.counted.len() >= 950, "what is put down ahead is little: {}", stage.counted.len());
}

#[test]
fn an_end_in_order_puts_down_exactly_what_was_used() {
    let mut stage = Stage::new(&["1000/day"]);
    (0..400).for_each(|_| assert!(stage.send()));
    stage.close();
    stage.restart();
    let rest = (0..1000).take_while(|_| stage.send()).count();
    assert_eq!(rest, 600);
}

#[test]
fn a_clock_that_is_set_frees_nothing() {
    for hours in [-24, -1, 1, 24] {
        let mut stage = Stage::new(&["100/day"]);
        (0..50).for_each(|_| assert!(stage.send()));
        stage.off = hours * 3_600_000;
        let rest = (0..100).take_while(|_| stage.send()).count();
        assert_eq!(rest, 50, "while it runs, by {hours} h");
        if hours < 0 {
            for _ in 0..3 {
                stage.restart();
                assert!(!stage.send(), "nor across a restart");
            }
        }
        stage.pass(25 * HOUR);
        assert!(stage.send(), "and nothing stays blocked");
        stage.assert_kept();
    }
}

#[test]
fn a_clock_far_ahead_that_is_corrected_blocks_a_day_at_most() {
    let mut stage = Stage::new(&["100/day"]);
    stage.off = 365 * 24 * 3_600_000;
    (0..100).for_each(|_| assert!(stage.send()));
    stage.restart();
    stage.off = 0;
    for _ in 0..8 {
        stage.restart();
        assert!(!stage.send());
        stage.pass(3 * HOUR - Duration::from_secs(60));
    }
    stage.pass(HOUR);
    assert!(stage.send());
    stage.assert_kept();
}

#[test]
fn a_transaction_counts_until_a_window_after_its_end() {
    let mut stage = Stage::new(&["2/s"]);
    assert!(stage.take(1));
    stage.pass(Duration::from_secs(5));
    assert!(stage.take(1));
    stage.pass(Duration::from_secs(5));
    assert_eq!(stage.check(1), LimitCheck::InFlight);
    stage.limiter.end(load(1), stage.moment);
    assert_eq!(stage.check(1), LimitCheck::Until(stage.moment + Duration::from_secs(1)));
    stage.limiter.refund(load(1), ThrottleFactor::WHOLE);
    assert_eq!(stage.check(1), LimitCheck::Free, "what never began does not count");
}

#[test]
fn more_units_than_the_limit_count_as_the_limit() {
    let mut stage = Stage::new(&["10/s", "100/h"]);
    assert_eq!(stage.limiter.most_recipients(), Some(10));
    assert!(stage.take(50));
    assert!(matches!(stage.check(1), LimitCheck::Until(_)), "those behind wait for all of them");
}

/// As at Microsoft: thirty messages a minute, and ten thousand recipients a day.
#[test]
fn a_rate_may_count_messages_and_a_quota_recipients() {
    let rates: Vec<Rate> = ["3/min", "10/day"].map(|text| Rate::parse(text).expect("a rate")).to_vec();
    let counting = Counting { rates: Counts::Messages, quotas: Counts::Recipients };
    let mut stage = Stage::new(&["3/min", "10/day"]);
    stage.limiter = Limiter::new(&rates, counting);
    assert_eq!(stage.limiter.most_recipients(), Some(10));
    assert!(stage.take(7), "seven recipients are one message of three a minute");
    stage.limiter.end(load(7), stage.moment);
    stage.pass(Duration::from_secs(60));
    assert!(
        matches!(stage.check(4), LimitCheck::UsedUp { rate, .. } if rate == rates[1]),
        "seven and four are eleven a day"
    );
    assert!(stage.take(3));
    stage.limiter = Limiter::new(&rates, Counting::MESSAGES);
    assert_eq!(stage.limiter.most_recipients(), None);
    for _ in 0..2 {
        assert!(stage.take(1000), "one of ten a day");
        stage.limiter.end(load(1000), stage.moment);
        stage.pass(Duration::from_secs(60));
    }
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Take(u64),
    /// The provider counts the oldest transaction under way.
    Count,
    End,
    Refund,
    Restart,
    SetBack(i64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..400_u64).prop_map(Step::Pass),
        1 => (0..3_000_000_u64).prop_map(Step::Pass),
        12 => (1..4_u64).prop_map(Step::Take),
        6 => Just(Step::Count),
        8 => Just(Step::End),
        1 => Just(Step::Refund),
        1 => Just(Step::Restart),
        1 => (0..10_000_000_i64).prop_map(Step::SetBack),
    ]
}

/// A transaction under way.
struct Begun {
    units: u64,
    /// The provider has counted it.
    counted: bool,
    at: Duration,
}

type UnderWay = Vec<Begun>;

fn act(stage: &mut Stage, under_way: &mut UnderWay, step: &Step) {
    match *step {
        Step::Pass(milliseconds) => stage.pass(Duration::from_millis(milliseconds)),
        Step::Take(units) => {
            let begun = Begun { units, counted: false, at: stage.elapsed };
            under_way.extend(stage.take(units).then_some(begun));
        }
        Step::Count => {
            if let Some(begun) = under_way.iter_mut().find(|begun| !begun.counted) {
                begun.counted = true;
                stage.count(begun.units);
            }
        }
        Step::End if !under_way.is_empty() => {
            let Begun { units, counted, .. } = under_way.remove(0);
            stage.count(if counted { 0 } else { units });
            stage.limiter.end(load(units), stage.moment);
        }
        Step::Refund => {
            if let Some(at) = under_way.iter().position(|begun| !begun.counted) {
                stage.limiter.refund(load(under_way.remove(at).units), ThrottleFactor::WHOLE);
            }
        }
        Step::Restart => {
            under_way.drain(..).filter(|begun| !begun.counted).for_each(|begun| stage.count(begun.units));
            stage.restart();
        }
        Step::SetBack(milliseconds) => stage.off -= milliseconds,
        Step::End => {}
    }
}

/// No transaction outlives its bucket by more than a restart allows for; a step takes less than an hour.
fn end_old_ones(stage: &mut Stage, under_way: &mut UnderWay) {
    let old = quota::UNDER_WAY / 6;
    while under_way.first().is_some_and(|first| first.at + old < stage.elapsed) {
        act(stage, under_way, &Step::End);
    }
}

proptest! {
    /// The provider may count a transaction at any time while it lasts.
    #[test]
    fn no_window_ever_holds_more(steps in prop::collection::vec(step(), 1..300)) {
        let mut stage = Stage::new(&["5/s", "12/min", "40/h"]);
        let mut under_way = UnderWay::new();
        for step in steps.iter().filter(|step| !matches!(step, Step::Restart)) {
            act(&mut stage, &mut under_way, step);
        }
        stage.assert_kept();
    }

    /// Across restarts, and with a clock that is set back.
    #[test]
    fn no_quota_is_ever_exceeded(steps in prop::collection::vec(step(), 1..300)) {
        let mut stage = Stage::new(&["40/h"]);
        let mut under_way = UnderWay::new();
        for step in &steps {
            end_old_ones(&mut stage, &mut under_way);
            act(&mut stage, &mut under_way, step);
        }
        stage.assert_kept();
    }
}
