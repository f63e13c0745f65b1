//! The flow table: finding, following, opening.

use sluice_common::{
    Be16, Config, DropReason, Flow, FlowState, Ticks, Tuple, backend_flags, flow_flags, proto,
};

use crate::address::Address;
use crate::headers::tcp_flags::{ACK, FIN, RST, SYN};
use crate::parse::Headers;
use crate::service::is_eligible;
use crate::tables::{Inserted, Step, Tables};
use crate::work::Work;

/// Source ports that are tried before a flow is refused. With nine of ten ports to a remote end taken,
/// one flow in a thousand fails.
const PORT_ATTEMPTS: u32 = 64;
/// How long a closed connection is left alone for its last packets before its port may be taken, in
/// ticks: a quarter of a second.
const LAST_PACKETS: Ticks = 2;
/// How long a closed connection is remembered at most, in ticks: ten seconds.
const CLOSED_LIFETIME: Ticks = 75;
/// How long a server that closed first may refuse a new connection on the old one's tuple, in ticks: a
/// minute (Linux's TCP_TIMEWAIT_LEN) and a second.
const TIME_WAIT_LIFETIME: Ticks = 455;
/// When a client that has heard nothing sends its SYN again, in ticks: a second (RFC 6298 section 2),
/// less some.
const SYN_AGAIN: Ticks = 6;

/// How long a flow of this protocol may be idle in this state.
#[inline(always)]
const fn lifetime(config: &Config, protocol: u32, state: FlowState) -> Ticks {
    let timeouts = &config.timeouts;
    let tcp = protocol == proto::TCP as u32;
    match state {
        FlowState::New if tcp => timeouts.tcp_new,
        FlowState::Established if tcp => timeouts.tcp_established,
        FlowState::New => timeouts.other_new,
        FlowState::Established => timeouts.other_established,
        FlowState::Closed if timeouts.tcp_closing > CLOSED_LIFETIME => CLOSED_LIFETIME,
        FlowState::TimeWait => TIME_WAIT_LIFETIME,
        _ => timeouts.tcp_closing,
    }
}

#[inline(always)]
const fn is_expired<A>(flow: &Flow<A>, now: Ticks) -> bool {
    now.wrapping_sub(flow.last_seen) > flow.lifetime
}

/// Finds the flow of `work.tuple`, brings it up to date by this packet, and leaves it in `work.flow`.
/// `false`: there is none, or this packet begins a new one in its place.
#[inline(always)]
pub fn follow<A: Address, T: Tables<A>>(tables: &T, work: &mut Work<A>, headers: Headers) -> bool {
    let now = tables.now();
    let config = tables.config();
    let Work {
        tuple, flow: found, ..
    } = work;
    let mut abandoned = false;
    let changed = tables.with_flow(tuple, |flow| {
        let state = flow.state();
        if is_expired(flow, now) {
            return None;
        }
        if reopens(flow, state, now, headers) {
            abandoned = matches!(state, FlowState::New);
            *found = *flow;
            return None;
        }
        let next = next_state(state, flow.flags, headers);
        let changed = next as u16 != flow.state;
        if changed {
            flow.state = next as u16;
            flow.lifetime = lifetime(config, tuple.protocol, next);
        }
        let aged = flow.last_seen != now;
        if aged {
            flow.last_seen = now;
        }
        *found = *flow;
        Some(changed || aged)
    });
    let Some(Some(changed)) = changed else {
        if abandoned {
            abandon(tables, work);
        }
        return false;
    };
    if may_move(work, headers) && lost_backend(tables, &work.flow) {
        return false;
    }
    if changed {
        update_twin(tables, work);
    }
    true
}

/// A SYN begins a new connection on a tuple whose old one is closing. So does one that is repeated on a
/// translated source port: the server's kernel may hold that port's last connection (see
/// [`FlowState::TimeWait`]), and another port gets through.
#[inline(always)]
const fn reopens<A>(flow: &Flow<A>, state: FlowState, now: Ticks, headers: Headers) -> bool {
    if headers.tcp_flags & (SYN | ACK) != SYN {
        return false;
    }
    match state {
        FlowState::New => {
            flow.flags & flow_flags::SNAT != 0 && now.wrapping_sub(flow.last_seen) >= SYN_AGAIN
        }
        FlowState::Established => false,
        _ => true,
    }
}

#[inline(always)]
const fn next_state(state: FlowState, flow_flags: u16, headers: Headers) -> FlowState {
    let from_server = flow_flags & flow_flags::REVERSE != 0;
    if headers.tcp_flags & (FIN | RST) != 0 {
        return closing_state(state, from_server, headers.tcp_flags & RST != 0);
    }
    match state {
        FlowState::New if from_server => FlowState::Established,
        other => other,
    }
}

#[inline(always)]
const fn closing_state(state: FlowState, from_server: bool, reset: bool) -> FlowState {
    match state {
        FlowState::TimeWait => FlowState::TimeWait,
        _ if reset => FlowState::Closed,
        FlowState::ClientClosing if from_server => FlowState::Closed,
        FlowState::ServerClosing if !from_server => FlowState::TimeWait,
        FlowState::New | FlowState::Established if from_server => FlowState::ServerClosing,
        FlowState::New | FlowState::Established => FlowState::ClientClosing,
        other => other,
    }
}

