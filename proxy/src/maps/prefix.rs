//! Keys of longest-prefix-match tries: the prefix length in bits (a word in the machine's order), then
//! the data, most significant bit first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// Bytes of a key that is an IPv4 prefix.
pub const V4_CIDR: usize = 8;
/// Bytes of a key that is an IPv6 prefix.
pub const V6_CIDR: usize = 20;

/// The key of a prefix.
pub fn key(network: IpNetwork) -> Vec<u8> {
    with_data(network.prefix().into(), &[], network)
}

/// The key of a prefix that belongs to a service: the service's id comes first and always matches
/// whole.
pub fn service_key(service_id: u32, network: IpNetwork) -> Vec<u8> {
    with_data(
        32 + u32::from(network.prefix()),
        &service_id.to_ne_bytes(),
        network,
    )
}

fn with_data(bits: u32, before: &[u8], network: IpNetwork) -> Vec<u8> {
    let mut key = bits.to_ne_bytes().to_vec();
    key.extend_from_slice(before);
    match network.network() {
        IpAddr::V4(addr) => key.extend_from_slice(&addr.octets()),
        IpAddr::V6(addr) => key.extend_from_slice(&addr.octets()),
    }
    key
}

/// The IPv4 prefix that a key stands for.
pub fn parse_v4(key: &[u8]) -> Option<IpNetwork> {
    let (bits, addr) = split(key)?;
    network(Ipv4Addr::from(<[u8; 4]>::try_from(addr).ok()?).into(), bits)
}

/// The IPv6 prefix that a key stands for.
pub fn parse_v6(key: &[u8]) -> Option<IpNetwork> {
    let (bits, addr) = split(key)?;
    network(
        Ipv6Addr::from(<[u8; 16]>::try_from(addr).ok()?).into(),
        bits,
    )
}

/// The service and the IPv4 prefix that a key stands for.
pub fn parse_service_v4(key: &[u8]) -> Option<(u32, IpNetwork)> {
    let (bits, data) = split(key)?;
    let (service, addr) = split(data)?;
    Some((
        service,
        network(
            Ipv4Addr::from(<[u8; 4]>::try_from(addr).ok()?).into(),
            bits.checked_sub(32)?,
        )?,
    ))
}

/// The service and the IPv6 prefix that a key stands for.
pub fn parse_service_v6(key: &[u8]) -> Option<(u32, IpNetwork)> {
    let (bits, data) = split(key)?;
    let (service, addr) = split(data)?;
    Some((
        service,
        network(
            Ipv6Addr::from(<[u8; 16]>::try_from(addr).ok()?).into(),
            bits.checked_sub(32)?,
        )?,
    ))
}

fn split(key: &[u8]) -> Option<(u32, &[u8])> {
    let (word, rest) = key.split_first_chunk()?;
    Some((u32::from_ne_bytes(*word), rest))
}

fn network(addr: IpAddr, bits: u32) -> Option<IpNetwork> {
    IpNetwork::new(addr, u8::try_from(bits).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_survive_the_round_trip() {
        for text in [
            "10.244.0.0/16",
            "0.0.0.0/0",
            "fd00:10:244::/56",
            "::/0",
            "::1/128",
        ] {
            let network: IpNetwork = text.parse().unwrap();
            let (key, service) = (key(network), service_key(7, network));
            let (plain, of_service) = if network.is_ipv4() {
                (parse_v4(&key), parse_service_v4(&service))
            } else {
                (parse_v6(&key), parse_service_v6(&service))
            };
            assert_eq!(plain, Some(network));
            assert_eq!(of_service, Some((7, network)));
        }
    }
}
