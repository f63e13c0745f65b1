//! Just enough of HTTP/1.1 (RFC 9112): one head, a body with a Content-Length, persistent connections.

use std::io::{self, BufRead, Read};

const MAX_HEAD: u64 = 16 * 1024;
const MAX_BODY: u64 = 1024 * 1024;

/// A request or a response: its first line, headers with lower-case names, and body.
pub struct Message {
    /// Request line or status line, without the line end.
    pub start: String,
    headers: Vec<(String, String)>,
    /// Exactly Content-Length bytes.
    pub body: Vec<u8>,
}

impl Message {
    /// Reads one message; `None` when the peer closed the connection before its first byte.
    pub fn read(stream: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut head = stream.by_ref().take(MAX_HEAD);
        let start = line(&mut head)?;
        if start.is_empty() {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let text = line(&mut head)?;
            let text = text.trim_end();
            if text.is_empty() {
                break;
            }
            let (name, value) = text.split_once(':').ok_or_else(|| invalid("bad header"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_string()));
        }
        let mut message = Self {
            start: start.trim_end().to_string(),
            headers,
            body: Vec::new(),
        };
        message.read_body(stream)?;
        Ok(Some(message))
    }

    fn read_body(&mut self, stream: &mut impl BufRead) -> io::Result<()> {
        let length = self.header("content-length").unwrap_or("0");
        let length: u64 = length.parse().map_err(|_| invalid("bad Content-Length"))?;
        if length > MAX_BODY {
            return Err(invalid("body too long"));
        }
        self.body.resize(length as usize, 0);
        stream.read_exact(&mut self.body)
    }

    /// The first header of that (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The second word of the first line: a request's target or a response's status code.
    pub fn second_word(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }

    /// Whether the sender ends the connection after this message.
    pub fn closes(&self) -> bool {
        self.header("connection")
            .is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

fn line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut text = String::new();
    stream.read_line(&mut text)?;
    if text.is_empty() || text.ends_with('\n') {
        return Ok(text);
    }
    Err(io::ErrorKind::UnexpectedEof.into())
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_is_read_to_its_last_byte_and_no_further() {
        let mut bytes: &[u8] = b"HTTP/1.1 200 OK\r\nX-Pod: a\r\nContent-Length: 3\r\n\r\nabcHTTP";
        let message = Message::read(&mut bytes).unwrap().unwrap();
        assert_eq!(message.second_word(), "200");
        assert_eq!(message.header("x-pod"), Some("a"));
        assert_eq!(message.body, b"abc");
        assert_eq!(bytes, b"HTTP");
    }

    #[test]
    fn a_closed_connection_is_no_message_and_a_cut_one_an_error() {
        assert!(Message::read(&mut &b""[..]).unwrap().is_none());
        for cut in [
            "GET",
            "GET / HTTP/1.1\r\nA: b",
            "G / H\r\nContent-Length: 2\r\n\r\na",
        ] {
            assert!(Message::read(&mut cut.as_bytes()).is_err(), "{cut:?}");
        }
    }
}
