#!/usr/bin/env bash
# Checks where unsafe code, futex calls, the platform and the tags may be (CONTRIBUTING.md), that no crate
# depends on a higher one, the width of lines and the words of public documentation. Prints every breach as
# `file:line: text`; the exit code is 1 if there is any.
set -euo pipefail
cd "$(dirname "$0")/.."

# Files that may say `allow(unsafe_code`. The list is exact: a room that no longer needs it is struck.
unsafe_rooms=(
    shm/src/segment.rs
    shm/src/named.rs
    shm/src/file.rs
    shm/src/placed.rs
    shm/src/header.rs
    shm/src/registry.rs
    shm/src/shared.rs
    shm/src/memory_block.rs
    shm/src/os_block.rs
    robust/src/lock.rs
    robust/src/claim.rs
    robust/src/wait_set.rs
    robust/src/raw_mutex.rs
    robust/src/side.rs
    robust/src/words.rs     # the one cast from words to a struct of atomics
    robust/src/wait_slot.rs
    robust/src/permits.rs
    robust/src/thread.rs
    robust/src/thread/enrol.rs
    robust/src/process_owned.rs
    shm/src/copy.rs
    shm/src/value.rs
    shm/src/array.rs
    shm/src/array/guard.rs
    shm/src/region.rs
    shm/src/atomic_array.rs
    shm/src/atomic_value.rs
    sync/src/condition.rs   # its mutex, and a slot
    sync/src/condition/block.rs # `unsafe impl Object`
    sync/src/rwlock/block.rs # `unsafe impl Object`
    sync/src/rwlock/entry.rs # entry lock and reader locks
    sync/src/lock.rs        # the raw pair: raw_lock, raw_unlock
    sync/src/event.rs       # its block: `unsafe impl Object`
    sync/src/barrier/participants.rs
    sync/src/barrier/rounds.rs
    sync/src/barrier/block.rs # `unsafe impl Object`
    sync/src/rlock.rs       # the same
    sync/src/bounded.rs     # its block
    sync/src/semaphore/owned.rs # what is kept for a process
    sync/src/semaphore.rs   # its permits lie behind its block
    queue/src/jobs/block.rs # the same, and the leases' areas
    queue/src/jobs/lease.rs # takes claims
    queue/src/block.rs      # `unsafe impl Object`
    ring/src/log.rs
    queue/src/borrowed.rs   # slices of what others may write
    queue/src/reserve.rs    # the same
    ring/src/reserve.rs
    ring/src/payload.rs     # raw bytes of a message
    ring/src/guard.rs       # enters the sides
    ring/src/take.rs
    ring/src/members.rs
    ring/src/sink.rs
    process/src/image.rs
)
# Files, beside `shm/src/sys/`, where this project decides to sleep or to wake.
futex_rooms=(
    robust/src/lock.rs
    robust/src/lock/slow.rs
    robust/src/wait_set.rs
    robust/src/wait_slot.rs
    robust/src/side.rs
    robust/src/event_count.rs
    robust/src/raw_event.rs
    robust/src/death_watch.rs
)
# The library crates. The test kit (killstep), tests, examples and benches are free to call the kernel.
libraries=(src robust/src shm/src sync/src ring/src queue/src process/src)
# Floors: a crate may use crates of lower floors. The kit and the models use none of them.
floors='robust 0  shm 1  sync 2  ring 2  queue 3  process 4  killstep 0  models 0'
# Directories and files whose lines have at most 110 columns.
narrow=(
    src robust shm sync ring queue process killstep models tests examples benches ci .ci docs
    README.md CONTRIBUTING.md SECURITY.md CHANGELOG.md
)
# Where the public documentation is free of the words below.
english=(
    src robust shm sync ring queue process killstep models
    README.md CONTRIBUTING.md SECURITY.md docs
)
# Words that this project once used in a sense of its own, and that have no other use here.
words='announce[sd]?|announcing|announcements?|annex(es)?|belts?|bur(y|ies|ied)|contenders?|doz(e|es|ed|ing)'
words+='|heirs?|helms?|in vain'
words+='|keepers?|kin|morgues?|nobody|seats?|turnstiles?|whoever|zoos?'

breaches=0

# report HEADING FOUND: shows what was found, if anything, and remembers to fail.
report() {
    if [[ -n $2 ]]; then
        printf 'rooms: %s\n%s\n\n' "$1" "$2"
        breaches=$((breaches + 1))
    fi
}

