//! Objects in memory of the crate `shared_memory`.

mod common;

use multiproc_shm::{Options, Value};
use shared_memory::ShmemConf;

use common::Outcome;

#[test]
fn two_mappings_of_a_shmem_share_a_value() -> Outcome {
    let made = ShmemConf::new().size(Options::bytes_needed::<Value<u64>>(0)? + 64).create()?;
    let id = made.get_os_id().to_owned();
    let here: Value<u64> = Options::new().place(made, 64, 7)?;
    let there: Value<u64> = Options::new().attach(ShmemConf::new().os_id(&id).open()?, 64)?;
    there.set(8)?;
    assert_eq!(here.get()?, 8);
    drop((here, there));
    // The handles kept the region; dropping it removes the memory.
    assert!(ShmemConf::new().os_id(id).open().is_err());
    Ok(())
}
