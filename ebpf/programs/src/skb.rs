//! The uplink at the traffic-control hooks: what leaves, and what XDP cannot do.

use aya_ebpf::bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::{bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh, bpf_skb_pull_data};
use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;
use sluice_common::Plain;
use sluice_datapath::address::{Family, family};
use sluice_datapath::checksum::Diff;
use sluice_datapath::packet::{self, ChecksumChange, Packet};
use sluice_datapath::reject::Resize;
use sluice_datapath::uplink::{self, Verdict};

use crate::maps::{Hook, WORK_V4, WORK_V6, work};
use crate::tables::Kernel;
use crate::xdp::UNRESOLVED_MARK;

/// Go on with the next program of the hook.
const TCX_NEXT: i32 = -1;
const TCX_DROP: i32 = 2;

/// `bpf_l4_csum_replace`: the pseudo-header is IPv6's, whose addresses no header checksum covers, so
/// that a sum over the whole packet stays as it is (since Linux 6.16; refused before).
const BPF_F_IPV6: u64 = 0x80;

/// Headers that should be in the linear part: Ethernet, IPv6 and TCP, and some extension headers.
const LINEAR: u32 = 128;

/// A frame in a socket buffer.
struct SkbPacket {
    skb: *mut __sk_buff,
}

impl SkbPacket {
    /// Brings the headers into reach of direct access, where they are not.
    #[inline(always)]
    fn new(skb: *mut __sk_buff) -> Self {
        // SAFETY: the kernel gave this context; the helper checks the length.
        unsafe {
            let (linear, len) = ((*skb).data_end - (*skb).data, (*skb).len);
            let wanted = if len < LINEAR { len } else { LINEAR };
            if linear < wanted {
                bpf_skb_pull_data(skb, wanted);
            }
        }
        Self { skb }
    }

    /// Address of `offset`, if `len` bytes from there are in the linear part.
    #[inline(always)]
    fn at(&self, offset: usize, len: usize) -> Option<usize> {
        // SAFETY: the kernel gave this context, and these two fields bound the linear part.
        //
        // Volatile, so that every access has a check of its own that the verifier can follow: else
        // LLVM leaves out those that it can prove from an earlier one at a higher offset.
        let (data, end) = unsafe {
            (
                (&raw const (*self.skb).data).read_volatile() as usize,
                (*self.skb).data_end as usize,
            )
        };
        let start = data + offset;
        (start + len <= end).then_some(start)
    }

    #[inline(always)]
    fn replace(&self, offset: usize, diff: Diff, flags: u64) -> Option<()> {
        let sum = u64::from(diff.to_partial());
        // SAFETY: the helper checks the offset. A size of 0 says that `sum` is a difference.
        (unsafe { bpf_l4_csum_replace(self.skb, offset as u32, 0, sum, flags) } == 0).then_some(())
    }
}

impl Packet for SkbPacket {
    #[inline(always)]
    fn load<T: Plain>(&self, offset: usize) -> Option<T> {
        let start = self.at(offset, size_of::<T>())?;
        // SAFETY: in bounds, by `at`; any bytes make a `T`.
        Some(unsafe { packet::read(start as *const u8) })
    }

    #[inline(always)]
    fn store<T: Plain>(&mut self, offset: usize, value: T) -> Option<()> {
        let start = self.at(offset, size_of::<T>())?;
        // SAFETY: in bounds, by `at`; the verifier made the kernel unshare the headers of a buffer
        // that this program writes to.
        unsafe { packet::write(start as *mut u8, &value) };
        Some(())
    }

    /// Leaves it to the kernel to know whether the checksum is complete, is to be completed by the
    /// device (then only the pseudo-header counts), or was summed up by it.
    #[inline(always)]
    fn fix_checksum(&mut self, offset: usize, change: ChecksumChange) -> Option<()> {
        let mangled = if change.zero_is_none {
            u64::from(BPF_F_MARK_MANGLED_0)
        } else {
            0
        };
        if change.header != Diff::NONE {
            self.replace(offset, change.header, mangled)?;
        }
        if change.pseudo == Diff::NONE {
            return Some(());
        }
        let flags = u64::from(BPF_F_PSEUDO_HDR) | mangled;
        if change.ipv6
            && self
                .replace(offset, change.pseudo, flags | BPF_F_IPV6)
                .is_some()
        {
            return Some(());
        }
        self.replace(offset, change.pseudo, flags)
    }

