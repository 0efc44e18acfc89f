//! A history of calls, and whether one FIFO queue can have answered them. (The workspace's `tests/queue` uses it for processes.)

/// One call, as the history book has it. The moments are nanoseconds of one clock.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct Call {
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    /// What was put or got; `None`: the queue was said to be empty.
    pub(crate) value: Option<usize>,
}

/// Checks what can be checked in `n log n`. The values of the puts are the numbers below their count.
///
/// # Panics
///
/// If a value was lost, doubled, or got before it was put; if a later one overtook an earlier one; if the queue was said to be empty with a value in it.
pub(crate) fn check(puts: &[Call], gets: &[Call]) {
    let mut taken: Vec<Option<&Call>> = vec![None; puts.len()];
    for get in gets {
        if let Some(value) = get.value {
            assert!(taken[value].replace(get).is_none(), "{value} was got twice");
        }
    }
    let mut pairs: Vec<(&Call, &Call)> = Vec::with_capacity(puts.len());
    for put in puts {
        let value = put.value.expect("a put has a value");
        let get = taken[value].unwrap_or_else(|| panic!("{value} was lost"));
        assert!(put.begun <= get.ended, "{value} was got before it was put");
        pairs.push((put, get));
    }
    pairs.sort_by_key(|(put, _)| put.ended);
    // For each moment: of all values that were certainly in before it, when did the last get begin? Not after the bound.
    let sweep = |mut moments: Vec<(u64, u64)>, complaint: &str| {
        moments.sort_unstable();
        let mut earlier = pairs.iter().peekable();
        let mut latest = 0;
        for (moment, bound) in moments {
            while let Some((_, get)) = earlier.next_if(|(put, _)| put.ended < moment) {
                latest = latest.max(get.begun);
            }
            assert!(latest <= bound, "{complaint}");
        }
    };
    sweep(pairs.iter().map(|(put, get)| (put.begun, get.ended)).collect(), "a later value overtook an earlier one");
    let empty = gets.iter().filter(|get| get.value.is_none());
    sweep(empty.map(|get| (get.begun, get.ended)).collect(), "said to be empty with a value in it");
}

#[test]
#[should_panic(expected = "overtook")]
fn history_sees_an_overtaking() {
    let call = |begun, ended, value| Call { begun, ended, value: Some(value) };
    check(&[call(0, 1, 0), call(2, 3, 1)], &[call(8, 9, 0), call(4, 5, 1)]);
}

#[test]
#[should_panic(expected = "said to be empty")]
fn history_sees_a_false_empty() {
    let call = |begun, ended, value| Call { begun, ended, value };
    check(&[call(0, 1, Some(0))], &[call(2, 3, None), call(4, 5, Some(0))]);
}

#[test]
fn history_allows_what_overlaps() {
    let call = |begun, ended, value| Call { begun, ended, value };
    check(&[call(0, 5, Some(0)), call(2, 3, Some(1))], &[call(0, 9, Some(0)), call(4, 5, Some(1)), call(1, 4, None)]);
}