/// Whether the flow may change its backend at this packet: anything without a connection, and
/// connections that are only being opened. An established connection goes on; what became of its
/// backend is the backend's to say.
#[inline(always)]
const fn may_move<A>(work: &Work<A>, headers: Headers) -> bool {
    if work.flow.backend_id == 0 || work.flow.flags & flow_flags::REVERSE != 0 {
        return false;
    }
    work.tuple.protocol != proto::TCP as u32 || headers.tcp_flags & (SYN | ACK) == SYN
}

/// Whether the flow goes to a backend that is not its service's any more.
#[inline(always)]
fn lost_backend<A: Address, T: Tables<A>>(tables: &T, flow: &Flow<A>) -> bool {
    match tables.backend(flow.backend_id) {
        Some(backend) => !is_eligible(backend, flow.service_id, backend_flags::EXTERNAL),
        None => true,
    }
}

/// Derives the flow's other entry from `work.flow`.
#[inline(always)]
fn derive_twin<A: Address>(work: &mut Work<A>) {
    let Work {
        tuple,
        flow,
        twin_key,
        twin,
        ..
    } = work;
    twin_key.src = flow.dst;
    twin_key.dst = flow.src;
    twin_key.sport = flow.dport;
    twin_key.dport = flow.sport;
    twin_key.protocol = tuple.protocol;
    twin.src = tuple.dst;
    twin.dst = tuple.src;
    twin.sport = tuple.dport;
    twin.dport = tuple.sport;
    twin.flags = flow.flags ^ flow_flags::REVERSE;
    twin.state = flow.state;
    twin.last_seen = flow.last_seen;
    twin.lifetime = flow.lifetime;
    twin.created = flow.created;
    twin.backend_id = flow.backend_id;
    twin.service_id = flow.service_id;
}

/// Keeps the other entry of the flow alive and in the same state; makes it again if the table has
/// forgotten it. Runs when the state changes, and else once a tick.
#[inline(always)]
fn update_twin<A: Address, T: Tables<A>>(tables: &T, work: &mut Work<A>) {
    derive_twin(work);
    let Work { twin_key, twin, .. } = work;
    let found = tables.with_flow(twin_key, |found| {
        found.state = twin.state;
        found.last_seen = twin.last_seen;
        found.lifetime = twin.lifetime;
    });
    if found.is_none() {
        tables.put_flow(&work.twin_key, &work.twin);
    }
}

/// Forgets the answers of a flow whose client asks again and gets another source port: the server may
/// yet answer both, and the two answers would make the client and the server reset each other.
#[inline(always)]
fn abandon<A: Address, T: Tables<A>>(tables: &T, work: &mut Work<A>) {
    derive_twin(work);
    tables.delete_flow(&work.twin_key);
}

/// How the source port of a new flow is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePort {
    /// Keep it, unless another flow to the same end has it.
    Keep,
    /// One of the agent's range.
    Range,
}

/// Opens the flow `work.flow` for packets of `work.tuple`. Its addresses, destination port, flags and
/// ids are set; source port, times and state are chosen here, and both entries written.
///
/// No two flows share an answer's tuple: a port is taken by inserting the reverse entry, which fails
/// when it is there. An entry that has outlived its timeout is taken over.
#[inline(always)]
pub fn open<A: Address, T: Tables<A>>(
    tables: &T,
    work: &mut Work<A>,
    port: SourcePort,
) -> Result<(), DropReason> {
    work.flow.created = tables.now();
    work.flow.last_seen = work.flow.created;
    work.flow.state = FlowState::New as u16;
    work.flow.lifetime = lifetime(tables.config(), work.tuple.protocol, FlowState::New);
    work.flow.sport = work.tuple.sport;
    if port == SourcePort::Keep {
        derive_twin(work);
        match claim(tables, work, Taking::Idle) {
            Inserted::New => return store_forward(tables, work),
            Inserted::Full => return Err(DropReason::FlowTableFull),
            Inserted::Exists => {}
        }
    }
    let ports = PortRange::of(tables.config());
    if work.next_port == 0 || work.tuple.protocol != proto::TCP as u32 {
        work.next_port = ports.place(tables.random());
    }
    let mut search = Search {
        work,
        ports,
        taking: Taking::Idle,
        result: Inserted::Exists,
    };
    tables.repeat(PORT_ATTEMPTS, &mut search);
    if search.result == Inserted::Exists {
        search.taking = Taking::Waiting;
        tables.repeat(PORT_ATTEMPTS, &mut search);
    }
    match search.result {
        Inserted::New => store_forward(tables, work),
        Inserted::Full => Err(DropReason::FlowTableFull),
        Inserted::Exists => Err(DropReason::NoSourcePort),
    }
}

/// Whose source port a new flow may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taking {
    /// Of flows that are over: idle for too long, or closed.
    Idle,
    /// Of connections in TIME-WAIT too: for want of a better one, and with luck.
    Waiting,
}

