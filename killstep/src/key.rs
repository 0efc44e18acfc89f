//! What dead processes have left, as one number: a state that leaves the same needs no second look.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::case::Role;
use crate::victim::Victim;
use crate::{Cells, Region, sys};

/// A process id has at most 22 bits; locks keep flags above them.
const PID: u32 = 0x3fff_ffff;

/// The watched bytes at the beginning, as the driver sees them.
pub(crate) struct Before {
    regions: Vec<Region>,
    bytes: Option<Vec<u8>>,
}

impl Before {
    pub(crate) fn look(regions: Vec<Region>) -> Self {
        let bytes = read(&regions);
        Self { regions, bytes }
    }

    /// What the survivors will find, and what the oracle will see: the bytes that have changed, in which each
    /// process is known by its part and not by its id; the cells; whether the victim had finished; what the
    /// peers do; and what else the case can tell. `None` if nothing is watched and the case tells nothing.
    pub(crate) fn key(
        &self,
        cells: &Cells,
        victim: &Victim,
        asleep: bool,
        peers: &[i32],
        more: Option<Vec<u8>>,
    ) -> Option<u64> {
        let (before, now) = match (&self.bytes, &more) {
            (Some(before), _) => (before.as_slice(), read(&self.regions)?),
            (None, Some(_)) => (&[][..], Vec::new()),
            (None, None) => return None,
        };
        let parts: Vec<u32> =
            std::iter::once(&victim.pid()).chain(peers).map(|pid| pid.unsigned_abs()).collect();
        let part = |half: u32| {
            let part = parts.iter().position(|pid| *pid == half & PID).map(|at| at + 1);
            (if part.is_some() { half & !PID } else { half }, part)
        };
        let mut hasher = DefaultHasher::new();
        more.hash(&mut hasher);
        for (at, (old, new)) in before.chunks(4).zip(now.chunks(4)).enumerate() {
            if old != new {
                (at, part(new.iter().rev().fold(0, |word, byte| word << 8 | u32::from(*byte))))
                    .hash(&mut hasher);
            }
        }
        for cell in cells.all() {
            u32::try_from(cell).map(part).map_err(|_| cell).hash(&mut hasher);
        }
        (asleep, cells.stage(Role::Victim)).hash(&mut hasher);
        peers.iter().for_each(|peer| sys::activity(*peer).hash(&mut hasher));
        Some(hasher.finish())
    }
}

/// The regions as they are in this process, which shares them with the victim.
fn read(regions: &[Region]) -> Option<Vec<u8>> {
    let ranges: Vec<_> = regions
        .iter()
        .filter(|region| region.length != 0)
        .map(|region| (region.address, region.length))
        .collect();
    let mut bytes = vec![0; ranges.iter().map(|range| range.1).sum()];
    let own = i32::try_from(std::process::id()).ok()?;
    (!bytes.is_empty() && sys::read_memory(own, &ranges, &mut bytes) == bytes.len()).then_some(bytes)
}
