//! A disk that is really full.

use std::fs;
use std::io::Write;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sluice_ipam::protocol::{Attachment, Pod, Reason, Reply, Request};

use super::support::{Namespace, Node};

/// A small file system over the daemon's directory of allocations.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn over(directory: std::path::PathBuf) -> Self {
        fs::create_dir_all(&directory).unwrap();
        let options = Some("size=64k,mode=0700");
        mount(
            Some("tmpfs"),
            &directory,
            Some("tmpfs"),
            MsFlags::empty(),
            options,
        )
        .unwrap();
        Self(directory)
    }

    fn fill(&self) {
        let mut ballast = fs::File::create(self.0.join("ballast")).unwrap();
        while ballast.write_all(&[0; 512]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn assign(node: &Node, number: usize) -> bool {
    let owner = Attachment {
        container_id: format!("pod{number}"),
        interface: "eth0".into(),
    };
    let request = Request::Assign {
        owner,
        network: "sluice".into(),
        pod: Pod::default(),
        fixed: Vec::new(),
    };
    match node.ask(&request) {
        Reply::Assigned { .. } => true,
        Reply::Failed {
            reason: Reason::Disk,
            ..
        } => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_disk_is_an_error_that_changes_nothing_and_passes() {
    let node = Node::alone();
    node.kill();
    let disk = SmallDisk::over(node.directory.path().join("data"));
    node.start();
    node.wait_ready();
    let space = Namespace::new();
    let pod = node.add("first", &space);
    disk.fill();
    // What is left of the last page takes a few records.
    let fitted = (0..1000).take_while(|n| assign(&node, *n)).count();
    assert!(fitted < 1000, "the disk is not full");
    let other = Namespace::new();
    let refused = node.cni("ADD", "other", other.path(), &node.config("1.0.0"));
    assert_eq!(refused.code(), 11, "{refused:?}");
    assert!(
        refused
            .message()
            .contains("cannot write the allocation log: No space left"),
        "{refused:?}"
    );
    assert_eq!(node.held().len(), 1 + fitted);
    assert_eq!(node.pod_links().len(), 1);
    let refused = node.del("first", &space);
    assert_eq!(refused.code(), 11, "{refused:?}");
    assert!(
        node.held()
            .iter()
            .any(|held| held.addresses == pod.addresses)
    );
    fs::remove_file(disk.0.join("ballast")).unwrap();
    assert!(node.del("first", &space).success);
    assert_eq!(node.held().len(), fitted);
    node.kill();
    node.start();
    node.wait_ready();
    assert_eq!(node.held().len(), fitted);
    assert!(matches!(node.ask(&Request::Status), Reply::Ready));
}