/// The search for a free source port.
struct Search<'a, A> {
    work: &'a mut Work<A>,
    ports: PortRange,
    taking: Taking,
    result: Inserted,
}

impl<A: Address, T: Tables<A>> Step<T> for Search<'_, A> {
    /// Goes to the next port; from one that is taken it leaps, so that a search crosses the whole range
    /// instead of following in the wake of another CPU's.
    #[inline(always)]
    fn step(&mut self, tables: &T) -> bool {
        let place = self.ports.within(self.work.next_port);
        self.work.flow.sport = Be16::new(self.ports.at(place));
        derive_twin(self.work);
        self.result = claim(tables, self.work, self.taking);
        let taken = self.result == Inserted::Exists;
        let leap = if taken {
            self.ports.len / PORT_ATTEMPTS
        } else {
            0
        };
        self.work.next_port = place + 1 + leap;
        !taken
    }
}

/// Tries to take the answer's tuple for this flow.
#[inline(always)]
fn claim<A: Address, T: Tables<A>>(tables: &T, work: &mut Work<A>, taking: Taking) -> Inserted {
    match tables.insert_flow(&work.twin_key, &work.twin) {
        Inserted::Exists => {}
        other => return other,
    }
    let now = work.flow.last_seen;
    let Work {
        twin_key,
        twin,
        former,
        ..
    } = work;
    let over = tables.with_flow(twin_key, |old| {
        former.src = old.dst;
        former.dst = old.src;
        former.sport = old.dport;
        former.dport = old.sport;
        same_translation(old, twin) || is_over(old, now, taking)
    });
    if over == Some(false) {
        return Inserted::Exists;
    }
    work.former.protocol = work.tuple.protocol;
    forget_former(tables, work);
    if tables.put_flow(&work.twin_key, &work.twin) {
        Inserted::New
    } else {
        Inserted::Full
    }
}

/// Removes the entry that would lead packets of the former flow into the new one; unless its client has
/// begun another flow by it meanwhile.
#[inline(always)]
fn forget_former<A: Address, T: Tables<A>>(tables: &T, work: &Work<A>) {
    let Work { flow, former, .. } = work;
    let leads_here = tables.with_flow(former, |old| {
        let ports = (old.sport.0 ^ flow.sport.0) | (old.dport.0 ^ flow.dport.0);
        old.src.differs(flow.src) | old.dst.differs(flow.dst) | ports as u32 == 0
    });
    if leads_here == Some(true) {
        tables.delete_flow(former);
    }
}

#[inline(always)]
const fn is_over<A>(flow: &Flow<A>, now: Ticks, taking: Taking) -> bool {
    if is_expired(flow, now) {
        return true;
    }
    let waiting = matches!(taking, Taking::Waiting) && flow.state == FlowState::TimeWait as u16;
    let closed = flow.state == FlowState::Closed as u16 || waiting;
    closed && now.wrapping_sub(flow.last_seen) >= LAST_PACKETS
}

#[inline(always)]
fn same_translation<A: Address>(a: &Flow<A>, b: &Flow<A>) -> bool {
    let ports = (a.sport.0 ^ b.sport.0) | (a.dport.0 ^ b.dport.0);
    a.src.differs(b.src) | a.dst.differs(b.dst) | ports as u32 == 0
}

#[inline(always)]
fn store_forward<A: Address, T: Tables<A>>(tables: &T, work: &Work<A>) -> Result<(), DropReason> {
    if tables.put_flow(&work.tuple, &work.flow) {
        return Ok(());
    }
    tables.delete_flow(&work.twin_key);
    Err(DropReason::FlowTableFull)
}

/// The agent's range of source ports.
#[derive(Clone, Copy)]
struct PortRange {
    min: u16,
    len: u32,
}

impl PortRange {
    #[inline(always)]
    const fn of(config: &Config) -> Self {
        let (min, max) = (config.snat_port_min, config.snat_port_max);
        let len = if max >= min {
            (max - min) as u32 + 1
        } else {
            1
        };
        Self { min, len }
    }

    /// A place of the search, evenly by `random`. Ports that cannot be foretold are what protects
    /// datagrams from forged answers (RFC 5452); TCP has its sequence numbers, and gains more from
    /// ports that have rested.
    #[inline(always)]
    const fn place(self, random: u32) -> u32 {
        ((random as u64 * self.len as u64) >> 32) as u32
    }

    /// A place in the range. What is beyond its end begins it anew.
    #[inline(always)]
    const fn within(self, place: u32) -> u32 {
        if place < self.len {
            place
        } else if place - self.len < self.len {
            place - self.len
        } else {
            0
        }
    }

    #[inline(always)]
    const fn at(self, place: u32) -> u16 {
        self.min.wrapping_add(place as u16)
    }
}

/// The tuple of the answers to a flow's packets; for tests and tools.
pub const fn answer_of<A: Copy>(flow: &Flow<A>, protocol: u32) -> Tuple<A> {
    flow.translated(protocol).reversed()
}
