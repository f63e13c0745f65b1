//! A blocking rtnetlink socket: batches of requests with one acknowledgement each, dumps, and events.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use thiserror::Error;

const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
/// The kernel fills at most 32 KiB of a dump into one message.
const BUFFER: usize = 64 * 1024;
/// A dump that changed while it was made is made again, up to this often.
const DUMP_ATTEMPTS: usize = 10;

/// A refusal by the kernel, with its own explanation where it gave one. The message holds all of it.
#[derive(Debug, Error)]
#[error("{}", Explained(reason, hint))]
pub struct NetlinkError {
    /// The error number.
    pub reason: io::Error,
    /// The kernel's words (extended acknowledgement).
    pub hint: Option<String>,
}

struct Explained<'a>(&'a io::Error, &'a Option<String>);

impl fmt::Display for Explained<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(hint) => write!(out, "{} ({hint})", self.0),
            None => self.0.fmt(out),
        }
    }
}

impl NetlinkError {
    /// The error number, 0 where there is none.
    pub fn errno(&self) -> i32 {
        self.reason.raw_os_error().unwrap_or(0)
    }
}

impl From<io::Error> for NetlinkError {
    fn from(reason: io::Error) -> Self {
        Self { reason, hint: None }
    }
}

impl From<nix::Error> for NetlinkError {
    fn from(errno: nix::Error) -> Self {
        io::Error::from(errno).into()
    }
}

/// One message to the kernel, and the NLM_F_* flags besides REQUEST and ACK.
pub struct Request {
    /// The message.
    pub message: RouteNetlinkMessage,
    /// Such as NLM_F_CREATE | NLM_F_EXCL.
    pub flags: u16,
}

/// Multicast groups of events (linux/rtnetlink.h, RTMGRP_*).
pub mod groups {
    /// Links.
    pub const LINK: u32 = 0x1;
    /// IPv4 addresses.
    pub const IPV4_ADDRESS: u32 = 0x10;
    /// IPv4 routes.
    pub const IPV4_ROUTE: u32 = 0x40;
    /// IPv6 addresses.
    pub const IPV6_ADDRESS: u32 = 0x100;
    /// IPv6 routes.
    pub const IPV6_ROUTE: u32 = 0x400;
}

/// A socket in the network namespace in which it was opened, whatever thread uses it later.
pub struct Netlink {
    fd: OwnedFd,
    sequence: u32,
    buffer: Box<[u8]>,
}

impl Netlink {
    /// A socket for requests.
    pub fn open() -> Result<Self, NetlinkError> {
        let netlink = Self::bound(SockFlag::SOCK_CLOEXEC, 0)?;
        // Errors explain themselves and do not repeat the request; dumps filter by what is asked for.
        for option in [
            libc::NETLINK_EXT_ACK,
            libc::NETLINK_CAP_ACK,
            libc::NETLINK_GET_STRICT_CHK,
        ] {
            netlink.enable(option)?;
        }
        Ok(netlink)
    }

    /// A non-blocking socket that receives the events of `groups`.
    pub fn subscribe(groups: u32) -> Result<Self, NetlinkError> {
        let netlink = Self::bound(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, groups)?;
        // Room for a burst; what is lost all the same shows as ENOBUFS.
        setsockopt(&netlink.fd, sockopt::RcvBuf, &(4 << 20))?;
        Ok(netlink)
    }

    fn bound(flags: SockFlag, groups: u32) -> Result<Self, NetlinkError> {
        let protocol = SockProtocol::NetlinkRoute;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        let buffer = vec![0; BUFFER].into_boxed_slice();
        Ok(Self {
            fd,
            sequence: 0,
            buffer,
        })
    }

