//! The map ABI shared by the eBPF programs and the agent: no_std, repr(C), sizes asserted.
