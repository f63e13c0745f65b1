//! Resource quantities: `100m`, `1.5Gi`, `1e3`.
