//! The load generator: `--concurrency` threads that each ask, wait for the answer, and ask again.
//! A request counts as failed when anything at all went wrong with it; nothing is retried.

use std::io::{self, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::Arguments;
use crate::http::Message;
use crate::report::Report;

/// What one run asks for.
struct Plan {
    target: Target,
    keep: bool,
    timeout: Duration,
    concurrency: u64,
    /// How long a thread rests between two requests.
    pause: Duration,
    /// Requests that are still to be sent, over all threads.
    left: AtomicU64,
    stopped: AtomicBool,
}

struct Target {
    address: SocketAddr,
    path: String,
    datagrams: bool,
}

/// Runs until the requests are used up or the time is over. Exit code 1 when a request failed.
pub fn run(arguments: Arguments) -> Result<ExitCode, String> {
    let continuous = arguments.has("continuous");
    let default_concurrency = if continuous { 4 } else { 16 };
    let requests = if continuous {
        u64::MAX
    } else {
        arguments.get("requests", 10_000)?
    };
    let plan = Plan {
        target: Target::parse(arguments.bare("URL")?)?,
        keep: arguments.has("keep"),
        timeout: Duration::from_millis(arguments.get("timeout-ms", 2000)?).max(MIN_TIMEOUT),
        concurrency: arguments.get("concurrency", default_concurrency)?,
        pause: Duration::from_millis(arguments.get("pause-ms", 0)?),
        left: AtomicU64::new(requests),
        stopped: AtomicBool::new(false),
    };
    let report = if continuous {
        let duration = Duration::from_millis(arguments.get("duration-ms", 10_000)?);
        let interval = Duration::from_millis(arguments.get("interval-ms", 100)?);
        plan.run_for(duration, interval.max(MIN_TIMEOUT))
    } else {
        plan.run_all(arguments.has("json"))
    };
    Ok(ExitCode::from(u8::from(report.failed() > 0)))
}

/// Asks once and prints the answer's body. Exit code 1 when there is none.
pub fn get(arguments: Arguments) -> Result<ExitCode, String> {
    let plan = Plan {
        target: Target::parse(arguments.bare("URL")?)?,
        keep: false,
        timeout: Duration::from_millis(arguments.get("timeout-ms", 2000)?).max(MIN_TIMEOUT),
        concurrency: 1,
        pause: Duration::ZERO,
        left: AtomicU64::new(1),
        stopped: AtomicBool::new(false),
    };
    let client = Client {
        plan: &plan,
        kept: None,
    };
    let mut stream = client.connect()?;
    let answer = client
        .ask(&mut stream)
        .map_err(|error| describe("request", &error))?;
    print!("{}", String::from_utf8_lossy(&answer.body));
    Ok(ExitCode::from(u8::from(answer.second_word() != "200")))
}

const MIN_TIMEOUT: Duration = Duration::from_millis(1);

impl Plan {
    fn run_all(&self, json: bool) -> Report {
        let started = Instant::now();
        let total = Mutex::new(Report::default());
        thread::scope(|scope| {
            for _ in 0..self.concurrency {
                scope.spawn(|| self.work(&total));
            }
        });
        let mut report = total.into_inner().unwrap_or_else(PoisonError::into_inner);
        report.seconds = started.elapsed().as_secs_f64();
        println!("{}", if json { report.json() } else { report.text() });
        report
    }

    /// Prints what happened in every interval; the last line sums up the whole time.
    fn run_for(&self, duration: Duration, interval: Duration) -> Report {
        let started = Instant::now();
        let current = Mutex::new(Report::default());
        let mut total = Report::default();
        thread::scope(|scope| {
            for _ in 0..self.concurrency {
                scope.spawn(|| self.work(&current));
            }
            while started.elapsed() < duration {
                thread::sleep(interval);
                print_interval(&current, &mut total, started, interval);
            }
            self.stopped.store(true, Ordering::Relaxed);
        });
        print_interval(&current, &mut total, started, interval);
        total.seconds = started.elapsed().as_secs_f64();
        println!("{}", total.json());
        total
    }

    /// One thread: its results are handed over in batches, so that threads rarely meet at the lock.
    fn work(&self, total: &Mutex<Report>) {
        let mut client = Client {
            plan: self,
            kept: None,
        };
        let mut batch = Report::default();
        let mut handed_over = Instant::now();
        while self.take_one() {
            let started = Instant::now();
            match client.request() {
                Ok(pod) => batch.succeeded(pod, started.elapsed()),
                Err(reason) => batch.failure(reason),
            }
            if !self.pause.is_zero() {
                thread::sleep(self.pause);
            }
            if handed_over.elapsed() > Duration::from_millis(20) {
                lock(total).merge(&std::mem::take(&mut batch));
                handed_over = Instant::now();
            }
        }
        lock(total).merge(&batch);
    }

    fn take_one(&self) -> bool {
        let take = |left: u64| left.checked_sub(1);
        !self.stopped.load(Ordering::Relaxed)
            && self
                .left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
    }
}

fn print_interval(
    current: &Mutex<Report>,
    total: &mut Report,
    started: Instant,
    interval: Duration,
) {
    let mut report = std::mem::take(&mut *lock(current));
    report.seconds = interval.as_secs_f64();
    println!("{}", report.interval_json(started.elapsed()));
    // The reader is gone: there is nobody left to measure for.
    if io::stdout().flush().is_err() {
        std::process::exit(1);
    }
    total.merge(&report);
}

fn lock(report: &Mutex<Report>) -> std::sync::MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One thread's connection, if connections are kept.
struct Client<'a> {
    plan: &'a Plan,
    kept: Option<BufReader<TcpStream>>,
}

