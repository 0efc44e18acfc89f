//! What was put against what was got.

use std::collections::HashMap;

use crate::notes::{Note, Notebook};
use crate::workers::TORN;

/// One producer's messages.
#[derive(Debug)]
struct Account {
    noted: usize,
    killed: bool,
    /// How often each was got, and when it was got last.
    got: Vec<(u8, Note)>,
}

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    accounts: HashMap<u32, Account>,
    verdict: Verdict,
}

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) operations: u64,
    pub(crate) lost: u64,
    pub(crate) complaints: Vec<String>,
}

impl Ledger {
    /// What a producer noted that puts `most` messages at once. If it was killed between the put and its
    /// note, it has put as many more.
    pub(crate) fn put(&mut self, notebook: &Notebook, producer: u32, killed: bool, at_once: usize) {
        let noted = notebook.counted();
        self.verdict.operations += noted as u64;
        let got = vec![(0, Note::default()); noted + if killed { at_once } else { 0 }];
        self.accounts.insert(producer, Account { noted, killed, got });
    }

    /// What a consumer noted.
    pub(crate) fn got(&mut self, notebook: &Notebook, consumer: u32) {
        let mut next: HashMap<u32, u32> = HashMap::new();
        for note in notebook.notes() {
            let Note { producer, number, .. } = note;
            self.verdict.operations += 1;
            let account = self.accounts.get_mut(&producer);
            let complaint = match account.and_then(|account| account.got.get_mut(number as usize)) {
                _ if producer == TORN => Some("torn"),
                None => Some("never put"),
                Some((times, last)) => {
                    *times = times.saturating_add(1);
                    *last = note;
                    let next = next.entry(producer).or_default();
                    let late = number < *next;
                    *next = number + 1;
                    if *times > 1 { Some("doubled") } else { late.then_some("out of order") }
                }
            };
            if let Some(complaint) = complaint {
                self.complain(format!(
                    "message {number} of producer {producer}, got by {consumer}, is {complaint}"
                ));
            }
        }
    }

    /// As many messages may have been lost with killed consumers.
    pub(crate) fn settle(mut self, may_be_lost: u64) -> Verdict {
        let missing =
            |account: &Account| account.got[..account.noted].iter().filter(|(times, _)| *times == 0).count();
        let lost = self.accounts.values().map(missing).sum::<usize>();
        self.verdict.lost = u64::try_from(lost).unwrap();
        if self.verdict.lost > may_be_lost {
            let incomplete: Vec<_> =
                self.accounts.iter().filter(|(_, account)| missing(account) > 0).collect();
            let shown: Vec<_> = incomplete
                .iter()
                .map(|(id, account)| (id, account.noted, account.killed, missing(account)))
                .collect();
            self.complain(format!("{lost} messages lost where {may_be_lost} may be: {shown:?}"));
        }
        let overtaken: Vec<String> = self.accounts.values().flat_map(Account::overtaken).collect();
        overtaken.into_iter().for_each(|complaint| self.complain(complaint));
        self.verdict
    }

    fn complain(&mut self, complaint: String) {
        self.verdict.complaints.push(complaint);
    }
}

impl Account {
    /// Whatever consumer got it: no message was got wholly before the get of an earlier message began.
    fn overtaken(&self) -> impl Iterator<Item = String> {
        let mut latest = Note::default();
        self.got.iter().filter(|(times, _)| *times > 0).filter_map(move |(_, note)| {
            let complaint = (note.ended < latest.begun).then(|| {
                format!(
                    "message {} of producer {} has overtaken {}",
                    note.number, note.producer, latest.number
                )
            });
            latest = if note.begun > latest.begun { *note } else { latest };
            complaint
        })
    }
}
