//! What to try next.

use std::path::Path;
use std::time::Duration;

use super::load::CLIENT_POD;
use crate::layout::{Layout, Machine};
use crate::preflight::find_program;
use crate::progress::say;

/// Prints commands that work as they stand.
pub fn print(layout: &Layout, took: Duration, with_demo: bool, echo: &Path) {
    let name = layout.name();
    let suffix = if name == "sluice" {
        String::new()
    } else {
        format!(" --name {name}")
    };
    let mut lines = vec![
        format!("\nup in {:.1} s; next:", took.as_secs_f64()),
        format!(
            "  export KUBECONFIG={}",
            layout.admin_kubeconfig().display()
        ),
        "  kubectl get nodes,pods -o wide".into(),
    ];
    if with_demo {
        lines.push(format!("  kubectl exec {CLIENT_POD} -- /echo load http://$(kubectl get service front -o jsonpath={{.spec.clusterIP}})"));
    }
    if with_demo {
        let (namespace, node) = (layout.namespace(Machine::Client), Machine::Node(1).v4());
        lines.push(format!(
            "  ip netns exec {namespace} {} load http://{node}:30080",
            echo.display()
        ));
    }
    lines.push(format!("  sluice status{suffix}; sluice down{suffix}"));
    if find_program("kubectl").is_none() {
        lines.push("kubectl is missing: apt-get install kubernetes-client".into());
    }
    say(&lines.join("\n"));
}