    #[inline(always)]
    fn wire_len(&self) -> u32 {
        // SAFETY: the kernel gave this context.
        unsafe { (*self.skb).len }
    }
}

/// A socket buffer is not turned into an answer here: where XDP is off, refused packets go on to the
/// stack, which answers for its own addresses.
impl Resize for SkbPacket {
    const ANSWERS: bool = false;

    #[inline(always)]
    fn grow_head(&mut self, _bytes: usize) -> Option<()> {
        None
    }

    #[inline(always)]
    fn truncate(&mut self, _len: usize) -> Option<()> {
        None
    }
}

/// Translates answers back, and masquerades what pods send out of the cluster.
#[classifier]
pub fn uplink_egress(context: TcContext) -> i32 {
    egress(context.skb.skb).unwrap_or(TCX_NEXT)
}

#[inline(always)]
fn egress(skb: *mut __sk_buff) -> Option<i32> {
    let mut packet = SkbPacket::new(skb);
    let family = family(&packet)?;
    let kernel = Kernel::new(skb.cast(), 0, false)?;
    let verdict = match family {
        Family::V4 => uplink::egress(&mut packet, &kernel, work!(WORK_V4, Hook::Egress)),
        Family::V6 => uplink::egress(&mut packet, &kernel, work!(WORK_V6, Hook::Egress)),
    };
    Some(if verdict == Verdict::Drop {
        TCX_DROP
    } else {
        TCX_NEXT
    })
}

/// Services for clients from outside, where the device has no XDP.
#[classifier]
pub fn uplink_ingress(context: TcContext) -> i32 {
    ingress(context.skb.skb).unwrap_or(TCX_NEXT)
}

/// Sends what XDP could not, for want of a neighbour; all else passes at the cost of one comparison.
#[classifier]
pub fn uplink_unresolved(context: TcContext) -> i32 {
    let skb = context.skb.skb;
    if !is_marked(skb) {
        return TCX_NEXT;
    }
    ingress(skb).unwrap_or(TCX_NEXT)
}

#[inline(always)]
fn is_marked(skb: *mut __sk_buff) -> bool {
    // SAFETY: the kernel gave this context; the bounds are checked before the read.
    unsafe {
        let (meta, data) = ((*skb).data_meta as usize, (*skb).data as usize);
        meta + size_of::<u32>() <= data && (meta as *const u32).read() == UNRESOLVED_MARK
    }
}

#[inline(always)]
fn ingress(skb: *mut __sk_buff) -> Option<i32> {
    let mut packet = SkbPacket::new(skb);
    let family = family(&packet)?;
    // SAFETY: the kernel gave this context.
    let ifindex = unsafe { (*skb).ifindex };
    let kernel = Kernel::new(skb.cast(), ifindex, true)?;
    let verdict = match family {
        Family::V4 => uplink::ingress(&mut packet, &kernel, work!(WORK_V4, Hook::Ingress)),
        Family::V6 => uplink::ingress(&mut packet, &kernel, work!(WORK_V6, Hook::Ingress)),
    };
    Some(carry_out(verdict))
}

#[inline(always)]
fn carry_out(verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Pass | Verdict::Unresolved | Verdict::Reply => TCX_NEXT,
        Verdict::Drop => TCX_DROP,
        // SAFETY: the helper takes integers; it fails cleanly for an interface that is gone.
        Verdict::Send(to) => unsafe { bpf_redirect(to, 0) as i32 },
        // SAFETY: as above; no parameters: the kernel looks up the route itself.
        Verdict::Resolve(to) => unsafe {
            bpf_redirect_neigh(to, core::ptr::null_mut(), 0, 0) as i32
        },
    }
}
