//! The blocking client of the daemon, for the plugin and the command line.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::protocol::{self, Envelope, Reply, Request, VERSION};

/// An answer takes at most this long: a group commit on a slow disk, or a kernel that waits for others.
const ANSWER: Duration = Duration::from_secs(30);
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Why there is no answer. Retryable: every request may be repeated.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens, or the connection broke.
    #[error("cannot reach the ipam daemon at {socket}: {reason}")]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// The reason.
        reason: io::Error,
    },
    /// The daemon is of another version.
    #[error("the ipam daemon at {socket} speaks protocol version {theirs}, not {VERSION}")]
    Version {
        /// The socket.
        socket: PathBuf,
        /// Its version.
        theirs: u16,
    },
}

/// A client for one socket. Each call makes a connection of its own.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

impl Client {
    /// For as long as `patience` a daemon that does not answer is asked again: it may be restarting.
    pub fn new(socket: impl AsRef<Path>, patience: Duration) -> Self {
        Self {
            socket: socket.as_ref().to_owned(),
            patience,
        }
    }

    /// Asks and waits for the answer.
    pub fn call(&self, request: &Request) -> Result<Reply, ClientError> {
        let deadline = Instant::now() + self.patience;
        let mut pause = FIRST_PAUSE;
        loop {
            match self.try_call(request) {
                Ok(envelope) => return self.open(envelope),
                Err(reason) if Instant::now() + pause > deadline => {
                    return Err(ClientError::Unreachable {
                        socket: self.socket.clone(),
                        reason,
                    });
                }
                Err(_) => std::thread::sleep(pause),
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn try_call(&self, request: &Request) -> io::Result<Envelope<Reply>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.set_write_timeout(Some(ANSWER))?;
        protocol::send(&mut stream, request)?;
        protocol::receive(&mut stream)
    }

    fn open(&self, envelope: Envelope<Reply>) -> Result<Reply, ClientError> {
        match envelope.version {
            VERSION => Ok(envelope.body),
            theirs => Err(ClientError::Version {
                socket: self.socket.clone(),
                theirs,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn answer(listener: UnixListener, times_broken: usize) {
        for _ in 0..times_broken {
            drop(listener.accept().unwrap());
        }
        let (mut stream, _) = listener.accept().unwrap();
        let request: Envelope<Request> = protocol::receive(&mut stream).unwrap();
        assert_eq!(request.body, Request::Status);
        protocol::send(&mut stream, &Reply::Ready).unwrap();
    }

    #[test]
    fn a_daemon_that_restarts_is_asked_again() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("ipam.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = std::thread::spawn(move || answer(listener, 3));
        let client = Client::new(&socket, Duration::from_secs(20));
        assert_eq!(client.call(&Request::Status).unwrap(), Reply::Ready);
        server.join().unwrap();
    }

    #[test]
    fn without_a_daemon_the_error_names_the_socket() {
        let client = Client::new("/nonexistent/ipam.sock", Duration::ZERO);
        let error = client.call(&Request::Status).unwrap_err().to_string();
        assert!(
            error.starts_with("cannot reach the ipam daemon at /nonexistent/ipam.sock"),
            "{error}"
        );
    }
}
