//! The node's uplink: what comes in from outside, and what leaves.
//!
//! A service's packet that comes in takes one of two ways. To a backend on this node only its
//! destination is translated, the stack delivers it, and the answer is translated back when it leaves
//! ([`egress`]): the backend sees its client. To a backend elsewhere the source becomes the node's own
//! address, so that the answer comes back here; both directions are forwarded without the stack.

use sluice_common::{
    DropReason, Frontend, backend_flags, cidr_flags, config_flags, flow_flags, frontend_flags,
    proto,
};

use crate::address::Address;
use crate::flow::{self, SourcePort};
use crate::headers::tcp_flags::{ACK, RST, SYN};
use crate::headers::{ETHERNET_LEN, LinkAddresses};
use crate::nat;
use crate::packet::Packet;
use crate::parse::{self, Headers, Network, Parsed};
use crate::reject::{self, Refusal, Resize};
use crate::service::{self, Chosen};
use crate::tables::Tables;
use crate::work::Work;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Goes on to the stack, or to the wire on egress; rewritten or not.
    Pass,
    /// Ends here; counted.
    Drop,
    /// Rewritten, addressed and ready to be sent from this interface.
    Send(u32),
    /// Rewritten; the kernel is to resolve the neighbour and send it from this interface.
    Resolve(u32),
    /// Not touched: its next hop has no known neighbour, and only a later hook can have it resolved.
    Unresolved,
    /// Turned into an answer to its sender; send it back where it came from.
    Reply,
}

/// The way to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The next hop is known.
    Via {
        /// Interface.
        ifindex: u32,
        /// Its link address.
        src: [u16; 3],
        /// The next hop's link address.
        dst: [u16; 3],
    },
    /// The interface is known, and the kernel will find the next hop's link address.
    Resolve(u32),
    /// The next hop's link address is not known, and this hook cannot have it resolved.
    Unresolved,
    /// There is no way, or it is forbidden.
    None,
}

/// The kernel's routing table.
pub trait Router<A> {
    /// The way that a packet from `src` to `dst` takes.
    fn route(&self, src: A, dst: A) -> Route;
}

/// A packet that comes in from outside.
#[inline(always)]
pub fn ingress<A, P, T>(packet: &mut P, tables: &T, work: &mut Work<A>) -> Verdict
where
    A: Network,
    P: Resize,
    T: Tables<A> + Router<A>,
{
    let Parsed::Flow(headers) = parse::frame::<A, P>(packet, &mut work.tuple) else {
        return Verdict::Pass;
    };
    if !flow::follow(tables, work, headers) {
        let Some(frontend) = find_frontend(tables, work, headers) else {
            return Verdict::Pass;
        };
        if let Err(reason) = begin(tables, work, frontend) {
            return refuse(packet, tables, work, headers, frontend, reason);
        }
    }
    carry(packet, tables, work, headers)
}

/// The frontend that this packet may open a flow to.
#[inline(always)]
fn find_frontend<'t, A: Address, T: Tables<A>>(
    tables: &'t T,
    work: &mut Work<A>,
    headers: Headers,
) -> Option<&'t Frontend> {
    let Work {
        tuple,
        frontend_key,
        ..
    } = work;
    frontend_key.addr = tuple.dst;
    frontend_key.port = tuple.dport;
    frontend_key.protocol = tuple.protocol as u8;
    frontend_key.pad = 0;
    let frontend = tables.frontend(frontend_key)?;
    let external = frontend.flags & frontend_flags::EXTERNAL != 0;
    (external && headers.tcp_flags & RST == 0).then_some(frontend)
}

/// Opens the flow of a packet to a service, and leaves it in `work.flow`.
#[inline(always)]
fn begin<A: Address, T: Tables<A>>(
    tables: &T,
    work: &mut Work<A>,
    frontend: &Frontend,
) -> Result<(), DropReason> {
    if frontend.flags & frontend_flags::SOURCE_RANGES != 0
        && !tables.allowed_source(frontend.service_id, work.tuple.src)
    {
        return Err(DropReason::SourceRange);
    }
    let chosen = service::choose_external(tables, frontend, &work.tuple)?;
    let port = point_to_backend(tables, work, frontend.service_id, chosen)?;
    flow::open(tables, work, port)?;
    tables.count_connection(work.flow.service_id, work.flow.backend_id);
    Ok(())
}

