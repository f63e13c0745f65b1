//! Every program passes the verifier, and maps and links live in pins.

mod support;

use sluice_proxy::loader;
use support::{Pins, options};

#[test]
fn the_kernel_accepts_every_program() {
    let pins = Pins::new("load");
    let dataplane =
        loader::start(&options(&pins)).unwrap_or_else(|e| panic!("{}", support::chain(&e)));
    assert!(dataplane.attachments.is_empty());
}