impl Client<'_> {
    /// The name of the pod that answered, or why none did.
    fn request(&mut self) -> Result<String, String> {
        if self.plan.target.datagrams {
            return self.datagram();
        }
        let mut stream = match self.kept.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let answer = self
            .ask(&mut stream)
            .map_err(|error| describe("request", &error))?;
        if answer.second_word() != "200" {
            return Err(format!("status {}", answer.second_word()));
        }
        let pod = answer.header("x-pod").unwrap_or("unknown").to_string();
        if self.plan.keep && !answer.closes() {
            self.kept = Some(stream);
        }
        Ok(pod)
    }

    fn connect(&self) -> Result<BufReader<TcpStream>, String> {
        let stream = TcpStream::connect_timeout(&self.plan.target.address, self.plan.timeout)
            .map_err(|error| describe("connect", &error))?;
        let failed = |error: io::Error| describe("connect", &error);
        stream.set_nodelay(true).map_err(failed)?;
        stream
            .set_read_timeout(Some(self.plan.timeout))
            .map_err(failed)?;
        Ok(BufReader::new(stream))
    }

    fn ask(&self, stream: &mut BufReader<TcpStream>) -> io::Result<Message> {
        let connection = if self.plan.keep {
            "keep-alive"
        } else {
            "close"
        };
        let Target { address, path, .. } = &self.plan.target;
        let head =
            format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: {connection}\r\n\r\n");
        stream.get_mut().write_all(head.as_bytes())?;
        Message::read(stream)?.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// A new socket each time: its port decides which backend it is sent to.
    fn datagram(&self) -> Result<String, String> {
        let exchange = || -> io::Result<String> {
            let address = self.plan.target.address;
            let any = if address.is_ipv4() {
                "0.0.0.0:0"
            } else {
                "[::]:0"
            };
            let socket = UdpSocket::bind(any)?;
            socket.set_read_timeout(Some(self.plan.timeout))?;
            socket.connect(address)?;
            socket.send(b"hello")?;
            let mut buffer = [0; 2048];
            let length = socket.recv(&mut buffer)?;
            let text = String::from_utf8_lossy(&buffer[..length]);
            Ok(text.split(' ').next().unwrap_or("unknown").to_string())
        };
        exchange().map_err(|error| describe("datagram", &error))
    }
}

fn describe(step: &str, error: &io::Error) -> String {
    let reason = match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "timed out".to_string(),
        io::ErrorKind::ConnectionRefused => "refused".to_string(),
        io::ErrorKind::ConnectionReset => "reset".to_string(),
        io::ErrorKind::UnexpectedEof => "closed early".to_string(),
        _ => error.to_string(),
    };
    format!("{step} {reason}")
}

impl Target {
    fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
        if !matches!(scheme, "http" | "udp") {
            return Err(format!("{url}: the scheme must be http or udp"));
        }
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        let address = authority
            .parse()
            .or_else(|_| format!("{authority}:80").parse())
            .map_err(|_| {
                format!("{url}: {authority:?} is not ADDRESS[:PORT] (names are not looked up)")
            })?;
        Ok(Self {
            address,
            path: path.to_string(),
            datagrams: scheme == "udp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_both_families_and_protocols() {
        let target = Target::parse("http://10.96.0.1").unwrap();
        assert_eq!(target.address, "10.96.0.1:80".parse().unwrap());
        assert_eq!(target.path, "/");
        let target = Target::parse("http://[fd00::1]:8080/back").unwrap();
        assert_eq!(target.address, "[fd00::1]:8080".parse().unwrap());
        assert_eq!(target.path, "/back");
        assert!(Target::parse("udp://10.96.0.1:7").unwrap().datagrams);
        assert!(Target::parse("http://name:80").is_err());
        assert!(Target::parse("https://10.96.0.1").is_err());
    }
}
