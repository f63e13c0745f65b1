//! Listening sockets that the parent process opened: systemd's socket activation protocol.
//!
//! A service manager, or a launcher that wants the server's socket in another network namespace than
//! the server itself, leaves sockets at descriptors from 3 on and says so in `LISTEN_PID` and
//! `LISTEN_FDS` (sd_listen_fds(3)).

use std::net::TcpListener;

use anyhow::Context;
use listenfd::ListenFd;

/// The inherited TCP listeners; none when the variables are not set or are meant for another process.
pub fn listeners() -> anyhow::Result<Vec<TcpListener>> {
    let mut inherited = ListenFd::from_env();
    let mut listeners = Vec::with_capacity(inherited.len());
    for index in 0..inherited.len() {
        let taken = inherited
            .take_tcp_listener(index)
            .with_context(|| format!("LISTEN_FDS: descriptor {} is no TCP listener", index + 3))?;
        listeners.extend(taken);
    }
    Ok(listeners)
}
