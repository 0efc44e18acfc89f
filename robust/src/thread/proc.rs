//! What the system tells about threads and processes: ids, whether a thread has ended, which signal ended a
//! process.

use super::ThisThread;
use crate::planted_bugs::{Bug, is_planted};
use crate::sys;
use crate::word::low;

/// Returns this thread's id, as lock words hold it. Asks the kernel once per thread and after each fork.
pub fn thread_id() -> u32 {
    ThisThread::current().map_or_else(|_| sys::gettid(), |me| low(me.tid()))
}

/// Returns the inode of this process's pid namespace; 0 without `/proc`. Thread ids have a meaning only
/// inside it. The answer is not cached, since a forked child may be in another namespace.
pub fn pid_namespace() -> u64 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self/ns/pid").map_or(0, |m| m.ino())
}

/// Returns the process of a thread, as `/proc` names it.
///
/// ```
/// use multiproc_robust::{has_ended, process_of, thread_id};
///
/// assert_eq!(process_of(thread_id()), Some(std::process::id()));
/// assert!(!has_ended(thread_id()));
/// ```
pub fn process_of(tid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{tid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

/// Returns the signal that ended a process whose parent has not waited for it yet (a zombie). `None` if no
/// signal did, or if it cannot be known.
pub fn signal_of_zombie(pid: u32) -> Option<i32> {
    const EXIT_CODE: usize = 52;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // After the name, which is in parentheses and may hold anything: the third field, and so on
    // (proc_pid_stat(5)).
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_zombie = fields.next()? == "Z";
    let status: i32 = fields.nth(EXIT_CODE - 4)?.parse().ok()?;
    Some(status & 0x7f).filter(|signal| is_zombie && *signal != 0)
}

/// Returns whether a thread has ended, or will run no more user instructions, as a zombie. Returns false if
/// in doubt.
pub fn has_ended(tid: u32) -> bool {
    const PF_EXITING: u64 = 4;
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{tid}/stat")) else {
        return !sys::thread_exists(tid);
    };
    // After the name, which is in parentheses and may hold anything: state, ppid, pgrp, session, tty, tpgid,
    // flags.
    let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace();
    let stopped = |state| is_planted(Bug::StoppedTakenForDead) && matches!(state, "T" | "t");
    let ended = fields.next().is_some_and(|state| matches!(state, "Z" | "X" | "x") || stopped(state));
    ended
        || fields
            .nth(5)
            .and_then(|flags| flags.parse::<u64>().ok())
            .is_some_and(|flags| flags & PF_EXITING != 0)
}

/// Returns whether this thread belongs to this process. Returns true if in doubt.
pub fn is_thread_of_this_process(tid: u32) -> bool {
    sys::is_thread_of_this_process(tid)
}
