//! The list of all public functions, and the case that kills each one that changes something. It is checked against the sources, so that a
//! new function cannot be forgotten.

use std::collections::BTreeSet;

enum How {
    /// Killed in the cases of this name, or whose names begin so.
    Killed(&'static str),
    /// Only looks, or changes only this process's private memory.
    Looks,
    /// Made of operations that are killed.
    MadeOf(&'static str),
    /// Killed elsewhere: there.
    Elsewhere(&'static str),
}
use How::{Elsewhere, Killed, Looks, MadeOf};

const SOURCES: &[(&str, &str)] = &[
    ("value", include_str!("../../shm/src/value.rs")),
    ("atomic_value", include_str!("../../shm/src/atomic_value.rs")),
    ("array", include_str!("../../shm/src/array.rs")),
    ("array_guard", include_str!("../../shm/src/array_guard.rs")),
    ("array_error", include_str!("../../shm/src/array_error.rs")),
    ("atomic_array", include_str!("../../shm/src/atomic_array.rs")),
    ("robust_lock", include_str!("../../shm/src/robust_lock.rs")),
    ("side", include_str!("../../shm/src/side.rs")),
    ("wait", include_str!("../../shm/src/wait.rs")),
    ("shared_memory", include_str!("../../shm/src/shared_memory.rs")),
    ("shared", include_str!("../../shm/src/shared.rs")),
    ("namespace", include_str!("../../shm/src/namespace.rs")),
    ("transit", include_str!("../../shm/src/transit.rs")),
    ("deadline", include_str!("../../shm/src/deadline.rs")),
    ("identity", include_str!("../../shm/src/identity.rs")),
    ("copy", include_str!("../../shm/src/copy.rs")),
    ("header", include_str!("../../shm/src/header.rs")),
    ("lock", include_str!("../../sync/src/lock.rs")),
    ("rlock", include_str!("../../sync/src/rlock.rs")),
    ("semaphore", include_str!("../../sync/src/semaphore.rs")),
    ("bounded", include_str!("../../sync/src/bounded.rs")),
    ("permits", include_str!("../../shm/src/permits.rs")),
    ("queue", include_str!("../../queue/src/queue.rs")),
    ("messages", include_str!("../../queue/src/messages.rs")),
    ("process", include_str!("../../process/src/process.rs")),
    ("builder", include_str!("../../process/src/builder.rs")),
    ("init", include_str!("../../process/src/init.rs")),
];

#[rustfmt::skip]
const OPERATIONS: &[(&str, &[&str], How)] = &[
    ("value", &["new"], Killed("name/new")),
    ("value", &["create", "open", "open_or_create", "unlink"], Killed("name/")),
    ("value", &["lock"], Killed("value/lock+commit")),
    ("value", &["try_lock"], Killed("value/try_lock+commit")),
    ("value", &["lock_timeout"], Killed("value/lock_timeout+commit")),
    ("value", &["get"], Killed("value/get")),
    ("value", &["set"], Killed("value/set")),
    ("value", &["replace"], Killed("value/replace")),
    ("value", &["update"], Killed("value/update")),
    ("value", &["compare_exchange"], Killed("value/compare_exchange")),
    ("value", &["owner", "name", "cause", "previous_owner_died"], Looks),
    ("atomic_value", &["new", "create", "open", "open_or_create", "unlink"], MadeOf("name/")),
    ("atomic_value", &["store"], Killed("atomic/store")),
    ("atomic_value", &["swap"], Killed("atomic/swap")),
    ("atomic_value", &["compare_exchange"], Killed("atomic/compare_exchange")),
    ("atomic_value", &["fetch_update"], Killed("atomic/fetch_update")),
    ("atomic_value", &["fetch_add"], Killed("atomic/fetch_add")),
    ("atomic_value", &["fetch_sub"], Killed("atomic/fetch_sub")),
    ("atomic_value", &["fetch_max"], Killed("atomic/fetch_max")),
    ("atomic_value", &["fetch_min"], Killed("atomic/fetch_min")),
    ("atomic_value", &["load", "name"], Looks),
    ("array", &["new", "from_slice", "create", "open", "open_or_create", "unlink"], MadeOf("name/")),
    ("array", &["lock"], Killed("array/lock+set")),
    ("array", &["try_lock"], Killed("array/try_lock+set")),
    ("array", &["lock_timeout"], Killed("array/lock_timeout+set")),
    ("array", &["get"], Killed("array/get")),
    ("array", &["set"], Killed("array/set")),
    ("array", &["update"], Killed("array/update")),
    ("array", &["fill"], Killed("array/fill")),
    ("array", &["to_vec"], Killed("array/to_vec")),
    ("array", &["copy_to"], Killed("array/copy_to")),
    ("array", &["copy_from"], Killed("array/copy_from")),
    ("array", &["read_at"], Killed("array/read_at")),
    ("array", &["write_at"], Killed("array/write_at")),
    ("array", &["len", "is_empty", "owner", "name"], Looks),
    ("array_guard", &["set"], Killed("array/lock+set")),
    ("array_guard", &["swap"], Killed("array/swap")),
    ("array_guard", &["as_mut_slice"], Killed("array/lock+as_mut_slice")),
    ("array_guard", &["fill", "copy_from", "write_at"], MadeOf("array/fill, array/copy_from, array/write_at: the same with a lock round them")),
    ("array_guard", &["recover"], Killed("array/recover")),
    ("array_guard", &["into_static"], Killed("array/refused")),
    ("array_guard", &["previous_owner_died", "len", "is_empty", "get", "iter", "to_vec", "copy_to", "read_at", "as_slice", "guard", "writer"], Looks),
    ("array_error", &["recover", "into_static"], MadeOf("array/recover, array/refused")),
    ("array_error", &["writer", "asked", "length"], Looks),
    ("atomic_array", &["new", "from_slice", "create", "open", "open_or_create", "unlink"], MadeOf("name/")),
    ("atomic_array", &["store"], Killed("array/atomic store")),
    ("atomic_array", &["swap"], Killed("array/atomic swap")),
    ("atomic_array", &["compare_exchange"], Killed("array/atomic compare_exchange")),
    ("atomic_array", &["fetch_update"], Killed("array/atomic fetch_update")),
    ("atomic_array", &["fetch_add"], Killed("array/atomic fetch_add")),
    ("atomic_array", &["fetch_sub"], Killed("array/atomic fetch_sub")),
    ("atomic_array", &["fetch_max"], Killed("array/atomic fetch_max")),
    ("atomic_array", &["fetch_min"], Killed("array/atomic fetch_min")),
    ("atomic_array", &["load", "to_vec", "len", "is_empty", "name"], Looks),
    ("robust_lock", &["acquire", "release"], Killed("lock/")),
    ("robust_lock", &["new", "is_held", "is_held_by_this_thread", "owner", "pid", "tid"], Looks),
    ("side", &["enter", "leave", "sleep", "wake_all_sleepers", "alarm"], Killed("queue/")),
    ("side", &["new", "has_sleepers", "lock"], Looks),
    ("wait", &["wait_until"], Killed("seq/wait_until")),
    ("wait", &["wake_one"], Killed("seq/wake_one")),
    ("wait", &["wake_all"], Killed("seq/wake_all")),
    ("wait", &["ring"], Killed("bell/ring")),
    ("wait", &["silence"], Killed("bell/silence")),
    ("wait", &["wait"], Killed("bell/wait")),
    ("wait", &["new", "is_rung", "this_cpu", "spin"], Looks),
    ("shared", &["anonymous", "create", "open", "open_or_create", "unlink"], Killed("name/")),
    ("shared", &["new", "namespace", "persistent", "extents", "tail", "bytes", "describe", "name", "is_same"], Looks),
    ("shared_memory", &["new"], Killed("block/new")),
    ("shared_memory", &["create"], Killed("block/create")),
    ("shared_memory", &["open"], Killed("block/open, ")),
    ("shared_memory", &["open_or_create"], Killed("block/open_or_create")),
    ("shared_memory", &["unlink"], Killed("block/unlink")),
    ("shared_memory", &["attach_os"], Killed("block/attach_os")),
    ("shared_memory", &["write_at"], Killed("block/write_at")),
    ("shared_memory", &["len", "is_empty", "read_at", "to_vec", "as_ptr", "as_mut_ptr", "name"], Looks),
    ("namespace", &["current", "at"], Killed("name/namespace")),
    ("namespace", &["run", "gc"], Killed("name/gc")),
    ("namespace", &["path", "new", "dry_run", "ticket_age"], Looks),
    ("transit", &["begin", "sent"], Killed("name/handle")),
    ("deadline", &["after", "has_passed", "within", "remaining"], Looks),
    ("identity", &["thread_id", "pid_namespace", "process_of", "has_ended"], Looks),
    ("copy", &["store", "load", "store_at", "load_at", "words", "prefetch", "prefetch_for_writing"], MadeOf("queue/, value/")),
    ("header", &["none", "of", "message"], Looks),
    ("lock", &["new", "create", "open", "open_or_create", "unlink"], MadeOf("name/")),
    ("lock", &["lock"], Killed("lock/lock+unlock")),
    ("lock", &["try_lock"], Killed("lock/try_lock")),
    ("lock", &["lock_timeout"], Killed("lock/lock_timeout")),
    ("lock", &["raw_lock", "raw_unlock"], Killed("lock/unlock")),
    ("lock", &["is_locked", "owner", "name", "previous_owner_died"], Looks),
    ("rlock", &["new", "create", "open", "open_or_create", "unlink"], MadeOf("name/")),
    ("rlock", &["lock"], Killed("rlock/lock+unlock")),
    ("rlock", &["try_lock"], Killed("rlock/try_lock")),
    ("rlock", &["lock_timeout"], Killed("rlock/lock_timeout")),
    ("rlock", &["raw_lock", "raw_unlock"], Killed("rlock/unlock")),
    ("rlock", &["is_locked", "depth", "owner", "name", "previous_owner_died"], Looks),
    ("semaphore", &["new", "create", "open", "open_or_create", "unlink"], MadeOf("name/")),
    ("semaphore", &["acquire"], Killed("semaphore/acquire")),
    ("semaphore", &["try_acquire"], Killed("semaphore/try_acquire")),
    ("semaphore", &["acquire_timeout"], Killed("semaphore/acquire_timeout")),
    ("semaphore", &["acquire_many"], Killed("semaphore/acquire_many")),
    ("semaphore", &["try_acquire_many"], Killed("semaphore/try_acquire_many")),
    ("semaphore", &["acquire_many_timeout"], Killed("semaphore/acquire_many_timeout")),
    ("semaphore", &["raw_acquire", "raw_release"], Killed("semaphore/release")),
    ("semaphore", &["available", "permits", "holders", "name", "previous_owner_died", "number"], Looks),
    ("bounded", &["new", "create", "open", "open_or_create", "unlink"], MadeOf("name/")),
    ("bounded", &["acquire"], Killed("bounded/acquire")),
    ("bounded", &["try_acquire"], Killed("bounded/try_acquire")),
    ("bounded", &["acquire_timeout"], Killed("bounded/acquire_timeout")),
    ("bounded", &["release"], Killed("bounded/release")),
    ("bounded", &["available", "name"], Looks),
    ("permits", &["take", "take_many"], Killed("semaphore/")),
    ("permits", &["new"], Looks),
    ("queue", &["new", "create", "open", "open_or_create", "unlink"], MadeOf("name/")),
    ("queue", &["close"], Killed("queue/close")),
    ("queue", &["put"], Killed("queue/put, ")),
    ("queue", &["try_put"], Killed("queue/try_put")),
    ("queue", &["put_timeout"], Killed("queue/put_timeout")),
    ("queue", &["get"], Killed("queue/get, ")),
    ("queue", &["try_get"], Killed("queue/try_get")),
    ("queue", &["get_timeout"], Killed("queue/get_timeout")),
    ("queue", &["iter"], MadeOf("queue/get")),
    ("queue", &["put_bytes"], Killed("queue/put_bytes")),
    ("queue", &["try_put_bytes"], Killed("queue/try_put_bytes")),
    ("queue", &["put_bytes_timeout"], Killed("queue/put_bytes_timeout")),
    ("queue", &["get_bytes"], Killed("queue/get_bytes")),
    ("queue", &["try_get_bytes"], Killed("queue/try_get_bytes")),
    ("queue", &["get_bytes_timeout"], Killed("queue/get_bytes_timeout")),
    ("queue", &["get_into"], Killed("queue/get_into")),
    ("queue", &["unbounded"], MadeOf("name/")),
    ("queue", &["put_many"], Killed("queue/put_many")),
    ("queue", &["try_put_many"], Killed("queue/try_put_many")),
    ("queue", &["put_many_timeout"], Killed("queue/put_many_timeout")),
    ("queue", &["get_many"], Killed("queue/get_many")),
    ("queue", &["try_get_many"], Killed("queue/try_get_many")),
    ("queue", &["get_many_timeout"], Killed("queue/get_many_timeout")),
    ("queue", &["put_many_bytes"], Killed("queue/put_many_bytes")),
    ("queue", &["try_put_many_bytes"], Killed("queue/try_put_many_bytes")),
    ("queue", &["put_many_bytes_timeout"], Killed("queue/put_many_bytes_timeout")),
    ("queue", &["get_many_into"], Killed("queue/get_many_into")),
    ("queue", &["try_get_many_into"], Killed("queue/try_get_many_into")),
    ("queue", &["get_many_into_timeout"], Killed("queue/get_many_into_timeout")),
    ("queue", &["try_get_into"], Killed("queue/try_get_into")),
    ("queue", &["get_into_timeout"], Killed("queue/get_into_timeout")),
    ("messages", &["new", "with_capacity", "push", "len", "is_empty", "get", "iter", "clear"], Looks),
    ("shared", &["populate"], Killed("queue/put_bytes, longer")),
    ("shared", &["give_back"], Killed("queue/get_bytes, gives")),
    ("queue", &["messages", "bytes", "is_closed", "len", "is_empty", "is_full", "capacity", "longest_message", "name"], Looks),
    ("process", &["spawn"], Elsewhere("process/tests: both sides are killed at their system calls")),
    ("process", &["join", "join_timeout", "try_join", "is_alive", "pid", "name", "terminate", "kill", "value"], Elsewhere("process/tests")),
    ("builder", &["new", "name", "daemon", "start_timeout", "spawn"], Elsewhere("process/tests")),
    ("init", &["init", "name", "parent_pid", "__child_entry"], Elsewhere("process/tests")),
];

/// What is public and not in the list, or in the list and not public (any more), or said to be killed by a case that there is not.
pub(crate) fn check() -> Result<(), String> {
    let public: BTreeSet<_> =
        SOURCES.iter().flat_map(|(file, source)| functions(source).map(|name| (*file, name.to_owned()))).collect();
    let listed: BTreeSet<_> =
        OPERATIONS.iter().flat_map(|(file, names, _)| names.iter().map(|name| (*file, (*name).to_owned()))).collect();
    let forgotten: Vec<_> = public.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&public).collect();
    if !forgotten.is_empty() || !gone.is_empty() {
        return Err(format!("operations.rs forgets {forgotten:?} and lists {gone:?}, which are not public"));
    }
    let cases = [
        include_str!("locks.rs"),
        include_str!("rlocks.rs"),
        include_str!("semaphores.rs"),
        include_str!("bounded.rs"),
        include_str!("values.rs"),
        include_str!("arrays.rs"),
        include_str!("words.rs"),
        include_str!("queues.rs"),
        include_str!("batches.rs"),
        include_str!("names.rs"),
        include_str!("blocks.rs"),
    ];
    for (file, names, how) in OPERATIONS {
        match how {
            Killed(case) if !cases.iter().any(|source| source.contains(&format!("\"{case}"))) => {
                return Err(format!("{file} {names:?} should be killed in {case:?}, which is no case"));
            }
            Killed(_) | Looks => {}
            MadeOf(of) | Elsewhere(of) if of.is_empty() => return Err(format!("{file} {names:?}: of what?")),
            MadeOf(_) | Elsewhere(_) => {}
        }
    }
    Ok(())
}

/// The names of public functions: `pub fn`, `pub const fn`, `pub unsafe fn`.
fn functions(source: &str) -> impl Iterator<Item = &str> {
    source.lines().filter_map(|line| {
        let rest = line.trim_start().strip_prefix("pub ")?;
        let rest = rest.strip_prefix("const ").or_else(|| rest.strip_prefix("unsafe ")).unwrap_or(rest);
        rest.strip_prefix("fn ").or_else(|| rest.strip_prefix("unsafe fn "))?.split(['(', '<']).next()
    })
}
