//! The datapath's tables, made of the kernel's maps.

use core::ffi::c_void;
use core::ptr;

use aya_ebpf::bindings::{
    BPF_ANY, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, BPF_NOEXIST, bpf_fib_lookup,
};
use aya_ebpf::btf_maps::lpm_trie::Key;
use aya_ebpf::helpers::{
    bpf_fib_lookup as fib_lookup, bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_loop,
};
use sluice_common::{
    AffinityKey, AffinityValue, Backend, Cidr, Config, DropReason, Flow, Frontend, FrontendKey,
    Ipv4, Ipv6, ServiceCounter, SourceRange, Ticks, Tuple, ticks_from_nanos,
};
use sluice_datapath::tables::{Frontends, Inserted, Services, Step, Tables, World};
use sluice_datapath::uplink::{Route, Router};

use crate::maps::{
    AFFINITY, BACKEND_COUNTERS, BACKENDS, CIDRS_V4, CIDRS_V6, CONFIG, DROPS, FLOWS_V4, FLOWS_V6,
    FRONTENDS_V4, FRONTENDS_V6, MAGLEV, SERVICE_COUNTERS, SLOTS, SOURCE_RANGES_V4,
    SOURCE_RANGES_V6,
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
const ENTRY_EXISTS: i32 = -17;

/// The maps, and the hook that they are used from.
pub struct Kernel {
    config: &'static Config,
    /// Now; read once a run.
    now: Ticks,
    /// The program's context.
    context: *mut c_void,
    /// Interface that the packet is at; 0 for sockets.
    ifindex: u32,
    /// Whether this hook can leave it to the kernel to find a neighbour.
    resolves: bool,
}

impl Kernel {
    /// For a run of a program with this context. `None`: the agent has not written its configuration
    /// map, which cannot be as the map is an array.
    #[inline(always)]
    pub fn new(context: *mut c_void, ifindex: u32, resolves: bool) -> Option<Self> {
        let config = CONFIG.get(0)?;
        // SAFETY: the helper takes no arguments.
        let now = ticks_from_nanos(unsafe { bpf_ktime_get_coarse_ns() });
        Some(Self {
            config,
            now,
            context,
            ifindex,
            resolves,
        })
    }
}

impl World for Kernel {
    #[inline(always)]
    fn now(&self) -> Ticks {
        self.now
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: the helper takes no arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn config(&self) -> &Config {
        self.config
    }

    #[inline(always)]
    fn count_drop(&self, reason: DropReason, bytes: u32) {
        if let Some(counter) = DROPS.get_ptr_mut(reason as u32) {
            // SAFETY: a per-CPU element; a run is not interrupted by another on the same CPU that
            // would write it, save for a lost count.
            unsafe {
                (*counter).packets += 1;
                (*counter).bytes += u64::from(bytes);
            }
        }
    }

    #[inline(always)]
    fn count_connection(&self, service_id: u32, backend_id: u32) {
        count(service_id, backend_id, |counter| counter.connections += 1);
    }

    #[inline(always)]
    fn count_packet(&self, service_id: u32, backend_id: u32, bytes: u32) {
        count(service_id, backend_id, |counter| {
            counter.packets += 1;
            counter.bytes += u64::from(bytes);
        });
    }

    #[inline(always)]
    fn count_refused(&self, service_id: u32) {
        if let Some(counter) = SERVICE_COUNTERS.get_ptr_mut(service_id) {
            // SAFETY: a per-CPU element, as above.
            unsafe { (*counter).refused += 1 }
        }
    }

    #[inline(always)]
    fn repeat<S: Step<Self>>(&self, times: u32, step: &mut S) {
        let mut state = Loop {
            kernel: self,
            step: ptr::from_mut(step).cast(),
        };
        let body = one_round::<S> as unsafe extern "C" fn(u64, *mut c_void) -> i64;
        // SAFETY: the kernel calls `one_round` with this state, and only until this returns.
        unsafe { bpf_loop(times, body as *mut c_void, (&raw mut state).cast(), 0) };
    }
}

/// What the body of a loop works on. Without the step's type: the object would name the types of all
/// steps, in an order that depends on where it is built.
struct Loop {
    kernel: *const Kernel,
    step: *mut c_void,
}

/// # Safety
/// Called by `bpf_loop` alone, with a live [`Loop`] whose step is an `S`.
unsafe extern "C" fn one_round<S: Step<Kernel>>(_index: u64, state: *mut c_void) -> i64 {
    // SAFETY: the caller's promise; nothing else uses the step meanwhile.
    unsafe {
        let state = &*state.cast::<Loop>();
        let step = &mut *state.step.cast::<S>();
        i64::from(step.step(&*state.kernel))
    }
}

#[inline(always)]
fn count(service_id: u32, backend_id: u32, add: impl Fn(&mut ServiceCounter)) {
    if let Some(counter) = SERVICE_COUNTERS.get_ptr_mut(service_id) {
        // SAFETY: a per-CPU element; nothing else on this CPU writes it meanwhile.
        add(unsafe { &mut *counter });
    }
    if let Some(counter) = BACKEND_COUNTERS.get_ptr_mut(backend_id) {
        // SAFETY: as above.
        add(unsafe { &mut *counter });
    }
}

impl Services for Kernel {
    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        BACKENDS.get(id)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<u32> {
        SLOTS.get(index).copied()
    }

    #[inline(always)]
    fn maglev(&self, index: u32) -> Option<u32> {
        MAGLEV.get(index).copied()
    }

    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityValue> {
        // SAFETY: copied before anything else can touch the map; a torn value is caught by its reader,
        // who checks the backend.
        unsafe { AFFINITY.get(key).copied() }
    }

    #[inline(always)]
    fn put_affinity(&self, key: &AffinityKey, value: &AffinityValue) {
        let _ = AFFINITY.insert(key, value, u64::from(BPF_ANY));
    }
}

/// Tries' keys begin with a word. What follows is copied by words of 8 bytes, so it must lie at a
/// multiple of 8: the verifier rejects "misaligned stack access".
#[repr(C, align(8))]
struct CidrKey<A> {
    pad: u32,
    key: Key<A>,
}

/// As [`CidrKey`]; the service's id fills the gap.
#[repr(align(8))]
struct SourceRangeKey<A>(Key<SourceRange<A>>);

macro_rules! family {
    ($addr:ty, $frontends:ident, $flows:ident, $cidrs:ident, $sources:ident, $bits:literal, $fill:ident) => {
        impl Frontends<$addr> for Kernel {
            #[inline(always)]
            fn frontend(&self, key: &FrontendKey<$addr>) -> Option<&Frontend> {
                // SAFETY: programs never write this map, and the agent replaces entries as a whole.
                unsafe { $frontends.get(key) }
            }
        }

        impl Tables<$addr> for Kernel {
            #[inline(always)]
            fn with_flow<R>(
                &self,
                key: &Tuple<$addr>,
                f: impl FnOnce(&mut Flow<$addr>) -> R,
            ) -> Option<R> {
                // SAFETY: `f` touches no map, so the entry is not reused under it on this CPU. Another
                // CPU may evict and reuse it; what is then written is a time and a state, which the
                // next packet of that flow corrects.
                Some(f(unsafe { &mut *$flows.get_ptr_mut(key)? }))
            }

            #[inline(always)]
            fn insert_flow(&self, key: &Tuple<$addr>, flow: &Flow<$addr>) -> Inserted {
                match $flows.insert(key, flow, u64::from(BPF_NOEXIST)) {
                    Ok(()) => Inserted::New,
                    Err(ENTRY_EXISTS) => Inserted::Exists,
                    Err(_) => Inserted::Full,
                }
            }

            #[inline(always)]
            fn put_flow(&self, key: &Tuple<$addr>, flow: &Flow<$addr>) -> bool {
                $flows.insert(key, flow, u64::from(BPF_ANY)).is_ok()
            }

            #[inline(always)]
            fn delete_flow(&self, key: &Tuple<$addr>) {
                let _ = $flows.remove(key);
            }

            #[inline(always)]
            fn cidr(&self, addr: $addr) -> Cidr {
                let key = CidrKey {
                    pad: 0,
                    key: Key::new($bits, addr),
                };
                $cidrs.get(&key.key).copied().unwrap_or(0)
            }

            #[inline(always)]
            fn allowed_source(&self, service_id: u32, client: $addr) -> bool {
                let key = Key::new(
                    32 + $bits,
                    SourceRange {
                        service_id,
                        addr: client,
                    },
                );
                $sources.get(&SourceRangeKey(key).0).is_some()
            }
        }

        impl Router<$addr> for Kernel {
            #[inline(always)]
            fn route(&self, src: $addr, dst: $addr) -> Route {
                // SAFETY: all zero is valid for this structure of integers.
                let mut fib: bpf_fib_lookup = unsafe { core::mem::zeroed() };
                $fill(&mut fib, src, dst);
                self.look_up(&mut fib)
            }
        }
    };
}

family!(
    Ipv4,
    FRONTENDS_V4,
    FLOWS_V4,
    CIDRS_V4,
    SOURCE_RANGES_V4,
    32,
    fill_v4
);
family!(
    Ipv6,
    FRONTENDS_V6,
    FLOWS_V6,
    CIDRS_V6,
    SOURCE_RANGES_V6,
    128,
    fill_v6
);

#[inline(always)]
fn fill_v4(fib: &mut bpf_fib_lookup, src: Ipv4, dst: Ipv4) {
    fib.family = AF_INET;
    fib.__bindgen_anon_3.ipv4_src = src.0;
    fib.__bindgen_anon_4.ipv4_dst = dst.0;
}

#[inline(always)]
fn fill_v6(fib: &mut bpf_fib_lookup, src: Ipv6, dst: Ipv6) {
    fib.family = AF_INET6;
    fib.__bindgen_anon_3.ipv6_src = src.0;
    fib.__bindgen_anon_4.ipv6_dst = dst.0;
}

impl Kernel {
    #[inline(always)]
    fn look_up(&self, fib: &mut bpf_fib_lookup) -> Route {
        fib.ifindex = self.ifindex;
        // SAFETY: the context is this program's own, and the length is the structure's.
        let result =
            unsafe { fib_lookup(self.context, fib, size_of::<bpf_fib_lookup>() as i32, 0) };
        if result == i64::from(BPF_FIB_LKUP_RET_SUCCESS) {
            let (src, dst) = (words(&fib.smac), words(&fib.dmac));
            return Route::Via {
                ifindex: fib.ifindex,
                src,
                dst,
            };
        }
        if result == i64::from(BPF_FIB_LKUP_RET_NO_NEIGH) {
            return if self.resolves {
                Route::Resolve(fib.ifindex)
            } else {
                Route::Unresolved
            };
        }
        Route::None
    }
}

/// Half by half: merged into words, these reads would not be aligned, which the verifier wants of the
/// stack ("misaligned stack access").
#[inline(always)]
fn words(mac: &[u8; 6]) -> [u16; 3] {
    let halves = mac.as_ptr().cast::<u16>();
    // SAFETY: the address is one of a field at an even offset of a structure aligned to 4.
    unsafe {
        [
            halves.read_volatile(),
            halves.add(1).read_volatile(),
            halves.add(2).read_volatile(),
        ]
    }
}
