//! The uplink's entrance, at the driver.

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::{
    bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_meta, bpf_xdp_adjust_tail,
};
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;
use sluice_common::Plain;
use sluice_datapath::address::{Family, family};
use sluice_datapath::packet::{self, ChecksumChange, Packet};
use sluice_datapath::reject::Resize;
use sluice_datapath::uplink::{self, Verdict};

use crate::maps::{Hook, WORK_V4, WORK_V6, work};
use crate::tables::Kernel;

/// What XDP leaves before a packet that a later hook must send, because only there the kernel can find
/// the neighbour.
pub const UNRESOLVED_MARK: u32 = 0x534c_5543;

/// A frame in the driver's buffer.
struct XdpPacket {
    context: *mut xdp_md,
}

impl XdpPacket {
    /// Address of `offset`, if `len` bytes from there are the packet's.
    #[inline(always)]
    fn at(&self, offset: usize, len: usize) -> Option<usize> {
        // SAFETY: the kernel gave this context, and these two fields bound the packet.
        //
        // Volatile, so that every access has a check of its own that the verifier can follow: else
        // LLVM leaves out those that it can prove from an earlier one at a higher offset.
        let (data, end) = unsafe {
            (
                (&raw const (*self.context).data).read_volatile() as usize,
                (*self.context).data_end as usize,
            )
        };
        let start = data + offset;
        (start + len <= end).then_some(start)
    }
}

impl Packet for XdpPacket {
    #[inline(always)]
    fn load<T: Plain>(&self, offset: usize) -> Option<T> {
        let start = self.at(offset, size_of::<T>())?;
        // SAFETY: in bounds, by `at`; any bytes make a `T`.
        Some(unsafe { packet::read(start as *const u8) })
    }

    #[inline(always)]
    fn store<T: Plain>(&mut self, offset: usize, value: T) -> Option<()> {
        let start = self.at(offset, size_of::<T>())?;
        // SAFETY: in bounds, by `at`; XDP owns the buffer.
        unsafe { packet::write(start as *mut u8, &value) };
        Some(())
    }

    #[inline(always)]
    fn fix_checksum(&mut self, offset: usize, change: ChecksumChange) -> Option<()> {
        let old: u16 = self.load(offset)?;
        self.store(offset, change.apply(old))
    }

    #[inline(always)]
    fn wire_len(&self) -> u32 {
        // SAFETY: as in `at`.
        unsafe { (*self.context).data_end - (*self.context).data }
    }
}

impl Resize for XdpPacket {
    const ANSWERS: bool = true;

    #[inline(always)]
    fn grow_head(&mut self, bytes: usize) -> Option<()> {
        // SAFETY: the kernel checks the room.
        (unsafe { bpf_xdp_adjust_head(self.context, -(bytes as i32)) } == 0).then_some(())
    }

    #[inline(always)]
    fn truncate(&mut self, len: usize) -> Option<()> {
        let change = len as i32 - self.wire_len() as i32;
        // SAFETY: the kernel checks the room.
        (unsafe { bpf_xdp_adjust_tail(self.context, change) } == 0).then_some(())
    }
}

/// Services for clients from outside.
#[xdp]
pub fn uplink_xdp(context: XdpContext) -> u32 {
    run(context.ctx).unwrap_or(xdp_action::XDP_PASS)
}

#[inline(always)]
fn run(context: *mut xdp_md) -> Option<u32> {
    let mut packet = XdpPacket { context };
    let family = family(&packet)?;
    // SAFETY: the kernel gave this context.
    let ifindex = unsafe { (*context).ingress_ifindex };
    let kernel = Kernel::new(context.cast(), ifindex, false)?;
    let verdict = match family {
        Family::V4 => uplink::ingress(&mut packet, &kernel, work!(WORK_V4, Hook::Xdp)),
        Family::V6 => uplink::ingress(&mut packet, &kernel, work!(WORK_V6, Hook::Xdp)),
    };
    Some(carry_out(context, ifindex, verdict))
}

#[inline(always)]
fn carry_out(context: *mut xdp_md, ifindex: u32, verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass => xdp_action::XDP_PASS,
        Verdict::Drop | Verdict::Resolve(_) => xdp_action::XDP_DROP,
        Verdict::Send(to) if to == ifindex => xdp_action::XDP_TX,
        // SAFETY: the helper takes integers; it fails cleanly for an interface that is gone.
        Verdict::Send(to) => unsafe { bpf_redirect(to, 0) as u32 },
        Verdict::Reply => xdp_action::XDP_TX,
        Verdict::Unresolved => leave_mark(context),
    }
}

/// Without room for the mark the packet is dropped; its sender tries again.
#[inline(always)]
fn leave_mark(context: *mut xdp_md) -> u32 {
    const LEN: usize = size_of::<u32>();
    // SAFETY: the kernel checks the room.
    if unsafe { bpf_xdp_adjust_meta(context, -(LEN as i32)) } != 0 {
        return xdp_action::XDP_DROP;
    }
    // SAFETY: the kernel gave this context; the bounds are checked before the write.
    unsafe {
        let (meta, data) = ((*context).data_meta as usize, (*context).data as usize);
        if meta + LEN > data {
            return xdp_action::XDP_DROP;
        }
        (meta as *mut u32).write(UNRESOLVED_MARK);
    }
    xdp_action::XDP_PASS
}
