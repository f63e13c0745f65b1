//! Packets from their parts, and the textbook checksum to hold the datapath's against.

use std::net::IpAddr;

use super::Frame;

/// What a packet is to say.
#[derive(Clone, Debug)]
pub struct Spec {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub sport: u16,
    pub dport: u16,
    /// IANA number; echo requests carry `sport` as their identifier, replies `dport`.
    pub protocol: u8,
    pub tcp_flags: u8,
    pub ttl: u8,
    pub payload: Vec<u8>,
    /// IPv4 options, in words.
    pub options: u8,
}

impl Spec {
    pub fn new(protocol: u8, src: (&str, u16), dst: (&str, u16)) -> Self {
        let ip = |text: &str| text.parse().expect("an address");
        Self {
            src: ip(src.0),
            dst: ip(dst.0),
            sport: src.1,
            dport: dst.1,
            protocol,
            tcp_flags: 0x18,
            ttl: 64,
            payload: b"payload".to_vec(),
            options: 0,
        }
    }

    /// The packet that answers this one.
    pub fn answer(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            ..self.clone()
        }
    }

    pub fn frame(&self) -> Frame {
        let mut transport = self.transport();
        let at = checksum_offset(self.protocol);
        let sum = checksum(&[&self.pseudo(transport.len()), &transport]);
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        bytes.extend(if self.src.is_ipv4() {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        });
        bytes.extend(self.network(transport.len()));
        bytes.extend(transport);
        Frame(bytes)
    }

    fn transport(&self) -> Vec<u8> {
        let ports = [self.sport.to_be_bytes(), self.dport.to_be_bytes()].concat();
        let head = match self.protocol {
            6 => {
                let rest = [
                    0,
                    0,
                    0,
                    1,
                    0,
                    0,
                    0,
                    2,
                    0x50,
                    self.tcp_flags,
                    0xff,
                    0xff,
                    0,
                    0,
                    0,
                    0,
                ];
                [ports, rest.to_vec()].concat()
            }
            17 => {
                let len = (8 + self.payload.len()) as u16;
                [ports, len.to_be_bytes().to_vec(), vec![0, 0]].concat()
            }
            _ => {
                let reply = self.sport == 0;
                let kind = match (self.src.is_ipv4(), reply) {
                    (true, false) => 8,
                    (true, true) => 0,
                    (false, false) => 128,
                    (false, true) => 129,
                };
                let id = (self.sport | self.dport).to_be_bytes();
                vec![kind, 0, 0, 0, id[0], id[1], 0, 1]
            }
        };
        [head, self.payload.clone()].concat()
    }

    fn network(&self, len: usize) -> Vec<u8> {
        match (self.src, self.dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let words = 5 + self.options;
                let total = (usize::from(words) * 4 + len) as u16;
                let mut header = vec![0x40 | words, 0];
                header.extend(total.to_be_bytes());
                header.extend([0, 0, 0x40, 0, self.ttl, self.protocol, 0, 0]);
                header.extend(src.octets());
                header.extend(dst.octets());
                header.extend(std::iter::repeat_n(1, usize::from(self.options) * 4));
                let sum = checksum(&[&header]);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
                header
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let mut header = vec![0x60, 0, 0, 0];
                header.extend((len as u16).to_be_bytes());
                header.extend([self.protocol, self.ttl]);
                header.extend(src.octets());
                header.extend(dst.octets());
                header
            }
            _ => panic!("mixed families"),
        }
    }

    fn pseudo(&self, len: usize) -> Vec<u8> {
        pseudo(self.src, self.dst, self.protocol, len)
    }
}

fn pseudo(src: IpAddr, dst: IpAddr, protocol: u8, len: usize) -> Vec<u8> {
    if protocol == 1 {
        return Vec::new();
    }
    let octets = |ip| match ip {
        IpAddr::V4(ip) => std::net::Ipv4Addr::octets(&ip).to_vec(),
        IpAddr::V6(ip) => std::net::Ipv6Addr::octets(&ip).to_vec(),
    };
    let tail = vec![0, protocol, (len >> 8) as u8, len as u8];
    [octets(src), octets(dst), tail].concat()
}

fn checksum_offset(protocol: u8) -> usize {
    match protocol {
        6 => 16,
        17 => 6,
        _ => 2,
    }
}

/// RFC 1071, over big-endian words; a last odd byte is padded.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What a frame says, read plainly; panics unless every checksum in it is right.
pub fn read(frame: &Frame) -> Spec {
    let bytes = &frame.0;
    let v4 = bytes[12..14] == [0x08, 0x00];
    let network = &bytes[14..];
    let (src, dst, protocol, ttl, start): (IpAddr, IpAddr, u8, u8, usize) = if v4 {
        let len = usize::from(network[0] & 0xf) * 4;
        assert_eq!(checksum(&[&network[..len]]), 0, "IPv4 header checksum");
        let ip =
            |at: usize| IpAddr::from(<[u8; 4]>::try_from(&network[at..at + 4]).expect("4 bytes"));
        (ip(12), ip(16), network[9], network[8], len)
    } else {
        let ip = |at: usize| {
            IpAddr::from(<[u8; 16]>::try_from(&network[at..at + 16]).expect("16 bytes"))
        };
        (ip(8), ip(24), network[6], network[7], 40)
    };
    let transport = &network[start..];
    let sum = checksum(&[&pseudo(src, dst, protocol, transport.len()), transport]);
    let none = protocol == 17 && v4 && transport[6..8] == [0, 0];
    assert!(
        sum == 0 || none,
        "transport checksum of {src} > {dst}, protocol {protocol}"
    );
    let word = |at: usize| u16::from_be_bytes([transport[at], transport[at + 1]]);
    let (sport, dport, head) = match protocol {
        6 => (word(0), word(2), 20),
        17 => (word(0), word(2), 8),
        _ if matches!(transport[0], 8 | 128) => (word(4), 0, 8),
        _ => (0, word(4), 8),
    };
    Spec {
        src,
        dst,
        sport,
        dport,
        protocol,
        tcp_flags: if protocol == 6 { transport[13] } else { 0 },
        ttl,
        payload: transport[head..].to_vec(),
        options: if v4 { (start / 4 - 5) as u8 } else { 0 },
    }
}
