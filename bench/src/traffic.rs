//! A server and a load generator: one thread each, with epoll, so that the network is what is measured.
//!
//! A request is 64 bytes, and so is its answer. The first byte says what the client wants: an answer and the
//! server's FIN (`C`), an answer (`K`), or nothing but to be rid of bytes (`S`). The server ends a short
//! connection, so the client's port is free at once.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

const REQUEST: usize = 64;
const STREAM: usize = 256 << 10;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A connection for each request.
    Connect,
    /// Requests on connections that are kept.
    Request,
    /// Bytes on one connection.
    Stream,
}

/// What a client found.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Load {
    /// Requests, or bytes, per second.
    pub rate: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub errors: u64,
}

struct Epoll(OwnedFd);

impl Epoll {
    fn new() -> io::Result<Self> {
        // SAFETY: takes an integer; the descriptor that it returns is ours.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        // SAFETY: as above, when there is one.
        check(fd).map(|fd| Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn add(&self, fd: RawFd, events: i32) -> io::Result<()> {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: fd as u64,
        };
        // SAFETY: a live structure and open descriptors.
        let result =
            unsafe { libc::epoll_ctl(self.0.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &mut event) };
        check(result).map(drop)
    }

    fn wait<'a>(&self, events: &'a mut [libc::epoll_event]) -> io::Result<&'a [libc::epoll_event]> {
        let (pointer, len) = (events.as_mut_ptr(), events.len() as i32);
        // SAFETY: the kernel fills at most `len` events of a live buffer.
        let count = unsafe { libc::epoll_wait(self.0.as_raw_fd(), pointer, len, 100) };
        match check(count) {
            Ok(count) => Ok(&events[..count as usize]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(&[]),
            Err(error) => Err(error),
        }
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

const EMPTY: libc::epoll_event = libc::epoll_event { events: 0, u64: 0 };

fn read(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: a live buffer of this length.
    let count = unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    check(count as i32).map(|count| count as usize)
}

fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: live bytes of this length.
    let count = unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), libc::MSG_NOSIGNAL) };
    check(count as i32).map(|count| count as usize)
}

fn close(fd: RawFd) {
    // SAFETY: the caller owns it and forgets it now.
    unsafe { libc::close(fd) };
}

/// Keeps this thread on one CPU.
pub fn pin(cpu: usize) {
    // SAFETY: all zero is the empty set; the functions take the live set and its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        let cpus = libc::sysconf(libc::_SC_NPROCESSORS_ONLN).max(1) as usize;
        libc::CPU_SET(cpu % cpus, &mut set);
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

/// Serves until killed.
pub fn serve(address: SocketAddr) -> Result<()> {
    pin(1);
    let listener = TcpListener::bind(address).with_context(|| format!("cannot bind {address}"))?;
    listener.set_nonblocking(true)?;
    // SAFETY: an open listening socket.
    check(unsafe { libc::listen(listener.as_raw_fd(), 4096) })?;
    let epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), libc::EPOLLIN)?;
    let mut events = [EMPTY; 256];
    let mut buffer = vec![0; STREAM];
    loop {
        for event in epoll.wait(&mut events)? {
            let fd = event.u64 as RawFd;
            if fd == listener.as_raw_fd() {
                accept(&epoll, fd);
            } else if !answer(fd, &mut buffer) {
                close(fd);
            }
        }
    }
}

fn accept(epoll: &Epoll, listener: RawFd) {
    loop {
        let null = std::ptr::null_mut::<libc::c_void>();
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: no address is asked for.
        let fd = unsafe { libc::accept4(listener, null.cast(), null.cast(), flags) };
        if fd < 0 {
            return;
        }
        no_delay(fd);
        if epoll.add(fd, libc::EPOLLIN).is_err() {
            close(fd);
        }
    }
}

fn no_delay(fd: RawFd) {
    let one = 1i32;
    // SAFETY: a live integer of the size that is told.
    unsafe {
        let value = (&raw const one).cast();
        libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, value, 4);
    }
}

