//! The eBPF programs: thin shells over `sluice-datapath`.
//!
//! Each brings the packet or the socket and the maps to the datapath's functions, and carries out
//! what they decide. Nothing else is decided here.
#![no_std]
#![no_main]

mod maps;
mod skb;
mod socket;
mod tables;
mod xdp;

/// The kernel lets only programs under a GPL-compatible licence call some helpers; this is one of the
/// strings that it accepts. The text is in `LICENSE-GPL-2.0`; the sources are under Apache-2.0 or MIT
/// as well, at your choice, and what they link to is under these too.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
