//! Ethernet frames with one TCP segment.

use std::net::IpAddr;

/// TCP flags.
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// What a frame says; 64 bytes of payload make it as long as a small request.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub src: IpAddr,
    pub dst: IpAddr,
    pub sport: u16,
    pub dport: u16,
    pub flags: u8,
}

const PAYLOAD: usize = 64;
const TCP_HEADER: usize = 20;
const TCP: u8 = 6;

impl Segment {
    /// The frame, with right checksums and a TTL of 255.
    pub fn frame(&self) -> Vec<u8> {
        let ethertype: u16 = if self.src.is_ipv4() { 0x0800 } else { 0x86dd };
        let mut frame = vec![2; 12];
        frame.extend(ethertype.to_be_bytes());
        frame.extend(self.network_header());
        frame.extend(self.transport());
        frame
    }

    fn network_header(&self) -> Vec<u8> {
        let len = (TCP_HEADER + PAYLOAD) as u16;
        let addresses = [octets(self.src), octets(self.dst)].concat();
        if !self.src.is_ipv4() {
            let [high, low] = len.to_be_bytes();
            return [vec![0x60, 0, 0, 0, high, low, TCP, 255], addresses].concat();
        }
        let [high, low] = (len + 20).to_be_bytes();
        let mut header = vec![0x45, 0, high, low, 0, 1, 0x40, 0, 255, TCP, 0, 0];
        header.extend(addresses);
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn transport(&self) -> Vec<u8> {
        let mut segment = [self.sport.to_be_bytes(), self.dport.to_be_bytes()].concat();
        segment.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, self.flags, 0xff, 0xff]);
        segment.resize(TCP_HEADER + PAYLOAD, 0);
        let pseudo = [
            octets(self.src),
            octets(self.dst),
            vec![0, TCP],
            (segment.len() as u16).to_be_bytes().to_vec(),
        ];
        let sum = checksum(&[pseudo.concat(), segment.clone()].concat());
        segment[16..18].copy_from_slice(&sum.to_be_bytes());
        segment
    }
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_right() {
        for (src, dst) in [("10.0.0.1", "10.0.0.2"), ("fd00::1", "fd00::2")] {
            let segment = Segment {
                src: src.parse().unwrap(),
                dst: dst.parse().unwrap(),
                sport: 1,
                dport: 2,
                flags: SYN,
            };
            let (frame, transport) = (segment.frame(), segment.transport());
            if segment.src.is_ipv4() {
                assert_eq!(checksum(&frame[14..34]), 0);
            }
            let head = [octets(segment.src), octets(segment.dst)].concat();
            let pseudo = [head, vec![0, TCP, 0, 84], transport].concat();
            assert_eq!(checksum(&pseudo), 0);
        }
    }
}
