//! The unix socket: one task a connection, each request answered on a thread that may block.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;

use super::service::Service;
use crate::protocol::{self, Envelope, Reason, Reply, Request, VERSION};

/// Listens for root only. The socket takes its place by rename, so that a client finds the old one, which
/// refuses it, or the new one, never none, and never one that others may use.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let draft = path.with_extension(format!("{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let listener = UnixListener::bind(&draft)?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600))?;
    fs::rename(&draft, path)?;
    Ok(listener)
}

pub(super) async fn serve(
    listener: UnixListener,
    service: Arc<Service>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => return Ok(()),
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(converse(stream, service.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(mut stream: UnixStream, service: Arc<Service>) {
    if let Err(error) = answer_all(&mut stream, &service).await {
        tracing::debug!(%error, "a connection broke");
    }
}

async fn answer_all(stream: &mut UnixStream, service: &Arc<Service>) -> io::Result<()> {
    while let Some(bytes) = read_message(stream).await? {
        let service = service.clone();
        let answer =
            tokio::task::spawn_blocking(move || protocol::encode(&answer(&service, &bytes)));
        stream.write_all(&answer.await??).await?;
    }
    Ok(())
}

async fn read_message(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut prefix = [0; 4];
    match stream.read_exact(&mut prefix).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = protocol::length(prefix)?;
    let mut bytes = Vec::new();
    stream.take(length as u64).read_to_end(&mut bytes).await?;
    match bytes.len() == length {
        true => Ok(Some(bytes)),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn answer(service: &Service, bytes: &[u8]) -> Reply {
    // The version first: another version's request may not be readable.
    let version =
        serde_json::from_slice::<Envelope<serde::de::IgnoredAny>>(bytes).map(|e| e.version);
    if version.as_ref().is_ok_and(|version| *version != VERSION) {
        let message = format!("this daemon speaks protocol version {VERSION}: install its plugin");
        return Reply::Failed {
            reason: Reason::Version,
            message,
        };
    }
    match serde_json::from_slice::<Envelope<Request>>(bytes) {
        Ok(envelope) => service.answer(envelope.body),
        Err(error) => Reply::Failed {
            reason: Reason::Invalid,
            message: format!("cannot read the request: {error}"),
        },
    }
}
