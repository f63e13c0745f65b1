//! What goes through to a kubelet: logs, and the tunnels of exec, attach and port-forward.
//!
//! A tunnel's bytes are not looked at: the client and the container runtime agree on a protocol (SPDY or WebSocket)
//! by themselves, and a refusal reaches the client as it is, so that kubectl can fall back.

mod kubelet;
mod locate;
mod log;
mod tunnel;

use axum::body::Body;
use http::Request;
use sluice_api::ApiError;

pub(crate) use kubelet::Kubelets;

use crate::respond::Answer;
use crate::rest::Call;
use crate::target::Target;

/// Whether a request goes to a kubelet.
pub(crate) fn is_stream(target: &Target) -> bool {
    target.kind.storage == ("", "pods")
        && matches!(
            target.subresource.as_str(),
            "log" | "exec" | "attach" | "portforward"
        )
}

pub(crate) async fn serve(call: Call, request: Request<Body>) -> Result<Answer, ApiError> {
    match call.target.subresource.as_str() {
        "log" => log::serve(&call).await,
        _ => tunnel::serve(&call, request).await,
    }
}
