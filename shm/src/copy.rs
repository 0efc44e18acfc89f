//! Copies bytes to and from memory that other processes may write at any time.
//!
//! Ordinary reads and writes of such memory would be data races. So small copies use relaxed atomic words,
//! and long copies use assembly, which the compiler does not analyse. If another process writes meanwhile,
//! the copy has wrong bytes, but the behaviour is defined. The protocol around the copy (a lock, a commit
//! store, a version) decides whether the bytes are right.
//!
//! The shared side is always a run of whole, aligned 8-byte words. The last word of a message is padded with
//! zeros.
#![allow(unsafe_code, reason = "raw copies to and from shared memory")]

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Bytes of a shared word.
pub const WORD: usize = 8;
/// Copies of more bytes than this use assembly.
const LONG: usize = 256;
/// Copies of at least this many bytes use `rep movsb`. Measured between two CPUs: below this its start-up
/// cost is larger than its gain.
#[cfg(all(target_arch = "x86_64", not(multiproc_asan)))]
const STRING: usize = 4096;

/// Returns how many words hold `bytes` bytes.
#[inline]
pub const fn words(bytes: usize) -> usize {
    bytes.div_ceil(WORD)
}

/// Copies `source` into shared memory.
///
/// # Safety
///
/// `target` points to [`words`]`(source.len())` mapped words, which are only ever accessed as atomics or
/// through this module.
#[inline]
pub unsafe fn store(target: *const AtomicU64, source: &[u8]) {
    let mut done = 0;
    if source.len() > LONG {
        done = source.len() & !63;
        // SAFETY: `done` <= the length of both sides.
        unsafe { long(target.cast_mut().cast(), source.as_ptr(), done) };
    }
    while done + WORD <= source.len() {
        // SAFETY: eight bytes from `done` are inside the slice.
        let word = unsafe { ptr::read_unaligned(source.as_ptr().wrapping_add(done).cast::<u64>()) };
        // SAFETY: the caller's promise: the word is inside the target.
        unsafe { word_at(target, done) }.store(word, Relaxed);
        done += WORD;
    }
    if done < source.len() {
        let mut last = [0_u8; WORD];
        last[..source.len() - done].copy_from_slice(&source[done..]);
        // SAFETY: as above.
        unsafe { word_at(target, done) }.store(u64::from_ne_bytes(last), Relaxed);
    }
}

/// Copies `length` bytes out of shared memory.
///
/// # Safety
///
/// `source` points to [`words`]`(length)` mapped words, accessed as for [`store`]. `target` has room for
/// `length` bytes, which no other thread accesses.
#[inline]
pub unsafe fn load(source: *const AtomicU64, target: *mut u8, length: usize) {
    let mut done = 0;
    if length > LONG {
        done = length & !63;
        // SAFETY: `done` <= the length of both sides.
        unsafe { long(target, source.cast(), done) };
    }
    while done + WORD <= length {
        // SAFETY: the caller's promise: the word is inside the source.
        let word = unsafe { word_at(source, done) }.load(Relaxed);
        // SAFETY: eight bytes from `done` are inside the target.
        unsafe { ptr::write_unaligned(target.wrapping_add(done).cast::<u64>(), word) };
        done += WORD;
    }
    if done < length {
        // SAFETY: as above: the last, partly used word is inside the source.
        let word = unsafe { word_at(source, done) }.load(Relaxed).to_ne_bytes();
        // SAFETY: `length - done` < 8 bytes are left in the target.
        unsafe { ptr::copy_nonoverlapping(word.as_ptr(), target.wrapping_add(done), length - done) };
    }
}

/// Copies `source` to the bytes from `offset` on. The other bytes of the first and the last word are read and
/// written back, so no other thread may write them meanwhile.
///
/// # Safety
///
/// `target` points to [`words`]`(offset + source.len())` mapped words, which are only ever accessed as
/// atomics or through this module.
#[inline]
pub unsafe fn store_at(target: *const AtomicU64, offset: usize, source: &[u8]) {
    let (first, rest) = source.split_at(source.len().min(offset.wrapping_neg() % WORD));
    let (whole, last) = rest.split_at(rest.len() & !(WORD - 1));
    if !first.is_empty() {
        // SAFETY: the caller's promise.
        unsafe { merge(target, offset, first) };
    }
    let aligned = offset.next_multiple_of(WORD);
    // SAFETY: whole words inside the target.
    unsafe { store(target.wrapping_byte_add(aligned), whole) };
    if !last.is_empty() {
        // SAFETY: the caller's promise.
        unsafe { merge(target, aligned + whole.len(), last) };
    }
}

