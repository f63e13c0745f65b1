//! Every step of an ADD fails once: nothing is left, and the error says which step it was.

use std::sync::Mutex;

use sluice_ipam::links::pod::{Step, open_gate};
use sluice_ipam::plugin::{self, CniError, Environment};

use super::support::{Namespace, Node, links_here, remove_link};

fn add(
    node: &Node,
    space: &Namespace,
    gate: impl Fn(&Step) -> std::io::Result<()> + Sync,
) -> Result<(), CniError> {
    let environment = Environment::read(|name| match name {
        "CNI_COMMAND" => Some("ADD".into()),
        "CNI_CONTAINERID" => Some("pod".into()),
        "CNI_NETNS" => Some(space.path().to_str().unwrap().into()),
        "CNI_IFNAME" => Some("eth0".into()),
        _ => None,
    })?;
    let config = node.config("1.0.0").to_string();
    node.namespace
        .run(|| plugin::run(&environment, config.as_bytes(), &gate).map(drop))
}

fn steps(node: &Node) -> Vec<Step> {
    let space = Namespace::new();
    let seen = Mutex::new(Vec::new());
    add(node, &space, |step| {
        seen.lock().unwrap().push(step.clone());
        open_gate(step)
    })
    .unwrap();
    assert!(node.del("pod", &space).success);
    seen.into_inner().unwrap()
}

#[test]
fn each_failing_step_is_unwound_and_named() {
    let node = Node::alone();
    let steps = steps(&node);
    assert!(steps.len() >= 20, "{steps:?}");
    for at in 0..steps.len() {
        let space = Namespace::new();
        // By number: each pod has addresses of its own.
        let seen = Mutex::new(Vec::new());
        let error = add(&node, &space, |step| {
            let mut seen = seen.lock().unwrap();
            seen.push(step.clone());
            match seen.len() > at {
                true => Err(std::io::Error::from_raw_os_error(libc::ENOBUFS)),
                false => Ok(()),
            }
        })
        .unwrap_err();
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen.len(), at + 1, "the ADD went on after a failure");
        let failing = &seen[at];
        assert_eq!(error.code.number(), 100, "{error:?}");
        let expected = format!("cannot {failing}: No buffer space available (os error 105)");
        assert_eq!(error.message, expected);
        assert!(node.held().is_empty(), "{failing}: {:?}", node.held());
        assert!(
            node.pod_links().is_empty(),
            "{failing}: {:?}",
            node.pod_links()
        );
        assert_eq!(space.links(), ["lo"], "{failing}");
        // Nothing stands in the way of another try in the same pod.
        add(&node, &space, open_gate).unwrap();
        assert!(node.del("pod", &space).success);
    }
}

#[test]
fn a_refusal_by_the_kernel_itself_is_unwound_too() {
    let node = Node::alone();
    let space = Namespace::new();
    // Somebody takes the link away half way.
    let error = add(&node, &space, |step| {
        if *step == Step::HostUp {
            let links = links_here();
            remove_link(links.iter().find(|name| name.starts_with("slu")).unwrap());
        }
        Ok(())
    })
    .unwrap_err();
    assert!(
        error
            .message
            .starts_with("cannot bring the host's end up: No such device"),
        "{error:?}"
    );
    assert!(node.held().is_empty());
    assert_eq!(space.links(), ["lo"]);
}