/// Fills in `work.flow` from the chosen backend.
#[inline(always)]
fn point_to_backend<A: Address, T: Tables<A>>(
    tables: &T,
    work: &mut Work<A>,
    service_id: u32,
    chosen: Chosen<'_>,
) -> Result<SourcePort, DropReason> {
    let Work { tuple, flow, .. } = work;
    flow.dst = A::from_v6(chosen.backend.addr);
    flow.dport = chosen.backend.port;
    flow.backend_id = chosen.id;
    flow.service_id = service_id;
    if chosen.backend.flags & backend_flags::LOCAL != 0 {
        flow.src = tuple.src;
        flow.flags = flow_flags::TO_STACK;
        return Ok(SourcePort::Keep);
    }
    flow.src = node_address::<A, T>(tables)?;
    flow.flags = flow_flags::SNAT;
    Ok(SourcePort::Range)
}

#[inline(always)]
fn node_address<A: Address, T: Tables<A>>(tables: &T) -> Result<A, DropReason> {
    let node = A::of_node(tables.config());
    if node.is_unspecified() {
        Err(DropReason::NoNodeAddress)
    } else {
        Ok(node)
    }
}

/// Rewrites a packet of the flow `work.flow` and sends it on its way.
#[inline(always)]
fn carry<A, P, T>(packet: &mut P, tables: &T, work: &Work<A>, headers: Headers) -> Verdict
where
    A: Network,
    P: Resize,
    T: Tables<A> + Router<A>,
{
    let bytes = packet.wire_len();
    let verdict = if work.flow.flags & flow_flags::TO_STACK != 0 {
        rewritten(
            nat::rewrite(packet, headers, &work.tuple, &work.flow),
            Verdict::Pass,
        )
    } else {
        forward(packet, tables, work, headers)
    };
    match verdict {
        Ok(Verdict::Unresolved) => Verdict::Unresolved,
        Ok(verdict) => {
            count(tables, work, bytes);
            verdict
        }
        Err(DropReason::TtlExceeded) => expire(packet, tables, work),
        Err(reason) => drop_packet(packet, tables, reason),
    }
}

#[inline(always)]
fn count<A, T: Tables<A>>(tables: &T, work: &Work<A>, bytes: u32) {
    if work.flow.service_id != 0 {
        tables.count_packet(work.flow.service_id, work.flow.backend_id, bytes);
    }
}

#[inline(always)]
fn rewritten(done: Option<()>, verdict: Verdict) -> Result<Verdict, DropReason> {
    done.map(|()| verdict).ok_or(DropReason::RewriteFailed)
}

/// Does what a router does. The route is looked up first, so that a packet which cannot leave yet
/// stays as it came.
#[inline(always)]
fn forward<A, P, T>(
    packet: &mut P,
    tables: &T,
    work: &Work<A>,
    headers: Headers,
) -> Result<Verdict, DropReason>
where
    A: Network,
    P: Resize,
    T: Tables<A> + Router<A>,
{
    if headers.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let route = tables.route(work.flow.src, work.flow.dst);
    let verdict = match route {
        Route::Via { ifindex, .. } => Verdict::Send(ifindex),
        Route::Resolve(ifindex) => Verdict::Resolve(ifindex),
        Route::Unresolved => return Ok(Verdict::Unresolved),
        Route::None => return Err(DropReason::NoRoute),
    };
    let done = nat::rewrite(packet, headers, &work.tuple, &work.flow)
        .and_then(|()| A::decrement_ttl(packet, ETHERNET_LEN))
        .and_then(|()| address(packet, route));
    rewritten(done, verdict)
}

/// Addresses the frame to the next hop, where it is known.
#[inline(always)]
fn address<P: Packet>(packet: &mut P, route: Route) -> Option<()> {
    let Route::Via { src, dst, .. } = route else {
        return Some(());
    };
    packet.store(0, LinkAddresses { dst, src })
}

#[inline(always)]
fn drop_packet<A, P: Packet, T: Tables<A>>(packet: &P, tables: &T, reason: DropReason) -> Verdict {
    tables.count_drop(reason, packet.wire_len());
    Verdict::Drop
}

