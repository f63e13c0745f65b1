//! The maps' names: in the object file, in the pin directory, and in errors.

/// Hash of `FrontendKey<Ipv4>` to `Frontend`.
pub const FRONTENDS_V4: &str = "frontends_v4";
/// Hash of `FrontendKey<Ipv6>` to `Frontend`.
pub const FRONTENDS_V6: &str = "frontends_v6";
/// Array of `Backend` by id, mapped into the agent.
pub const BACKENDS: &str = "backends";
/// Array of backend ids, mapped into the agent.
pub const SLOTS: &str = "slots";
/// Array of backend ids, mapped into the agent.
pub const MAGLEV: &str = "maglev";
/// LRU hash of `AffinityKey` to `AffinityValue`.
pub const AFFINITY: &str = "affinity";
/// LRU hash of `Tuple<Ipv4>` to `Flow<Ipv4>`.
pub const FLOWS_V4: &str = "flows_v4";
/// LRU hash of `Tuple<Ipv6>` to `Flow<Ipv6>`.
pub const FLOWS_V6: &str = "flows_v6";
/// Socket-local storage of `SocketPeers`.
pub const SOCKETS: &str = "sockets";
/// Array of one `Config`, mapped into the agent.
pub const CONFIG: &str = "config";
/// LPM trie of IPv4 prefixes to `Cidr`.
pub const CIDRS_V4: &str = "cidrs_v4";
/// LPM trie of IPv6 prefixes to `Cidr`.
pub const CIDRS_V6: &str = "cidrs_v6";
/// LPM trie of `SourceRange<Ipv4>` to 1.
pub const SOURCE_RANGES_V4: &str = "source_ranges_v4";
/// LPM trie of `SourceRange<Ipv6>` to 1.
pub const SOURCE_RANGES_V6: &str = "source_ranges_v6";
/// Per-CPU array of `Counter` by `DropReason`.
pub const DROPS: &str = "drops";
/// Per-CPU array of `ServiceCounter` by service id.
pub const SERVICE_COUNTERS: &str = "service_counters";
/// Per-CPU array of `ServiceCounter` by backend id.
pub const BACKEND_COUNTERS: &str = "backend_counters";
/// Hash of service ids to names, for display; no program reads it.
pub const NAMES: &str = "names";
