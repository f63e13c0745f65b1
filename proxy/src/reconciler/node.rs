//! What the programs know about the node itself: its configuration and the masquerade's prefixes.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use sluice_common::Config;

use crate::maps::{MapError, Tables};

/// Keeps the node's tables as they should be.
#[derive(Debug, Default)]
pub struct NodeTables {
    /// What the programs should know.
    pub config: Config,
    /// Prefixes with their flags ([`sluice_common::cidr_flags`]).
    pub cidrs: BTreeMap<IpNetwork, u32>,
}

impl NodeTables {
    /// Writes what differs. The tables themselves are compared: they are small and rarely change.
    ///
    /// # Errors
    /// The first operation that failed; to be called again.
    pub fn apply(&self, tables: &mut impl Tables) -> Result<(), MapError> {
        let present: BTreeMap<_, _> = tables.cidrs()?.into_iter().collect();
        for (network, flags) in &self.cidrs {
            if present.get(network) != Some(flags) {
                tables.put_cidr(*network, *flags)?;
            }
        }
        if tables.config()? != self.config {
            tables.put_config(&self.config)?;
        }
        let gone = present
            .keys()
            .filter(|network| !self.cidrs.contains_key(network));
        gone.into_iter()
            .try_for_each(|network| tables.delete_cidr(*network))
    }
}
