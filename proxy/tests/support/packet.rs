//! Packets from their parts and back, with every checksum checked.

use std::net::IpAddr;

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SYN: u8 = 2;

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub sport: u16,
    pub dport: u16,
    pub protocol: u8,
    pub tcp_flags: u8,
    pub payload: Vec<u8>,
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// RFC 1071, over big-endian words; a last odd byte is padded.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl Packet {
    pub fn frame(&self) -> Vec<u8> {
        let mut transport = [self.sport.to_be_bytes(), self.dport.to_be_bytes()].concat();
        let at = if self.protocol == TCP {
            transport.extend([
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
            ]);
            16
        } else {
            transport.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            transport.extend([0, 0]);
            6
        };
        transport.extend(&self.payload);
        let sum = checksum(&[self.pseudo(transport.len()), transport.clone()].concat());
        transport[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        let ethertype = if self.src.is_ipv4() {
            [0x08, 0x00]
        } else {
            [0x86, 0xdd]
        };
        [
            vec![2; 12],
            ethertype.to_vec(),
            self.network(transport.len()),
            transport,
        ]
        .concat()
    }

    fn network(&self, len: usize) -> Vec<u8> {
        let addresses = [octets(self.src), octets(self.dst)].concat();
        if self.src.is_ipv6() {
            let head = vec![
                0x60,
                0,
                0,
                0,
                (len >> 8) as u8,
                len as u8,
                self.protocol,
                64,
            ];
            return [head, addresses].concat();
        }
        let total = len + 20;
        let head = vec![
            0x45,
            0,
            (total >> 8) as u8,
            total as u8,
            0,
            0,
            0x40,
            0,
            64,
            self.protocol,
            0,
            0,
        ];
        let mut header = [head, addresses].concat();
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn pseudo(&self, len: usize) -> Vec<u8> {
        let tail = vec![0, self.protocol, (len >> 8) as u8, len as u8];
        [octets(self.src), octets(self.dst), tail].concat()
    }

    /// Reads TCP, UDP or ICMP; panics unless the checksums are right. ICMP has no ports.
    pub fn read(frame: &[u8]) -> Self {
        let network = &frame[14..];
        let v4 = frame[12..14] == [0x08, 0x00];
        let (src, dst, protocol, start): (IpAddr, IpAddr, u8, usize) = if v4 {
            assert_eq!(checksum(&network[..20]), 0, "IPv4 header checksum");
            let ip = |at: usize| {
                IpAddr::from(<[u8; 4]>::try_from(&network[at..at + 4]).expect("4 bytes"))
            };
            (ip(12), ip(16), network[9], 20)
        } else {
            let ip = |at: usize| {
                IpAddr::from(<[u8; 16]>::try_from(&network[at..at + 16]).expect("16 bytes"))
            };
            (ip(8), ip(24), network[6], 40)
        };
        let transport = &network[start..];
        let mut packet = Self {
            src,
            dst,
            sport: 0,
            dport: 0,
            protocol,
            tcp_flags: 0,
            payload: Vec::new(),
        };
        let pseudo = if protocol == 1 {
            Vec::new()
        } else {
            packet.pseudo(transport.len())
        };
        assert_eq!(
            checksum(&[pseudo, transport.to_vec()].concat()),
            0,
            "transport checksum"
        );
        if matches!(protocol, TCP | UDP) {
            packet.sport = u16::from_be_bytes([transport[0], transport[1]]);
            packet.dport = u16::from_be_bytes([transport[2], transport[3]]);
        }
        let head = if protocol == TCP { 20 } else { 8 };
        packet.tcp_flags = if protocol == TCP { transport[13] } else { 0 };
        packet.payload = transport[head..].to_vec();
        packet
    }
}