/// Copies the `length` bytes from `offset` on out of shared memory.
///
/// # Safety
///
/// `source` points to [`words`]`(offset + length)` mapped words, accessed as for [`store`]. `target` has room
/// for `length` bytes, which no other thread accesses.
#[inline]
pub unsafe fn load_at(source: *const AtomicU64, offset: usize, target: *mut u8, length: usize) {
    let first = length.min(offset.wrapping_neg() % WORD);
    if first != 0 {
        // SAFETY: the caller's promise: the word is inside the source.
        let word = unsafe { word_at(source, offset & !(WORD - 1)) }.load(Relaxed).to_ne_bytes();
        // SAFETY: `first` bytes from `offset % WORD` on are inside the word, and the target has as many.
        unsafe { ptr::copy_nonoverlapping(word.as_ptr().wrapping_add(offset % WORD), target, first) };
    }
    // SAFETY: the rest of both, from a whole word on.
    unsafe {
        load(
            source.wrapping_byte_add(offset.next_multiple_of(WORD)),
            target.wrapping_add(first),
            length - first,
        )
    };
}

/// Writes bytes that lie within one word, by one store.
///
/// # Safety
///
/// `base + offset` lies in a mapped word, and so does the last of the `bytes`.
#[inline]
unsafe fn merge(base: *const AtomicU64, offset: usize, bytes: &[u8]) {
    // SAFETY: the caller's promise.
    let word = unsafe { word_at(base, offset & !(WORD - 1)) };
    let mut merged = word.load(Relaxed).to_ne_bytes();
    merged[offset % WORD..][..bytes.len()].copy_from_slice(bytes);
    word.store(u64::from_ne_bytes(merged), Relaxed);
}

/// Asks the CPU to fetch the cache line of this word for writing. Does nothing on CPUs without such an
/// instruction. Any address is allowed.
#[inline]
pub fn prefetch_for_writing(word: *const AtomicU64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::asm!("prefetchw [{}]", in(reg) word, options(nostack, preserves_flags, readonly));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::asm!("prfm pstl1keep, [{}]", in(reg) word, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = word;
}

/// Asks the CPU to fetch the cache line of this word for reading. Does nothing on CPUs without such an
/// instruction. Any address is allowed.
#[inline]
pub fn prefetch(word: *const AtomicU64) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::asm!("prefetcht0 [{}]", in(reg) word, options(nostack, preserves_flags, readonly));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: a prefetch never faults.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{}]", in(reg) word, options(nostack, preserves_flags, readonly));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let _ = word;
}

/// Returns the shared word at a byte offset.
///
/// # Safety
///
/// `base + offset` is a mapped, aligned word that outlives `'a`.
#[inline]
unsafe fn word_at<'a>(base: *const AtomicU64, offset: usize) -> &'a AtomicU64 {
    // SAFETY: the caller's promise.
    unsafe { &*base.wrapping_byte_add(offset) }
}

/// Copies a multiple of 64 bytes by assembly.
///
/// # Safety
///
/// Both sides have `length` bytes and do not overlap; `length` is a multiple of 64 and not 0.
#[cfg(all(target_arch = "x86_64", not(multiproc_asan)))]
#[inline]
unsafe fn long(target: *mut u8, source: *const u8, length: usize) {
    if length >= STRING {
        // SAFETY: the caller's promise.
        unsafe {
            std::arch::asm!(
                "rep movsb",
                inout("rcx") length => _,
                inout("rsi") source => _,
                inout("rdi") target => _,
                options(nostack, preserves_flags),
            );
        }
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        std::arch::asm!(
            "2:",
            "movups {a}, [{s}]",
            "movups {b}, [{s} + 16]",
            "movups {c}, [{s} + 32]",
            "movups {d}, [{s} + 48]",
            "movups [{t}], {a}",
            "movups [{t} + 16], {b}",
            "movups [{t} + 32], {c}",
            "movups [{t} + 48], {d}",
            "add {s}, 64",
            "add {t}, 64",
            "sub {n}, 64",
            "jnz 2b",
            s = inout(reg) source => _,
            t = inout(reg) target => _,
            n = inout(reg) length => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack),
        );
    }
}

