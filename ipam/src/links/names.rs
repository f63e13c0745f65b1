//! The names and hardware addresses of a pod's link, all derived from its owner, so that whoever knows the
//! owner finds the link, and nothing about it has to be stored.

use crate::allocator::Key;

/// What the names of all host-side ends start with.
pub const PREFIX: &str = "slu";

/// A hardware address.
pub type Mac = [u8; 6];

/// The host-side name: `slu` and 44 bits of the owner's key in hexadecimal, 14 characters of the 15 that
/// the kernel allows.
pub fn host_link(key: Key) -> String {
    format!("{PREFIX}{:011x}", key.bits() >> 20)
}

/// The pod-side hardware address: locally administered, unicast.
pub fn pod_mac(key: Key) -> Mac {
    let bytes = key.bits().to_be_bytes();
    let first = bytes[0] & 0xfc | 0x02;
    [first, bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]
}

/// The host-side hardware address: the pod's with the last bit flipped.
pub fn host_mac(key: Key) -> Mac {
    let mut mac = pod_mac(key);
    mac[5] ^= 1;
    mac
}

/// `02:00:5e:10:00:ff`.
pub fn format_mac(mac: &Mac) -> String {
    let octets: Vec<String> = mac.iter().map(|octet| format!("{octet:02x}")).collect();
    octets.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::Owner;

    #[test]
    fn names_fit_and_macs_are_local_unicast() {
        for n in 0..100 {
            let key = Owner::new(format!("{n:x}"), "eth0").key();
            assert_eq!(host_link(key).len(), 14);
            assert_eq!(pod_mac(key)[0] & 0x03, 0x02);
            assert_ne!(pod_mac(key), host_mac(key));
        }
    }

    #[test]
    fn macs_are_written_as_the_kernel_does() {
        assert_eq!(
            format_mac(&[2, 0, 0x5e, 0x10, 0, 0xff]),
            "02:00:5e:10:00:ff"
        );
    }
}
