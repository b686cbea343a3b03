//! What must wait is spread out, and no window ever holds more than its rate.

use super::*;
use proptest::prelude::*;

const START: Moment = Duration::from_secs(10 * 24 * 3600);

fn allowance(rates: &[&str]) -> (Allowance, Vec<Rate>) {
    let rates: Vec<Rate> = rates.iter().map(|text| Rate::parse(text).expect("a rate")).collect();
    (Allowance::new(&rates, true), rates)
}

/// The moment at which they may go.
fn submit(allowance: &mut Allowance, recipients: u64, now: Moment) -> Moment {
    let at = allowance.check(recipients, now).map_or(now, |later| later.at);
    allowance.count(recipients, at);
    at
}

fn most_within(moments: &[Moment], length: Duration) -> usize {
    let within = |first: usize| moments[first..].iter().take_while(|at| **at < moments[first] + length).count();
    (0..moments.len()).map(within).max().unwrap_or_default()
}

#[test]
fn the_rate_passes_at_once_and_what_is_beyond_comes_evenly() {
    let (mut allowance, rates) = allowance(&["60/min"]);
    let moments: Vec<_> = (0..240).map(|_| submit(&mut allowance, 1, START)).collect();
    assert!(moments[..60].iter().all(|at| *at == START));
    assert_eq!(moments[60], START + rates[0].period(), "the first that must wait goes when the window is free");
    for pair in moments[60..].windows(2) {
        assert_eq!(pair[1] - pair[0], Duration::from_secs(1));
    }
    assert!(most_within(&moments, rates[0].period()) <= 60);
}

#[test]
fn a_check_counts_nothing_and_what_is_taken_back_is_free_again() {
    let (mut allowance, rates) = allowance(&["2/h"]);
    for _ in 0..10 {
        assert_eq!(allowance.check(2, START), None);
    }
    allowance.count(2, START);
    let later = allowance.check(1, START).expect("used up");
    assert_eq!(later, AllowedLater { at: START + rates[0].period(), rate: rates[0] });
    allowance.take_back(1, START);
    assert_eq!(allowance.check(1, START), None);
    assert!(allowance.check(2, START).is_some());
}

#[test]
fn more_recipients_than_the_rate_pass_as_one_and_those_after_them_wait_for_all() {
    let (mut allowance, rates) = allowance(&["10/min"]);
    assert_eq!(submit(&mut allowance, 50, START), START);
    assert_eq!(submit(&mut allowance, 1, START), START + rates[0].period());
    assert_eq!(submit(&mut allowance, 20, START), START + rates[0].period() * 3);
}

#[test]
fn the_rate_that_decides_is_named() {
    let (mut allowance, rates) = allowance(&["5/min", "8/day"]);
    for _ in 0..5 {
        assert_eq!(allowance.check(1, START), None);
        allowance.count(1, START);
    }
    assert_eq!(allowance.check(1, START).map(|later| later.rate), Some(rates[0]));
    let now = START + rates[0].period();
    (0..3).for_each(|_| allowance.count(1, now));
    let later = allowance.check(1, now).expect("used up");
    assert_eq!((later.rate, later.at), (rates[1], now + rates[1].period()));
}

#[test]
fn a_message_to_more_recipients_than_the_rate_never_passes_where_it_would_not_wait() {
    let rate = Rate::parse("10/min").expect("a rate");
    let mut strict = Allowance::new(&[rate], false);
    assert_eq!(strict.check(10, START), None);
    assert_eq!(strict.check(11, START), Some(AllowedLater { at: START + rate.period(), rate }));
}

proptest! {
    /// However the submissions come, alone or together, with waits in between.
    #[test]
    fn no_window_ever_holds_more_than_its_rate(steps in prop::collection::vec((0..90_000_u64, 1..4_u64), 1..200)) {
        let (mut allowance, rates) = allowance(&["7/min", "40/h"]);
        let (mut now, mut moments) = (START, Vec::new());
        for (milliseconds, recipients) in steps {
            now += Duration::from_millis(milliseconds);
            let at = submit(&mut allowance, recipients, now);
            prop_assert!(at >= now && moments.last().is_none_or(|last| at >= *last), "in the order of arrival");
            moments.extend((0..recipients).map(|_| at));
        }
        for rate in rates {
            prop_assert!(most_within(&moments, rate.period()) <= rate.units() as usize, "{rate}");
        }
    }
}
