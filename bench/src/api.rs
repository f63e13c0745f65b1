//! As much of an API server as the agent asks: lists and watches of Services, EndpointSlices and Nodes, from
//! memory and without TLS, so that the agent is what is measured.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// The server; its threads end with the process.
pub struct Api {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    services: Vec<String>,
    slices: Vec<String>,
    node: Value,
    /// Watches of slices.
    watches: Mutex<Vec<TcpStream>>,
}

impl Api {
    /// Serves these objects on a free port of loopback.
    pub fn serve(services: &[Value], slices: &[Value], node: Value) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot bind")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            services: services.iter().map(Value::to_string).collect(),
            slices: slices.iter().map(Value::to_string).collect(),
            node,
            watches: Mutex::default(),
        });
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = of_thread.clone();
                std::thread::spawn(move || shared.converse(stream));
            }
        });
        Ok(Self { address, shared })
    }

    /// Whether anybody watches slices.
    pub fn watched(&self) -> bool {
        !self.watches().is_empty()
    }

    /// Watchers so far are gone; the next ones count.
    pub fn forget_watchers(&self) {
        self.watches().clear();
    }

    /// Tells every watcher of a slice that is now like this.
    pub fn change_slice(&self, slice: &Value) -> Result<()> {
        let line = json!({"type": "MODIFIED", "object": slice}).to_string() + "\n";
        let chunk = format!("{:x}\r\n{line}\r\n", line.len());
        let mut watches = self.watches();
        watches.retain_mut(|stream| stream.write_all(chunk.as_bytes()).is_ok());
        anyhow::ensure!(!watches.is_empty(), "nobody watches any more");
        Ok(())
    }

    fn watches(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        let watches = &self.shared.watches;
        watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A page of a list, as `limit` and `continue` ask for it.
fn list(kind: &str, items: &[String], query: &str) -> String {
    let number = |name: &str| {
        let mut parts = query.split('&');
        parts.find_map(|part| part.strip_prefix(name)?.parse::<usize>().ok())
    };
    let from = number("continue=").unwrap_or(0).min(items.len());
    let most = number("limit=").unwrap_or(usize::MAX);
    let to = from.saturating_add(most).min(items.len());
    let version = if kind == "EndpointSliceList" {
        "discovery.k8s.io/v1"
    } else {
        "v1"
    };
    let mut meta = json!({"resourceVersion": "1"});
    if to < items.len() {
        meta["continue"] = json!(to.to_string());
    }
    let items = items[from..to].join(",");
    format!(r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{meta},"items":[{items}]}}"#)
}

impl Shared {
    /// Errors end the conversation: the client is gone.
    fn converse(&self, stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        loop {
            let mut request = String::new();
            if reader.read_line(&mut request).ok()? == 0 {
                return None;
            }
            let mut header = String::new();
            while reader.read_line(&mut header).ok()? > 2 {
                header.clear();
            }
            let path = request.split(' ').nth(1)?;
            self.answer(path, &stream)?;
        }
    }

    fn answer(&self, path: &str, mut stream: &TcpStream) -> Option<()> {
        let (plain, query) = path.split_once('?').unwrap_or((path, ""));
        let slices = plain.ends_with("/endpointslices");
        if query.contains("watch=true") || query.contains("watch=1") {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).ok()?;
            if slices {
                let mut watches = self.watches.lock().unwrap_or_else(PoisonError::into_inner);
                watches.push(stream.try_clone().ok()?);
            }
            return Some(());
        }
        let one = self.node.to_string();
        let body = match plain {
            _ if slices => list("EndpointSliceList", &self.slices, query),
            "/api/v1/services" => list("ServiceList", &self.services, query),
            "/api/v1/nodes" => list("NodeList", std::slice::from_ref(&one), query),
            _ => one,
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_come_in_pages() {
        let items: Vec<_> = ["1", "2", "3"].map(str::to_owned).into();
        let page = |query| -> Value {
            serde_json::from_str(&list("ServiceList", &items, query)).expect("JSON")
        };
        assert_eq!(page("")["items"], json!([1, 2, 3]));
        let first = page("limit=2&x=y");
        assert_eq!(first["items"], json!([1, 2]));
        assert_eq!(first["metadata"]["continue"], "2");
        let last = page("limit=2&continue=2");
        assert_eq!(last["items"], json!([3]));
        assert_eq!(last["metadata"]["continue"], Value::Null);
    }
}
