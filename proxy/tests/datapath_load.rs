//! Every program passes the verifier, and maps and links live in pins.

mod support;

use sluice_proxy::loader::{self, XdpMode};
use sluice_proxy::maps::kernel::KernelMaps;
use sluice_proxy::maps::{Frontend, FrontendKey, Protocol, Tables};
use support::machine::Machine;
use support::{Pins, capacity, chain, options, start};

#[test]
fn the_kernel_accepts_every_program() {
    let pins = Pins::new("verify");
    loader::verify(&pins.0, capacity()).unwrap_or_else(|error| panic!("{}", chain(&error)));
}

#[test]
fn the_kernel_accepts_every_program_of_the_committed_object() {
    let pins = Pins::new("prebuilt");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/prebuilt/sluice.bpf.o");
    let object = std::fs::read(path).expect("the committed object");
    loader::verify_object(&object, &pins.0, capacity())
        .unwrap_or_else(|error| panic!("{}", chain(&error)));
}

#[test]
fn maps_and_links_are_found_again_and_programs_replaced_on_the_same_links() {
    let (pins, machine) = (Pins::new("again"), Machine::with_cgroup("again"));
    let mut options = options(&pins);
    options.cgroup = Some(machine.cgroup().to_owned());
    let mut first = start(&options);
    let key = FrontendKey::new("10.96.0.1".parse().unwrap(), 443, Protocol::Tcp);
    let value = Frontend {
        service_id: 7,
        ..Frontend::default()
    };
    first.maps.put_frontend(&key, &value).expect("frontend");
    first
        .maps
        .put_name(7, "default/kubernetes:https")
        .expect("name");
    let links = loader::status(&pins.0).expect("status");
    assert_eq!(links.len(), 8);
    drop(first);

    options.capacity.frontends *= 2;
    let second = start(&options);
    assert_eq!(second.maps.frontends().expect("frontends"), [(key, value)]);
    assert_eq!(
        second.maps.names().expect("names"),
        [(7, "default/kubernetes:https".to_owned())]
    );
    assert_eq!(second.maps.capacity().frontends, capacity().frontends);
    let again = loader::status(&pins.0).expect("status");
    for (before, after) in links.iter().zip(&again) {
        assert_eq!((&before.pin, before.target), (&after.pin, after.target));
        assert_ne!(
            before.program, after.program,
            "{} runs the old program",
            after.hook
        );
    }

    options.cgroup = None;
    start(&options);
    assert_eq!(loader::status(&pins.0).expect("status"), []);
    assert_eq!(
        KernelMaps::open(&pins.0)
            .expect("maps")
            .frontends()
            .expect("frontends")
            .len(),
        1
    );
    loader::cleanup(&pins.0).expect("cleanup");
    assert!(!pins.0.exists());
}

#[test]
fn a_device_that_was_replaced_gets_new_links() {
    let (pins, machine) = (Pins::new("device"), Machine::new("device"));
    let options = loader::Options {
        devices: vec!["up0".to_owned()],
        ..options(&pins)
    };
    let attach = || machine.run(|| start(&options).attachments);
    machine.ip("link add up0 type veth peer name up1");
    let before = attach();
    assert_eq!(before.len(), 3);
    machine.ip("link del up0");
    machine.ip("link add up0 type veth peer name up1");
    let after = attach();
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(b, a)| b.hook == a.hook && b.target != a.target)
    );
    let off = loader::Options {
        xdp_mode: XdpMode::Off,
        ..options.clone()
    };
    let hooks: Vec<_> = machine.run(|| {
        start(&off)
            .attachments
            .into_iter()
            .map(|a| a.hook)
            .collect()
    });
    assert_eq!(hooks, ["egress", "ingress"]);
    assert_eq!(loader::status(&pins.0).expect("status").len(), 2);
}

#[test]
fn errors_name_what_is_missing() {
    let pins = Pins::new("errors");
    let missing = loader::Options {
        devices: vec!["nope0".to_owned()],
        ..options(&pins)
    };
    let error = loader::start(&missing).expect_err("no such device");
    assert_eq!(
        error.to_string(),
        "no interface nope0 in this network namespace"
    );
    let elsewhere = loader::Options {
        bpf_root: "/tmp/not-bpffs".into(),
        ..options(&pins)
    };
    let error = loader::start(&elsewhere)
        .expect_err("not a BPF filesystem")
        .to_string();
    assert!(error.contains("not on a BPF filesystem"), "{error}");
}

#[test]
fn a_pinned_map_of_another_shape_is_refused_and_kept() {
    let pins = Pins::new("shape");
    drop(start(&options(&pins)));
    let dir = pins.0.join(format!("v{}", sluice_common::ABI_VERSION));
    std::fs::remove_file(dir.join("slots")).expect("unpins");
    std::fs::rename(dir.join("backends"), dir.join("slots")).expect("renames");
    let error = loader::start(&options(&pins))
        .expect_err("refused")
        .to_string();
    assert!(
        error.starts_with("pinned map slots has type 2, keys of 4 and values of 32 bytes"),
        "{error}"
    );
    assert!(dir.join("slots").exists());
}
