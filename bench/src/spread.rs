//! How many flows move when one of a Service's backends leaves.

use std::net::{IpAddr, Ipv4Addr};

use serde::Serialize;
use sluice_proxy::maglev;

const BACKENDS: u32 = 100;

/// Shares of the entries of the backends that stay, which go to another backend when one leaves.
#[derive(Clone, Debug, Serialize)]
pub struct Moved {
    pub backends: u32,
    pub table: u32,
    pub mean: f64,
    pub worst: f64,
}

/// Takes each of 100 backends away in turn.
pub fn measure() -> Moved {
    let all: Vec<_> = (0..BACKENDS).map(backend).collect();
    let before = owners(&all);
    let shares: Vec<f64> = all
        .iter()
        .map(|gone| {
            let rest: Vec<_> = all.iter().copied().filter(|one| one != gone).collect();
            moved(&before, &owners(&rest), *gone)
        })
        .collect();
    Moved {
        backends: BACKENDS,
        table: maglev::table_size(all.len()),
        mean: shares.iter().sum::<f64>() / shares.len() as f64,
        worst: shares.iter().copied().fold(0.0, f64::max),
    }
}

type Backend = (IpAddr, u16);

fn backend(i: u32) -> Backend {
    let [_, _, high, low] = (i * 7 + 2).to_be_bytes();
    (Ipv4Addr::new(10, 244, high, low).into(), 8080)
}

fn owners(backends: &[Backend]) -> Vec<Backend> {
    let table = maglev::table(backends);
    table.into_iter().map(|i| backends[i as usize]).collect()
}

fn moved(before: &[Backend], after: &[Backend], gone: Backend) -> f64 {
    let kept = before.iter().zip(after).filter(|(old, _)| **old != gone);
    let (all, moved) = kept.fold((0u32, 0u32), |(all, moved), (old, new)| {
        (all + 1, moved + u32::from(old != new))
    });
    f64::from(moved) / f64::from(all.max(1))
}
