//! What was put against what was got.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::roles::{Role, TORN};

/// Where a process keeps its notes.
pub(crate) fn path(directory: &Path, role: Role, number: u32) -> PathBuf {
    directory.join(format!("{role:?}-{number}"))
}

/// One producer's messages.
#[derive(Debug)]
struct Account {
    noted: u32,
    killed: bool,
    /// How often each was got.
    got: Vec<u8>,
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
    /// Reads, and removes, what a producer noted.
    pub(crate) fn put(&mut self, directory: &Path, producer: u32, killed: bool) {
        let bytes = take(&path(directory, Role::Producer, producer));
        let noted = bytes.try_into().map_or(0, u32::from_le_bytes);
        self.verdict.operations += u64::from(noted);
        // Killed between the put and the note of it, it has put one more.
        let got = vec![0; noted as usize + usize::from(killed)];
        self.accounts.insert(producer, Account { noted, killed, got });
    }

    /// Reads, and removes, what a consumer noted.
    pub(crate) fn got(&mut self, directory: &Path, consumer: u32) {
        let bytes = take(&path(directory, Role::Consumer, consumer));
        let mut next: HashMap<u32, u32> = HashMap::new();
        for note in bytes.chunks_exact(8) {
            let half = |at: usize| u32::from_le_bytes([note[at], note[at + 1], note[at + 2], note[at + 3]]);
            let (producer, number) = (half(0), half(4));
            self.verdict.operations += 1;
            let account = self.accounts.get_mut(&producer);
            let complaint = match account.and_then(|account| account.got.get_mut(number as usize)) {
                _ if producer == TORN => Some("torn"),
                None => Some("never put"),
                Some(times) => {
                    *times = times.saturating_add(1);
                    let next = next.entry(producer).or_default();
                    let late = number < *next;
                    *next = number + 1;
                    if *times > 1 { Some("doubled") } else { late.then_some("out of order") }
                }
            };
            if let Some(complaint) = complaint {
                self.complain(format!("message {number} of producer {producer}, got by {consumer}, is {complaint}"));
            }
        }
    }

    /// Each killed consumer may have taken one message with it.
    pub(crate) fn settle(mut self, killed_consumers: u64) -> Verdict {
        let missing = |account: &Account| account.got[..account.noted as usize].iter().filter(|times| **times == 0).count();
        let lost = self.accounts.values().map(missing).sum::<usize>();
        self.verdict.lost = u64::try_from(lost).unwrap();
        if self.verdict.lost > killed_consumers {
            let incomplete: Vec<_> = self.accounts.iter().filter(|(_, account)| missing(account) > 0).collect();
            let shown: Vec<_> =
                incomplete.iter().map(|(id, account)| (id, account.noted, account.killed, missing(account))).collect();
            self.complain(format!("{lost} messages lost with {killed_consumers} killed consumers: {shown:?}"));
        }
        self.verdict
    }

    fn complain(&mut self, complaint: String) {
        self.verdict.complaints.push(complaint);
    }
}

fn take(path: &Path) -> Vec<u8> {
    // Whoever was killed before it opened its file has none.
    let bytes = fs::read(path).unwrap_or_default();
    let _ = fs::remove_file(path);
    bytes
}