/// Tells the sender that its packet's hops have run out, from the node's own address.
#[inline(always)]
fn expire<A, P, T>(packet: &mut P, tables: &T, work: &Work<A>) -> Verdict
where
    A: Network,
    P: Resize,
    T: Tables<A>,
{
    tables.count_drop(DropReason::TtlExceeded, packet.wire_len());
    match node_address::<A, T>(tables) {
        Ok(node) => answer(reject::icmp(
            packet,
            &work.tuple,
            node,
            Refusal::HopsExceeded,
        )),
        Err(_) => Verdict::Drop,
    }
}

/// A service that cannot serve says so at once, rather than to let its client wait.
#[inline(always)]
fn refuse<A, P, T>(
    packet: &mut P,
    tables: &T,
    work: &Work<A>,
    headers: Headers,
    frontend: &Frontend,
    reason: DropReason,
) -> Verdict
where
    A: Network,
    P: Resize,
    T: Tables<A>,
{
    tables.count_drop(reason, packet.wire_len());
    tables.count_refused(frontend.service_id);
    let tuple = &work.tuple;
    match reason {
        DropReason::NoEndpoints | DropReason::NoSuchPort => {}
        _ => return Verdict::Drop,
    }
    if !P::ANSWERS {
        return Verdict::Pass;
    }
    if tuple.protocol == proto::TCP as u32 {
        return answer(reject::reset(packet, headers, tuple));
    }
    answer(reject::icmp(
        packet,
        tuple,
        tuple.dst,
        Refusal::PortUnreachable,
    ))
}

#[inline(always)]
const fn answer(built: Option<()>) -> Verdict {
    match built {
        Some(()) => Verdict::Reply,
        None => Verdict::Drop,
    }
}

/// A packet that leaves through the uplink: answers of backends on this node are translated back, and
/// pods' traffic that leaves the cluster gets the node's address.
#[inline(always)]
pub fn egress<A, P, T>(packet: &mut P, tables: &T, work: &mut Work<A>) -> Verdict
where
    A: Network,
    P: Packet,
    T: Tables<A>,
{
    let Parsed::Flow(headers) = parse::frame::<A, P>(packet, &mut work.tuple) else {
        return Verdict::Pass;
    };
    if !flow::follow(tables, work, headers) {
        match masquerade(tables, work, headers) {
            Ok(true) => {}
            Ok(false) => return Verdict::Pass,
            Err(reason) => return drop_packet(packet, tables, reason),
        }
    }
    let bytes = packet.wire_len();
    if nat::rewrite(packet, headers, &work.tuple, &work.flow).is_none() {
        return drop_packet(packet, tables, DropReason::RewriteFailed);
    }
    count(tables, work, bytes);
    Verdict::Pass
}

/// Opens a masqueraded flow, if this packet begins one, and leaves it in `work.flow`.
#[inline(always)]
fn masquerade<A: Address, T: Tables<A>>(
    tables: &T,
    work: &mut Work<A>,
    headers: Headers,
) -> Result<bool, DropReason> {
    if tables.config().flags & config_flags::MASQUERADE == 0 || !begins_flow(work, headers) {
        return Ok(false);
    }
    let Work { tuple, flow, .. } = work;
    if tables.cidr(tuple.src) & cidr_flags::MASQUERADE_SOURCE == 0
        || tables.cidr(tuple.dst) & cidr_flags::NO_MASQUERADE_DESTINATION != 0
    {
        return Ok(false);
    }
    flow.src = node_address::<A, T>(tables)?;
    flow.dst = tuple.dst;
    flow.dport = tuple.dport;
    flow.flags = flow_flags::SNAT | flow_flags::MASQUERADE | flow_flags::TO_STACK;
    flow.backend_id = 0;
    flow.service_id = 0;
    flow::open(tables, work, SourcePort::Range)?;
    Ok(true)
}

/// Whether a pod begins a conversation with this packet, rather than to answer in one: an answer to
/// who reached the pod by its own address must keep that address.
#[inline(always)]
const fn begins_flow<A>(work: &Work<A>, headers: Headers) -> bool {
    match work.tuple.protocol as u8 {
        proto::TCP => headers.tcp_flags & (SYN | ACK) == SYN,
        proto::UDP => true,
        _ => work.tuple.dport.0 == 0,
    }
}