# code PATTERN: where PATTERN occurs in the code of the libraries, comment lines left out.
code() {
    grep -rnE --include='*.rs' -- "$1" "${libraries[@]}" | grep -vE '^[^:]+:[0-9]+:\s*//' || true
}

# outside ROOM…: drops the lines of stdin that are in one of these files, or below a `sys/`.
outside() {
    local room rooms='^[a-z]+/src/sys/'
    for room in "$@"; do rooms+="|^$room:"; done
    grep -vE "$rooms" || true
}

# lacking PATTERN FILE…: those of the files in which PATTERN does not occur, or which do not exist.
lacking() {
    local pattern=$1 file
    shift
    for file in "$@"; do
        grep -qsE -- "$pattern" "$file" || echo "$file"
    done
}

# floor CRATE: its floor, or nothing.
floor() { sed -n "s/.*\b$1 \([0-9]\).*/\1/p" <<<"$floors"; }

# against_the_floors: dependencies (of any kind but for tests) on a crate that is not on a lower floor.
against_the_floors() {
    local manifest crate used
    for manifest in */Cargo.toml; do
        crate=${manifest%/Cargo.toml}
        [[ -n $(floor "$crate") ]] || continue
        while read -r used; do
            # A crate without a floor is the facade, which only tests use.
            [[ -n $(floor "$used") && $(floor "$used") -lt $(floor "$crate") ]] ||
                echo "$manifest: $crate uses $used"
        done < <(awk '/^\[/ { in_tests = /dev-dependencies/ } !in_tests' "$manifest" |
            sed -n 's/^multiproc-\([a-z]*\)[.= ].*/\1/p; s/^multiproc[.= ].*/multiproc/p')
    done
    # Crates that their own documentation or tests would bring along unnoticed.
    grep -rnE '\bmultiproc_[a-z]+::' killstep/src models/src |
        grep -vE 'multiproc_(killstep|models)::' || true
}

# too_wide PATH…: lines of more than 110 columns, but for tables and links.
too_wide() {
    LC_ALL=C.UTF-8 grep -rnE --include='*.rs' --include='*.md' --include='*.sh' --include='*.toml' \
        --include=run --exclude-dir=target --exclude-dir=.git -- '^.{111}' "$@" |
        grep -vE '^[^:]+:[0-9]+:\s*(//[/!] )?\||https?://|\]\(|^[^:]+:[0-9]+:\s*(//[/!] )?\[[^]]+\]: ' || true
}

# in_words_of_ours PATH…: where the public documentation there uses a word of the list.
in_words_of_ours() {
    {
        find "$@" -name '*.md' -not -path '*/target/*' -exec grep -HniwE -- "$words" {} +
        find "$@" -path '*/src/*.rs' -exec grep -HniE -- "^\s*//[/!].*\b($words)\b" {} +
    } || true
}

report 'unsafe code outside of its rooms' \
    "$(code '(allow|expect)\(unsafe_code' | outside "${unsafe_rooms[@]}")"
report 'listed in ci/rooms.sh as an unsafe room, but not one (any more)' \
    "$(lacking 'allow\(unsafe_code' "${unsafe_rooms[@]}")"
report 'a futex call outside of its rooms' \
    "$(code 'SYS_futex|\bfutex_(wait|wake|requeue)[a-z_]*\(' | outside "${futex_rooms[@]}")"
report 'the platform outside of */src/sys/' \
    "$(code '\btarget_os\b|\blibc::|\buse libc\b' | outside)"
for tag in SAFETY ORDER CRASH; do
    report "the ring says nowhere // $tag:" "$(lacking "// $tag:" ring/src/take.rs)"
done
report 'a dependency against the floors' "$(against_the_floors)"
report 'more than 110 columns' "$(too_wide "${narrow[@]}")"
report 'a word that only this project uses so' "$(in_words_of_ours "${english[@]}")"
# Bracketed, so that this file does not match itself.
report 'the project mentions a path of the machine it was written on' \
    "$(grep -rnIE --exclude-dir=target --exclude-dir=.git --exclude=.git \
        -- '[.][.]/shared\b|/[w]ork/|/tmp/bash[_]jobs' . || true)"

if ((breaches)); then
    echo "rooms: $breaches kinds of breach"
    exit 1
fi
echo 'rooms: in order'