/// Copies a multiple of 64 bytes by assembly.
///
/// # Safety
///
/// Both sides have `length` bytes and do not overlap; `length` is a multiple of 64 and not 0.
#[cfg(all(target_arch = "aarch64", not(multiproc_asan)))]
#[inline]
unsafe fn long(target: *mut u8, source: *const u8, length: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        std::arch::asm!(
            "2:",
            "ldp {a:q}, {b:q}, [{s}], #32",
            "ldp {c:q}, {d:q}, [{s}], #32",
            "stp {a:q}, {b:q}, [{t}], #32",
            "stp {c:q}, {d:q}, [{t}], #32",
            "subs {n}, {n}, #64",
            "b.ne 2b",
            s = inout(reg) source => _,
            t = inout(reg) target => _,
            n = inout(reg) length => _,
            a = out(vreg) _,
            b = out(vreg) _,
            c = out(vreg) _,
            d = out(vreg) _,
            options(nostack),
        );
    }
}

/// Copies byte by byte: on other CPUs, and for AddressSanitizer, which does not see what assembly accesses.
///
/// # Safety
///
/// Both sides have `length` bytes and do not overlap; `length` is a multiple of 64 and not 0.
#[cfg(any(multiproc_asan, not(any(target_arch = "x86_64", target_arch = "aarch64"))))]
#[inline]
unsafe fn long(target: *mut u8, source: *const u8, length: usize) {
    for at in 0..length {
        // SAFETY: the caller's promise. One side is shared, so each byte is read and written once: volatile.
        unsafe { target.add(at).write_volatile(source.add(at).read_volatile()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_every_length_come_back() {
        let shared: Vec<AtomicU64> = (0..2000).map(|_| AtomicU64::new(u64::MAX)).collect();
        for length in (0..600).chain([4095, 4096, 4097, 10_000]) {
            let bytes: Vec<u8> = (0..length).map(|i| u8::try_from(i * 7 % 251).unwrap_or(0)).collect();
            let mut back = vec![0xee_u8; length + 1];
            // SAFETY: 16,000 shared bytes are enough for 10,000.
            unsafe { store(shared.as_ptr(), &bytes) };
            // SAFETY: as above, and `back` has more than `length` bytes.
            unsafe { load(shared.as_ptr(), back.as_mut_ptr(), length) };
            assert_eq!((&back[..length], back[length]), (&bytes[..], 0xee), "length {length}");
        }
    }

    #[test]
    fn copies_at_every_offset_come_back_and_leave_their_neighbours() {
        for offset in (0..40).chain([255, 257, 4099]) {
            for length in (0..40).chain([255, 256, 257, 300, 4097]) {
                let shared: Vec<AtomicU64> = (0..1100).map(|_| AtomicU64::new(u64::MAX)).collect();
                let bytes: Vec<u8> = (0..length).map(|i| u8::try_from(i * 7 % 251).unwrap_or(0)).collect();
                // SAFETY: 8,800 shared bytes are enough for 4,099 + 4,097.
                unsafe { store_at(shared.as_ptr(), offset, &bytes) };
                let mut back = vec![0xee_u8; length + 1];
                // SAFETY: as above, and `back` has more than `length` bytes.
                unsafe { load_at(shared.as_ptr(), offset, back.as_mut_ptr(), length) };
                assert_eq!((&back[..length], back[length]), (&bytes[..], 0xee), "{length} bytes at {offset}");
                let all: Vec<u8> = shared.iter().flat_map(|word| word.load(Relaxed).to_ne_bytes()).collect();
                let untouched = all[..offset].iter().chain(&all[offset + length..]);
                assert!(untouched.into_iter().all(|byte| *byte == 0xff), "{length} bytes at {offset}");
            }
        }
    }
}
