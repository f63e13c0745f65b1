//! The maps. Sizes here are placeholders: the agent creates the maps with its own, and pins them
//! before the programs are loaded.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC};
use aya_ebpf::btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, SkStorage};
use aya_ebpf::macros::btf_map;
use sluice_common::{
    AffinityKey, AffinityValue, Backend, Cidr, Config, Counter, DropReason, Flow, Frontend,
    FrontendKey, Ipv4, Ipv6, ServiceCounter, SocketPeers, SourceRange, Tuple,
};
use sluice_datapath::work::Work;

const PLACEHOLDER: usize = 1;
/// How many hooks need working memory.
const HOOKS: usize = 3;
/// Written by the agent through a memory mapping.
const MAPPED: usize = BPF_F_MMAPABLE as usize;
/// Takes memory for what is in use only.
const SPARSE: usize = BPF_F_NO_PREALLOC as usize;

/// Working memory, one for each hook that may run; see [`Hook`].
#[btf_map(name = "work_v4")]
pub static WORK_V4: PerCpuArray<Work<Ipv4>, HOOKS> = PerCpuArray::new();
#[btf_map(name = "work_v6")]
pub static WORK_V6: PerCpuArray<Work<Ipv6>, HOOKS> = PerCpuArray::new();

#[btf_map(name = "frontends_v4")]
pub static FRONTENDS_V4: HashMap<FrontendKey<Ipv4>, Frontend, PLACEHOLDER, SPARSE> = HashMap::new();
#[btf_map(name = "frontends_v6")]
pub static FRONTENDS_V6: HashMap<FrontendKey<Ipv6>, Frontend, PLACEHOLDER, SPARSE> = HashMap::new();
#[btf_map(name = "backends")]
pub static BACKENDS: Array<Backend, PLACEHOLDER, MAPPED> = Array::new();
#[btf_map(name = "slots")]
pub static SLOTS: Array<u32, PLACEHOLDER, MAPPED> = Array::new();
#[btf_map(name = "maglev")]
pub static MAGLEV: Array<u32, PLACEHOLDER, MAPPED> = Array::new();
#[btf_map(name = "affinity")]
pub static AFFINITY: LruHashMap<AffinityKey, AffinityValue, PLACEHOLDER> = LruHashMap::new();
#[btf_map(name = "flows_v4")]
pub static FLOWS_V4: LruHashMap<Tuple<Ipv4>, Flow<Ipv4>, PLACEHOLDER> = LruHashMap::new();
#[btf_map(name = "flows_v6")]
pub static FLOWS_V6: LruHashMap<Tuple<Ipv6>, Flow<Ipv6>, PLACEHOLDER> = LruHashMap::new();
#[btf_map(name = "sockets")]
pub static SOCKETS: SkStorage<SocketPeers> = SkStorage::new();
#[btf_map(name = "config")]
pub static CONFIG: Array<Config, 1, MAPPED> = Array::new();
#[btf_map(name = "cidrs_v4")]
pub static CIDRS_V4: LpmTrie<Ipv4, Cidr, PLACEHOLDER, SPARSE> = LpmTrie::new();
#[btf_map(name = "cidrs_v6")]
pub static CIDRS_V6: LpmTrie<Ipv6, Cidr, PLACEHOLDER, SPARSE> = LpmTrie::new();
#[btf_map(name = "source_ranges_v4")]
pub static SOURCE_RANGES_V4: LpmTrie<SourceRange<Ipv4>, u32, PLACEHOLDER, SPARSE> = LpmTrie::new();
#[btf_map(name = "source_ranges_v6")]
pub static SOURCE_RANGES_V6: LpmTrie<SourceRange<Ipv6>, u32, PLACEHOLDER, SPARSE> = LpmTrie::new();
#[btf_map(name = "drops")]
pub static DROPS: PerCpuArray<Counter, { DropReason::ALL.len() }> = PerCpuArray::new();
#[btf_map(name = "service_counters")]
pub static SERVICE_COUNTERS: PerCpuArray<ServiceCounter, PLACEHOLDER> = PerCpuArray::new();
#[btf_map(name = "backend_counters")]
pub static BACKEND_COUNTERS: PerCpuArray<ServiceCounter, PLACEHOLDER> = PerCpuArray::new();

/// The hooks that packets pass. Each has working memory of its own: one may interrupt another.
#[derive(Clone, Copy)]
#[repr(u32)]
pub enum Hook {
    Xdp = 0,
    Ingress = 1,
    Egress = 2,
}

/// The working memory of a hook on this CPU.
macro_rules! work {
    ($map:ident, $hook:expr) => {{
        let work = $map.get_ptr_mut($hook as u32)?;
        // SAFETY: per CPU and per hook, and a hook does not interrupt itself.
        unsafe { &mut *work }
    }};
}
pub(crate) use work;
