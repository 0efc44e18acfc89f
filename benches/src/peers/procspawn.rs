//! procspawn: starts this program again, as this library does.

use crate::harness::Row;
use crate::race::How;
use crate::spawn::run;

pub(crate) fn init() {
    procspawn::init();
}

pub(crate) fn spawn(row: &mut Row) {
    row.add_slow("procspawn", How::Processes, 20, |n| {
        run(n, |number| match procspawn::spawn(number, |number: u64| number + 1).join() {
            Ok(answer) if answer == number + 1 => Ok(()),
            other => Err(format!("{other:?}")),
        })
    });
}
