//! What is written: one record for each change, the same kinds in logs and snapshots.
//!
//! Integers are little-endian. Strings are a u16 length and UTF-8.

use ipnetwork::IpNetwork;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::owner::{Details, Owner};
use super::state::Place;

/// The longest string that is kept; longer ones are refused before anything is changed.
pub(super) const MAX_TEXT: usize = 4096;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Opens a file. A snapshot's generation is that of the first log to replay after it.
    Header { version: u16, generation: u64 },
    /// A pool by number: new, or active or not from now on.
    Pool {
        number: u16,
        cidr: IpNetwork,
        active: bool,
    },
    /// An owner got these addresses.
    Assign {
        owner: Owner,
        details: Details,
        places: Vec<Place>,
    },
    /// An owner gave back all it had.
    Release { owner: Owner, at: u32 },
    /// Only in snapshots: a free address in the order of its queue.
    Freed { place: Place, at: u32 },
    /// Closes a snapshot: how many records came before.
    End { records: u64 },
}

const HEADER: u8 = 1;
const POOL: u8 = 2;
const ASSIGN: u8 = 3;
const RELEASE: u8 = 4;
const FREED: u8 = 5;
const END: u8 = 6;

impl Record {
    /// Appends the record's bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Header {
                version,
                generation,
            } => {
                out.push(HEADER);
                out.extend(version.to_le_bytes());
                out.extend(generation.to_le_bytes());
            }
            Record::Pool {
                number,
                cidr,
                active,
            } => {
                out.push(POOL);
                out.extend(number.to_le_bytes());
                put_cidr(out, cidr);
                out.push(u8::from(*active));
            }
            Record::Assign {
                owner,
                details,
                places,
            } => {
                out.push(ASSIGN);
                put_owner(out, owner);
                put_details(out, details);
                out.push(places.len() as u8);
                places.iter().for_each(|place| put_place(out, *place));
            }
            Record::Release { owner, at } => {
                out.push(RELEASE);
                put_owner(out, owner);
                out.extend(at.to_le_bytes());
            }
            Record::Freed { place, at } => {
                out.push(FREED);
                put_place(out, *place);
                out.extend(at.to_le_bytes());
            }
            Record::End { records } => {
                out.push(END);
                out.extend(records.to_le_bytes());
            }
        }
    }

    /// Reads a record that fills `bytes` exactly; `None` where the bytes are no record.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let record = match input.u8()? {
            HEADER => Record::Header {
                version: input.u16()?,
                generation: input.u64()?,
            },
            POOL => Record::Pool {
                number: input.u16()?,
                cidr: input.cidr()?,
                active: input.u8()? == 1,
            },
            ASSIGN => Record::Assign {
                owner: input.owner()?,
                details: input.details()?,
                places: input.places()?,
            },
            RELEASE => Record::Release {
                owner: input.owner()?,
                at: input.u32()?,
            },
            FREED => Record::Freed {
                place: input.place()?,
                at: input.u32()?,
            },
            END => Record::End {
                records: input.u64()?,
            },
            _ => return None,
        };
        input.0.is_empty().then_some(record)
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= MAX_TEXT);
    out.extend((text.len() as u16).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_owner(out: &mut Vec<u8>, owner: &Owner) {
    put_text(out, &owner.container_id);
    put_text(out, &owner.interface);
}

fn put_details(out: &mut Vec<u8>, details: &Details) {
    put_text(out, &details.network);
    put_text(out, &details.pod_namespace);
    put_text(out, &details.pod_name);
    put_text(out, &details.pod_uid);
    out.extend(details.assigned_at.to_le_bytes());
}

fn put_place(out: &mut Vec<u8>, (pool, offset): Place) {
    out.extend(pool.to_le_bytes());
    out.extend(offset.to_le_bytes());
}

fn put_cidr(out: &mut Vec<u8>, cidr: &IpNetwork) {
    match cidr.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend(ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend(ip.octets());
        }
    }
    out.push(cidr.prefix());
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u16()?;
        let bytes = self.take(length.into())?;
        String::from_utf8(bytes.to_vec()).ok()
    }

    fn owner(&mut self) -> Option<Owner> {
        Some(Owner::new(self.text()?, self.text()?))
    }

    fn details(&mut self) -> Option<Details> {
        Some(Details {
            network: self.text()?,
            pod_namespace: self.text()?,
            pod_name: self.text()?,
            pod_uid: self.text()?,
            assigned_at: self.u64()?,
        })
    }

    fn place(&mut self) -> Option<Place> {
        Some((self.u16()?, self.u64()?))
    }

    fn places(&mut self) -> Option<Vec<Place>> {
        let count = self.u8()?;
        (0..count).map(|_| self.place()).collect()
    }

    fn cidr(&mut self) -> Option<IpNetwork> {
        let ip = match self.u8()? {
            4 => IpAddr::V4(Ipv4Addr::from(self.array::<4>()?)),
            6 => IpAddr::V6(Ipv6Addr::from(self.array::<16>()?)),
            _ => return None,
        };
        IpNetwork::new(ip, self.u8()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn owner() -> impl Strategy<Value = Owner> {
        ("[a-f0-9]{0,64}", "[a-z0-9]{1,15}").prop_map(|(id, interface)| Owner::new(id, interface))
    }

    fn record() -> impl Strategy<Value = Record> {
        let cidr = prop_oneof![
            (any::<u32>(), 0..=32u8).prop_map(|(ip, p)| IpNetwork::new(IpAddr::V4(ip.into()), p)),
            (any::<u128>(), 0..=128u8).prop_map(|(ip, p)| IpNetwork::new(IpAddr::V6(ip.into()), p)),
        ];
        let details =
            (".{0,20}", ".{0,20}", any::<u64>()).prop_map(|(network, pod_name, at)| Details {
                network,
                pod_name,
                assigned_at: at,
                ..Details::default()
            });
        let places = prop::collection::vec(any::<Place>(), 0..3);
        prop_oneof![
            (any::<u16>(), any::<u64>()).prop_map(|(version, generation)| Record::Header {
                version,
                generation
            }),
            (any::<u16>(), cidr, any::<bool>()).prop_map(|(number, cidr, active)| Record::Pool {
                number,
                cidr: cidr.unwrap(),
                active
            }),
            (owner(), details, places).prop_map(|(owner, details, places)| Record::Assign {
                owner,
                details,
                places
            }),
            (owner(), any::<u32>()).prop_map(|(owner, at)| Record::Release { owner, at }),
            (any::<Place>(), any::<u32>()).prop_map(|(place, at)| Record::Freed { place, at }),
            any::<u64>().prop_map(|records| Record::End { records }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(record in record()) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Some(record));
            prop_assert_eq!(Record::decode(&bytes[..bytes.len() - 1]), None);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
        }
    }
}
