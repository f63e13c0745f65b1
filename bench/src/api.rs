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
    services: String,
    slices: String,
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
            services: list("ServiceList", services),
            slices: list("EndpointSliceList", slices),
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

fn list(kind: &str, items: &[Value]) -> String {
    let version = if kind == "ServiceList" {
        "v1"
    } else {
        "discovery.k8s.io/v1"
    };
    json!({"kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "1"}, "items": items})
        .to_string()
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
        let nodes =
            list("NodeList", std::slice::from_ref(&self.node)).replace("discovery.k8s.io/v1", "v1");
        let one = self.node.to_string();
        let body = match plain {
            _ if slices => &self.slices,
            "/api/v1/services" => &self.services,
            "/api/v1/nodes" => &nodes,
            _ => &one,
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body.as_bytes()).ok()
    }
}