    fn enable(&self, option: libc::c_int) -> Result<(), NetlinkError> {
        let on: libc::c_int = 1;
        // SAFETY: the descriptor is open, and the value is a c_int that outlives the call.
        let result = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_NETLINK,
                option,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error().into()),
        }
    }

    /// Sends all requests in one message, in order, and collects their outcomes. On an error: the index of
    /// the first request that failed. The kernel does not stop there, so the caller has to unwind all.
    pub fn execute(&mut self, requests: Vec<Request>) -> Result<(), (usize, NetlinkError)> {
        let first = self.sequence.wrapping_add(1);
        let count = requests.len();
        let mut bytes = Vec::with_capacity(512);
        for request in requests {
            self.append(&mut bytes, request.message, request.flags | NLM_F_ACK);
        }
        self.send(&bytes).map_err(|error| (0, error))?;
        let mut outcomes = Outcomes {
            first,
            waiting: count,
            failed: None,
        };
        while outcomes.waiting > 0 {
            let received = self.receive().map_err(|error| (0, error))?;
            messages(received).for_each(|message| outcomes.take(&message));
        }
        match outcomes.failed {
            Some(failed) => Err(failed),
            None => Ok(()),
        }
    }

    /// Sends one request and returns the message that answers it.
    pub fn get(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, NetlinkError> {
        let sequence = self.start(message, 0)?;
        loop {
            for raw in messages(self.receive()?).filter(|raw| raw.sequence == sequence) {
                match raw.kind {
                    NLMSG_ERROR => raw.outcome()?,
                    _ => return raw.parse(),
                }
            }
        }
    }

    /// All objects that match the message.
    pub fn dump(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(objects) = self.try_dump(message.clone())? {
                return Ok(objects);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::Interrupted,
            "the kernel's tables keep changing",
        )
        .into())
    }

    /// `None` where the dump is inconsistent.
    fn try_dump(
        &mut self,
        message: RouteNetlinkMessage,
    ) -> Result<Option<Vec<RouteNetlinkMessage>>, NetlinkError> {
        let sequence = self.start(message, NLM_F_DUMP)?;
        let (mut objects, mut consistent, mut done) = (Vec::new(), true, false);
        while !done {
            for raw in messages(self.receive()?).filter(|raw| raw.sequence == sequence) {
                consistent &= raw.flags & NLM_F_DUMP_INTR == 0;
                match raw.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        raw.outcome()?;
                        done = true;
                    }
                    _ => objects.push(raw.parse()?),
                }
            }
        }
        Ok(consistent.then_some(objects))
    }

    /// The events that wait in the socket, and whether some were lost. Empty where none wait.
    pub fn events(&mut self) -> Result<(Vec<RouteNetlinkMessage>, bool), NetlinkError> {
        let (mut events, mut lost) = (Vec::new(), false);
        loop {
            match self.receive() {
                // What this version of the kernel says in a way unknown to us is not for us.
                Ok(received) => {
                    events.extend(messages(received).filter_map(|raw| raw.parse().ok()))
                }
                Err(error) if error.errno() == libc::EAGAIN => return Ok((events, lost)),
                Err(error) if error.errno() == libc::ENOBUFS => lost = true,
                Err(error) => return Err(error),
            }
        }
    }

    fn start(&mut self, message: RouteNetlinkMessage, flags: u16) -> Result<u32, NetlinkError> {
        let mut bytes = Vec::with_capacity(128);
        self.append(&mut bytes, message, flags);
        self.send(&bytes)?;
        Ok(self.sequence)
    }

    fn append(&mut self, bytes: &mut Vec<u8>, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let start = bytes.len();
        bytes.resize(start + message.buffer_len().next_multiple_of(4), 0);
        message.serialize(&mut bytes[start..]);
    }

    fn send(&self, bytes: &[u8]) -> Result<(), NetlinkError> {
        send(self.fd.as_raw_fd(), bytes, MsgFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self) -> Result<&[u8], NetlinkError> {
        loop {
            match recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(&self.buffer[..length]),
                Err(nix::Error::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsRawFd for Netlink {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

struct Outcomes {
    first: u32,
    waiting: usize,
    failed: Option<(usize, NetlinkError)>,
}

impl Outcomes {
    /// Acknowledgements come in the order of the requests, so the first error is the earliest.
    fn take(&mut self, message: &Raw<'_>) {
        if message.kind != NLMSG_ERROR {
            return;
        }
        self.waiting = self.waiting.saturating_sub(1);
        if let Err(error) = message.outcome() {
            let index = message.sequence.wrapping_sub(self.first) as usize;
            self.failed.get_or_insert((index, error));
        }
    }
}

/// A message as it came: netlink's header is in host byte order.
struct Raw<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    bytes: &'a [u8],
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn messages(received: &[u8]) -> impl Iterator<Item = Raw<'_>> {
    let mut rest = received;
    std::iter::from_fn(move || {
        let length = u32_at(rest, 0)? as usize;
        let bytes = rest.get(..length.max(HEADER))?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Raw {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            bytes,
        })
    })
}

impl Raw<'_> {
    /// The outcome in an acknowledgement or at a dump's end.
    fn outcome(&self) -> Result<(), NetlinkError> {
        let code = u32_at(self.bytes, HEADER).unwrap_or(0) as i32;
        match code {
            0 => Ok(()),
            _ => Err(NetlinkError {
                reason: io::Error::from_raw_os_error(-code),
                hint: self.hint(),
            }),
        }
    }

    fn hint(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let request = match self.flags & NLM_F_CAPPED {
            0 => u32_at(self.bytes, HEADER + 4)? as usize,
            _ => HEADER,
        };
        let offset = if self.kind == NLMSG_DONE { 0 } else { request };
        let mut rest = self.bytes.get(HEADER + 4 + offset.next_multiple_of(4)..)?;
        loop {
            let (length, kind) = (u16_at(rest, 0)?, u16_at(rest, 2)?);
            let value = rest.get(4..usize::from(length))?;
            if kind == NLMSGERR_ATTR_MSG {
                let text = value.strip_suffix(&[0]).unwrap_or(value);
                return Some(String::from_utf8_lossy(text).into_owned());
            }
            rest = rest.get(usize::from(length).next_multiple_of(4)..)?;
        }
    }

    fn parse(&self) -> Result<RouteNetlinkMessage, NetlinkError> {
        let mut header = NetlinkHeader::default();
        header.length = self.bytes.len() as u32;
        header.message_type = self.kind;
        header.flags = self.flags;
        let parsed = RouteNetlinkMessage::deserialize(&header, &self.bytes[HEADER..]);
        parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()).into())
    }
}
