//! What the command line prints.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::allocator::PoolUsage;
use crate::protocol::{Finding, Held, Reply};

/// Rows of text in aligned columns.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |at: usize| {
        rows.iter()
            .filter_map(|row| row.get(at))
            .map(String::len)
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

/// Counts up to 2^64 - 1, which stands for "too many to matter".
fn count(number: u64) -> String {
    match number {
        n if n > 1 << 40 => format!("2^{}", n.ilog2()),
        n => n.to_string(),
    }
}

fn pool(usage: &PoolUsage) -> Vec<String> {
    vec![
        usage.cidr.to_string(),
        count(usage.used),
        count(usage.cooling),
        count(usage.free),
        count(usage.capacity),
        if usage.active { "active" } else { "retired" }.into(),
    ]
}

fn age(since: u64) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    match now.saturating_sub(since) {
        seconds @ 0..120 => format!("{seconds}s"),
        seconds @ 120..7200 => format!("{}m", seconds / 60),
        seconds @ 7200..172_800 => format!("{}h", seconds / 3600),
        seconds => format!("{}d", seconds / 86400),
    }
}

fn pod_name(held: &Held) -> String {
    match held.pod.name.is_empty() {
        true => "-".into(),
        false => format!("{}/{}", held.pod.namespace, held.pod.name),
    }
}

fn addresses(held: &Held) -> String {
    let all: Vec<String> = held.addresses.iter().map(ToString::to_string).collect();
    all.join(",")
}

fn short(id: &str) -> &str {
    id.get(..13).unwrap_or(id)
}

/// Pools, then allocations.
pub(crate) fn shown(reply: &Reply) -> String {
    let Reply::Shown { pools, held } = reply else {
        return String::new();
    };
    let mut pool_rows = vec![row(&[
        "POOL", "USED", "COOLING", "FREE", "CAPACITY", "STATE",
    ])];
    pool_rows.extend(pools.iter().map(pool));
    let mut rows = vec![row(&[
        "ADDRESSES",
        "POD",
        "CONTAINER",
        "INTERFACE",
        "LINK",
        "AGE",
    ])];
    rows.extend(held.iter().map(|held| {
        vec![
            addresses(held),
            pod_name(held),
            short(&held.owner.container_id).into(),
            held.owner.interface.clone(),
            held.link.clone(),
            age(held.assigned_at),
        ]
    }));
    format!("{}\n{}", table(&pool_rows), table(&rows))
}

/// One line a difference.
pub(crate) fn checked(findings: &[Finding]) -> String {
    let line = |finding: &Finding| match finding {
        Finding::NoLink { held } => format!(
            "{} of {} ({}): link {} does not exist; if its container is gone: sluice ipam release {}\n",
            addresses(held),
            pod_name(held),
            held.owner.container_id,
            held.link,
            held.owner.container_id,
        ),
        Finding::NoAllocation { link } => format!("link {link}: no allocation belongs to it\n"),
        Finding::NoRoute { held, address } => {
            format!(
                "{address} of {} is not routed to link {}\n",
                pod_name(held),
                held.link
            )
        }
    };
    match findings {
        [] => "every allocation has its link and routes\n".into(),
        findings => findings.iter().map(line).collect(),
    }
}

/// One line an allocation.
pub(crate) fn freed(reply: &Reply) -> String {
    let Reply::Freed { gone } = reply else {
        return String::new();
    };
    let line = |held: &Held| {
        format!(
            "released {} of {}/{}\n",
            addresses(held),
            held.owner.container_id,
            held.owner.interface
        )
    };
    gone.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocator::{Allocation, Details, Owner};

    fn held() -> Held {
        let details = Details {
            pod_namespace: "default".into(),
            pod_name: "web".into(),
            ..Details::default()
        };
        let addresses = vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        Held::from(Allocation {
            owner: Owner::new("0123456789abcdef", "eth0"),
            details,
            addresses,
        })
    }

    #[test]
    fn pools_and_allocations_are_aligned() {
        let pools = vec![PoolUsage {
            cidr: "fd00::/64".parse().unwrap(),
            active: true,
            capacity: u64::MAX,
            used: 1,
            cooling: 0,
            free: u64::MAX - 1,
        }];
        let text = shown(&Reply::Shown {
            pools,
            held: vec![held()],
        });
        assert!(
            text.contains("fd00::/64  1     0        2^63  2^63      active"),
            "{text}"
        );
        assert!(
            text.contains("10.0.0.2,fd00::2  default/web  0123456789abc  eth0"),
            "{text}"
        );
    }

    #[test]
    fn findings_name_the_next_step() {
        let text = checked(&[Finding::NoLink { held: held() }]);
        assert!(
            text.contains("sluice ipam release 0123456789abcdef"),
            "{text}"
        );
        assert!(checked(&[]).contains("every allocation"));
    }
}
