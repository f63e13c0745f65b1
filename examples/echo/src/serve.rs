//! The server: one thread per connection, TCP and UDP on the same port, both families on one socket.
//! Every answer names the pod that gave it, which is all that a test of load balancing needs.

use std::io::{self, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::arguments::Arguments;
use crate::http::Message;
use crate::signals;

const STACK: usize = 64 * 1024;
const IDLE: Duration = Duration::from_secs(60);

struct Server {
    pod: String,
    node: String,
    greeting: String,
    draining: AtomicBool,
}

/// Serves until SIGTERM, and then for as long as `--drain-ms` says, so that connections which were on
/// their way while the pod left its Services still find somebody.
pub fn run(arguments: Arguments) -> Result<ExitCode, String> {
    let port: u16 = arguments.get("port", 8080)?;
    let drain = Duration::from_millis(arguments.get("drain-ms", 1000)?);
    let termination = signals::block();
    let server = Arc::new(Server::from_environment());
    let failed = |error: io::Error| format!("cannot listen on port {port}: {error}");
    let listener = TcpListener::bind(("::", port)).map_err(failed)?;
    let datagrams = UdpSocket::bind(("::", port)).map_err(failed)?;
    let (tcp, udp) = (server.clone(), server.clone());
    thread::spawn(move || accept(&listener, &tcp));
    thread::spawn(move || answer_datagrams(&datagrams, &udp));
    println!("{} serves on port {port}", server.pod);
    termination.wait();
    server.draining.store(true, Ordering::Relaxed);
    thread::sleep(drain);
    Ok(ExitCode::SUCCESS)
}

impl Server {
    fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let pod = variable("POD_NAME").or_else(|| variable("HOSTNAME"));
        Self {
            pod: pod.unwrap_or_else(|| "unknown".into()),
            node: variable("NODE_NAME").unwrap_or_default(),
            greeting: variable("GREETING").unwrap_or_default(),
            draining: AtomicBool::new(false),
        }
    }
}

fn accept(listener: &TcpListener, server: &Arc<Server>) {
    for stream in listener.incoming() {
        let Ok(stream) = stream else {
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let server = server.clone();
        // A connection that gets no thread is closed; its client sees that and counts it.
        let _ = thread::Builder::new()
            .stack_size(STACK)
            .spawn(move || converse(stream, &server));
    }
}

/// Errors end the conversation: the client is gone or does not speak HTTP.
fn converse(stream: TcpStream, server: &Server) -> Option<()> {
    let client = canonical(stream.peer_addr().ok()?);
    stream.set_read_timeout(Some(IDLE)).ok()?;
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(&stream);
    while let Some(request) = Message::read(&mut reader).ok()? {
        let (status, body) = server.answer(&request, client);
        let closes = request.closes() || server.draining.load(Ordering::Relaxed);
        (&stream)
            .write_all(&server.response(status, &body, closes))
            .ok()?;
        if closes {
            break;
        }
    }
    Some(())
}

impl Server {
    fn answer(&self, request: &Message, client: SocketAddr) -> (&'static str, String) {
        match request.second_word() {
            "/healthz" => ("200 OK", "ok\n".into()),
            "/readyz" if self.draining.load(Ordering::Relaxed) => {
                ("503 Service Unavailable", "draining\n".into())
            }
            "/readyz" => ("200 OK", "ok\n".into()),
            "/config" => read_file("/etc/echo/motd"),
            "/back" => match call_back() {
                Ok(answer) => ("200 OK", format!("{} called {answer}", self.pod)),
                Err(error) => ("502 Bad Gateway", format!("{error}\n")),
            },
            "/client" => ("200 OK", format!("{}\n", client.ip())),
            "/" => ("200 OK", self.greet(client)),
            _ => ("404 Not Found", "not found\n".into()),
        }
    }

    fn greet(&self, client: SocketAddr) -> String {
        let Self { pod, node, .. } = self;
        format!("{} pod={pod} node={node} client={client}\n", self.greeting)
    }

    fn response(&self, status: &str, body: &str, closes: bool) -> Vec<u8> {
        let connection = if closes { "close" } else { "keep-alive" };
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nX-Pod: {}\r\nX-Node: {}\r\n\
             Connection: {connection}\r\nContent-Length: {}\r\n\r\n{body}",
            self.pod,
            self.node,
            body.len(),
        )
        .into_bytes()
    }
}

fn read_file(path: &str) -> (&'static str, String) {
    match std::fs::read_to_string(path) {
        Ok(text) => ("200 OK", text),
        Err(error) => ("500 Internal Server Error", format!("{path}: {error}\n")),
    }
}

/// Calls the second tier by its Service, found as a pod finds one without DNS: in its environment.
fn call_back() -> Result<String, String> {
    let variable = |name: &str| std::env::var(name).map_err(|_| format!("{name} is not set"));
    let host: IpAddr = variable("BACK_SERVICE_HOST")?
        .parse()
        .map_err(|_| "BACK_SERVICE_HOST is not an address")?;
    let port: u16 = variable("BACK_SERVICE_PORT")?
        .parse()
        .map_err(|_| "BACK_SERVICE_PORT is not a port")?;
    ask((host, port).into()).map_err(|error| format!("back at {host} port {port}: {error}"))
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    (&stream).write_all(b"GET / HTTP/1.1\r\nHost: back\r\nConnection: close\r\n\r\n")?;
    let answer = Message::read(&mut BufReader::new(&stream))?;
    let answer = answer.ok_or(io::ErrorKind::UnexpectedEof)?;
    Ok(String::from_utf8_lossy(&answer.body).into_owned())
}

/// A datagram is answered with the pod's name, the client's address as seen here, and its own content.
fn answer_datagrams(socket: &UdpSocket, server: &Server) {
    let mut buffer = [0; 2048];
    loop {
        if let Ok((length, client)) = socket.recv_from(&mut buffer) {
            let head = format!("{} {}\n", server.pod, canonical(client).ip());
            let answer = [head.as_bytes(), &buffer[..length]].concat();
            // Lost datagrams are the client's to ask for again.
            let _ = socket.send_to(&answer, client);
        }
    }
}

/// IPv4 clients of a dual-stack socket appear as mapped IPv6 addresses.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
