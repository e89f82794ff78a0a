//! Bytes that do not fit into memory, kept in memory.

use marquee_pipeline::join::cold::{ColdBytes, ColdError, ColdPlace, Fill};

#[derive(Debug)]
pub(crate) struct Kept;

#[derive(Debug)]
struct Bytes(Vec<u8>);

impl ColdPlace for Kept {
    fn keep(&self, fill: Fill<'_>) -> Result<Box<dyn ColdBytes>, ColdError> {
        let (mut all, mut piece) = (Vec::new(), Vec::new());
        while fill(&mut piece)? {
            all.append(&mut piece);
        }
        Ok(Box::new(Bytes(all)))
    }
}

impl ColdBytes for Bytes {
    fn read(&self, at: u64, into: &mut [u8]) -> Result<(), ColdError> {
        into.copy_from_slice(&self.0[at as usize..][..into.len()]);
        Ok(())
    }
}
