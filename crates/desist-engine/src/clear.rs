//! Placeholder.
use desist_core::mark::IdentifierNo;
use desist_store::{Read, StoreError};

use crate::delivery::transport::Known;
use crate::engine::Shared;

pub fn known(_: &mut dyn Read, _: &Shared, _: IdentifierNo) -> Result<Option<Known>, StoreError> {
    Ok(None)
}
