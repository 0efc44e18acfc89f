//! `Deadline` at its limits.

use std::time::Duration;

use multiproc_robust::Deadline;

#[test]
fn zero_duration_is_now() {
    assert_eq!(Deadline::after(Duration::ZERO), Deadline::NOW);
    assert!(Deadline::NOW.has_passed());
    assert_eq!(Deadline::NOW.remaining(), Some(Duration::ZERO));
}

#[test]
fn overflow_is_never() {
    for long in [
        Duration::MAX,
        Duration::from_secs(u64::MAX),
        Duration::from_nanos(u64::MAX),
        Duration::from_secs(u64::MAX / 1_000_000_000),
    ] {
        assert_eq!(Deadline::after(long), Deadline::NEVER, "{long:?}");
    }
    assert!(!Deadline::NEVER.has_passed());
    assert_eq!(Deadline::NEVER.remaining(), None);
}

#[test]
fn shortest_duration_is_not_now() {
    let soon = Deadline::after(Duration::from_nanos(1));
    assert_ne!(soon, Deadline::NOW);
    while !soon.has_passed() {}
    assert_eq!(soon.remaining(), Some(Duration::ZERO));
}

#[test]
fn a_century_is_not_never() {
    let century = Duration::from_secs(100 * 365 * 24 * 3600);
    let deadline = Deadline::after(century);
    assert_ne!(deadline, Deadline::NEVER);
    let left = deadline.remaining().expect("it ends");
    assert!(left <= century && left > century - Duration::from_secs(60));
}

#[test]
fn later_deadlines_compare_greater() {
    let (sooner, later) = (Deadline::after(Duration::from_secs(1)), Deadline::after(Duration::from_secs(2)));
    assert!(Deadline::NOW < sooner && sooner < later && later < Deadline::NEVER);
}

#[test]
fn within_is_the_earlier_of_two() {
    let near = Deadline::after(Duration::from_millis(1));
    assert_eq!(near.within(Duration::from_secs(60)), near);
    assert_eq!(near.within(Duration::MAX), near);
    let slice = Deadline::NEVER.within(Duration::from_secs(60)).remaining().expect("it ends");
    assert!(slice <= Duration::from_secs(60));
    assert_eq!(Deadline::NEVER.within(Duration::MAX), Deadline::NEVER);
    assert_eq!(Deadline::NOW.within(Duration::from_secs(1)), Deadline::NOW);
    assert_eq!(Deadline::NEVER.within(Duration::ZERO), Deadline::NOW);
}