/// Whether the connection goes on.
fn answer(fd: RawFd, buffer: &mut [u8]) -> bool {
    match read(fd, buffer) {
        Ok(0) => false,
        Ok(_) if buffer[0] == b'S' => true,
        Ok(_) => {
            let answered = write(fd, &buffer[..REQUEST]).is_ok();
            answered && buffer[0] != b'C'
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Loads the targets in turn for a while, with so many connections at once.
pub fn load(
    mode: Mode,
    targets: &[SocketAddr],
    connections: usize,
    time: Duration,
) -> Result<Load> {
    pin(0);
    match mode {
        Mode::Stream => stream(targets[0], time),
        _ => Client::new(mode, targets, connections)?.run(time),
    }
}

fn stream(target: SocketAddr, time: Duration) -> Result<Load> {
    let socket = std::net::TcpStream::connect(target).context("cannot connect")?;
    let bytes = vec![b'S'; STREAM];
    let (begun, mut sent) = (Instant::now(), 0u64);
    while begun.elapsed() < time {
        sent += write(socket.as_raw_fd(), &bytes)? as u64;
    }
    Ok(Load {
        rate: sent as f64 / begun.elapsed().as_secs_f64(),
        ..Load::default()
    })
}

/// A connection of the client.
#[derive(Clone, Copy)]
struct Connection {
    begun: Instant,
    asked: bool,
    answered: bool,
}

struct Client<'a> {
    mode: Mode,
    targets: &'a [SocketAddr],
    next: usize,
    connections: usize,
    epoll: Epoll,
    /// By descriptor.
    open: Vec<Option<Connection>>,
    latencies: Vec<f64>,
    errors: u64,
}

impl<'a> Client<'a> {
    fn new(mode: Mode, targets: &'a [SocketAddr], connections: usize) -> Result<Self> {
        Ok(Self {
            mode,
            targets,
            next: 0,
            connections,
            epoll: Epoll::new()?,
            open: Vec::new(),
            latencies: Vec::with_capacity(1 << 18),
            errors: 0,
        })
    }

    fn run(mut self, time: Duration) -> Result<Load> {
        for _ in 0..self.connections {
            self.connect().context("cannot connect")?;
        }
        // What comes before the kept connections are there is not counted.
        let warm = time / 10;
        let (mut begun, mut counting) = (Instant::now(), false);
        let mut events = [EMPTY; 256];
        loop {
            for event in self.epoll.wait(&mut events)? {
                self.advance(event.u64 as RawFd, event.events);
            }
            if !counting && begun.elapsed() >= warm {
                (begun, counting) = (Instant::now(), true);
                self.latencies.clear();
                self.errors = 0;
            }
            if counting && begun.elapsed() >= time {
                return Ok(self.result(begun.elapsed()));
            }
        }
    }

    fn result(&self, took: Duration) -> Load {
        use crate::stats::percentile;
        Load {
            rate: self.latencies.len() as f64 / took.as_secs_f64(),
            p50_us: percentile(&self.latencies, 50.0),
            p99_us: percentile(&self.latencies, 99.0),
            errors: self.errors,
        }
    }

    fn connect(&mut self) -> io::Result<()> {
        let target = self.targets[self.next % self.targets.len()];
        self.next += 1;
        let begun = Instant::now();
        let fd = begin_connection(target)?;
        let events = libc::EPOLLIN | libc::EPOLLOUT | libc::EPOLLET;
        self.epoll.add(fd, events)?;
        let at = fd as usize;
        if self.open.len() <= at {
            self.open.resize(at + 1, None);
        }
        self.open[at] = Some(Connection {
            begun,
            asked: false,
            answered: false,
        });
        Ok(())
    }

    fn advance(&mut self, fd: RawFd, events: u32) {
        let Some(Some(connection)) = self.open.get(fd as usize).copied() else {
            return;
        };
        let is = |event: i32| events & event as u32 != 0;
        if is(libc::EPOLLERR) {
            return self.fail(fd);
        }
        if !connection.asked && is(libc::EPOLLOUT) {
            self.ask(fd, connection);
        }
        if is(libc::EPOLLIN) {
            self.receive(fd);
        }
    }

    fn ask(&mut self, fd: RawFd, connection: Connection) {
        let kind = if self.mode == Mode::Connect {
            b'C'
        } else {
            b'K'
        };
        let begun = match self.mode {
            Mode::Connect => connection.begun,
            _ => Instant::now(),
        };
        if write(fd, &[kind; REQUEST]).is_err() {
            return self.fail(fd);
        }
        self.open[fd as usize] = Some(Connection {
            begun,
            asked: true,
            answered: false,
        });
    }

    fn receive(&mut self, fd: RawFd) {
        let mut buffer = [0; 2 * REQUEST];
        loop {
            match read(fd, &mut buffer) {
                Ok(0) => return self.again(fd),
                Ok(_) => {
                    let Some(connection) = self.open[fd as usize] else {
                        return;
                    };
                    let took = connection.begun.elapsed();
                    self.latencies.push(took.as_nanos() as f64 / 1000.0);
                    if self.mode == Mode::Request {
                        return self.ask(fd, connection);
                    }
                    self.open[fd as usize] = Some(Connection {
                        answered: true,
                        ..connection
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.fail(fd),
            }
        }
    }

    /// A server that keeps no TIME-WAIT may answer the last acknowledgement with RST: the request was served.
    fn fail(&mut self, fd: RawFd) {
        let connection = self.open[fd as usize];
        self.errors += u64::from(!connection.is_some_and(|one| one.answered));
        self.again(fd);
    }

    /// A new connection in place of one that has ended.
    fn again(&mut self, fd: RawFd) {
        self.open[fd as usize] = None;
        close(fd);
        if self.connect().is_err() {
            self.errors += 1;
        }
    }
}

fn begin_connection(target: SocketAddr) -> io::Result<RawFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: takes integers; the descriptor that it returns is ours.
    let fd = check(unsafe { libc::socket(libc::AF_INET, kind, 0) })?;
    // SAFETY: as above.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    no_delay(fd);
    let SocketAddr::V4(target) = target else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: target.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from_ne_bytes(target.ip().octets()),
        },
        sin_zero: [0; 8],
    };
    let len = size_of_val(&address) as u32;
    // SAFETY: a live address of this length.
    match check(unsafe { libc::connect(fd, (&raw const address).cast(), len) }) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into_raw_fd()),
    }
}
