//! Rule sets in the shapes that kube-proxy writes, for the same Services.
//!
//! nftables mode: a verdict map from address, protocol and port to a chain per Service, which draws an
//! endpoint's chain with `numgen random`. iptables mode: KUBE-SERVICES with a rule per Service, KUBE-SVC-*
//! that draws with `statistic`, KUBE-SEP-* that translates. Marks, masquerade and the filter chains are there
//! because every packet passes them too.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::Result;

use crate::machine::Machine;
use crate::tables::Entry;

/// Pods have these addresses: everybody else is masqueraded on the way to a Service.
const PODS: &str = "10.244.0.0/16";

/// Loads the nftables shape into a namespace.
pub fn load_nftables(machine: &Machine, entries: &[Entry]) -> Result<()> {
    machine.command("nft", "-f -", Some(&nftables(entries)))?;
    conntrack_timeouts(machine)
}

/// Loads the iptables shape into a namespace.
pub fn load_iptables(machine: &Machine, entries: &[Entry]) -> Result<()> {
    machine.command(
        "iptables-legacy-restore",
        "--wait 10",
        Some(&iptables(entries)),
    )?;
    conntrack_timeouts(machine)
}

/// Else a short connection's entry stands in the way of the next one from its port.
fn conntrack_timeouts(machine: &Machine) -> Result<()> {
    for state in ["time_wait", "close", "close_wait", "last_ack", "fin_wait"] {
        let name = format!("netfilter/nf_conntrack_tcp_timeout_{state}");
        machine.sysctl(&name, "1")?;
    }
    Ok(())
}

const NFT_HEAD: &str = "
add table ip kube-proxy
table ip kube-proxy {
  chain mark-for-masquerade { meta mark set meta mark or 0x4000; }
  chain masquerading {
    meta mark and 0x4000 == 0 return
    meta mark set meta mark xor 0x4000
    masquerade fully-random
  }
  map no-endpoint-services { type ipv4_addr . inet_proto . inet_service : verdict; }
  map no-endpoint-nodeports { type inet_proto . inet_service : verdict; }
  map firewall-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  set cluster-ips { type ipv4_addr; }
  set nodeport-ips { type ipv4_addr; elements = { 198.18.0.11 } }
  map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; }
  map service-nodeports { type inet_proto . inet_service : verdict; }
  chain service-endpoints-check {
    ip daddr . meta l4proto . th dport vmap @no-endpoint-services
    ip daddr @nodeport-ips meta l4proto . th dport vmap @no-endpoint-nodeports
  }
  chain firewall-check { ip daddr . meta l4proto . th dport vmap @firewall-ips; }
  chain cluster-ips-check { ip daddr @cluster-ips reject; }
  chain services {
    ip daddr . meta l4proto . th dport vmap @service-ips
    ip daddr @nodeport-ips meta l4proto . th dport vmap @service-nodeports
  }
  chain filter-prerouting {
    type filter hook prerouting priority -110;
    ct state new jump firewall-check
  }
  chain filter-input {
    type filter hook input priority -110;
    ct state new jump service-endpoints-check
  }
  chain filter-forward {
    type filter hook forward priority -110;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }
  chain filter-output {
    type filter hook output priority -110;
    ct state new jump service-endpoints-check
    ct state new jump firewall-check
  }
  chain nat-prerouting { type nat hook prerouting priority -100; jump services; }
  chain nat-output { type nat hook output priority -100; jump services; }
  chain nat-postrouting { type nat hook postrouting priority 100; jump masquerading; }
}
";

fn nftables(entries: &[Entry]) -> String {
    let mut text = NFT_HEAD.to_owned();
    text += "table ip kube-proxy {\n";
    for (i, entry) in entries.iter().enumerate() {
        nft_service(&mut text, i, entry);
    }
    text += "}\n";
    nft_elements(&mut text, entries);
    text
}

fn nft_service(text: &mut String, i: usize, entry: &Entry) {
    let (ip, port, target) = (entry.cluster_ip, entry.port, entry.target_port);
    for (k, endpoint) in entry.endpoints.iter().enumerate() {
        let _ = writeln!(
            text,
            "chain endpoint-{i}-{k} {{ ip saddr {endpoint} jump mark-for-masquerade; \
             meta l4proto tcp dnat to {endpoint}:{target}; }}"
        );
    }
    let draws: Vec<_> = (0..entry.endpoints.len())
        .map(|k| format!("{k} : goto endpoint-{i}-{k}"))
        .collect();
    let _ = writeln!(
        text,
        "chain service-{i} {{ ip daddr {ip} tcp dport {port} ip saddr != {PODS} jump mark-for-masquerade; \
         numgen random mod {} vmap {{ {} }}; }}",
        draws.len(),
        draws.join(", ")
    );
    if entry.node_port.is_some() {
        let _ = writeln!(
            text,
            "chain external-{i} {{ jump mark-for-masquerade; goto service-{i}; }}"
        );
    }
}

fn nft_elements(text: &mut String, entries: &[Entry]) {
    let list = |each: &dyn Fn(usize, &Entry) -> Option<String>| {
        let all = entries.iter().enumerate();
        all.filter_map(|(i, entry)| each(i, entry))
            .collect::<Vec<_>>()
            .join(",\n")
    };
    let ips = list(&|i, e| {
        Some(format!(
            "{} . tcp . {} : goto service-{i}",
            e.cluster_ip, e.port
        ))
    });
    let addresses = list(&|_, e| Some(e.cluster_ip.to_string()));
    let ports = list(&|i, e| Some(format!("tcp . {} : goto external-{i}", e.node_port?)));
    for (name, elements) in [
        ("service-ips", ips),
        ("cluster-ips", addresses),
        ("service-nodeports", ports),
    ] {
        if !elements.is_empty() {
            let _ = writeln!(text, "add element ip kube-proxy {name} {{ {elements} }}");
        }
    }
}

const IPTABLES_HEAD: &str = "*filter
:INPUT ACCEPT
:FORWARD ACCEPT
:OUTPUT ACCEPT
:KUBE-EXTERNAL-SERVICES -
:KUBE-FORWARD -
:KUBE-SERVICES -
:KUBE-PROXY-FIREWALL -
-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A FORWARD -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT
:INPUT ACCEPT
:OUTPUT ACCEPT
:POSTROUTING ACCEPT
:KUBE-MARK-MASQ -
:KUBE-NODEPORTS -
:KUBE-POSTROUTING -
:KUBE-SERVICES -
";

const IPTABLES_JUMPS: &str = "-A PREROUTING -j KUBE-SERVICES
-A OUTPUT -j KUBE-SERVICES
-A POSTROUTING -j KUBE-POSTROUTING
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
";

fn iptables(entries: &[Entry]) -> String {
    let mut text = IPTABLES_HEAD.to_owned();
    for (i, entry) in entries.iter().enumerate() {
        let _ = writeln!(text, ":KUBE-SVC-{i:016} -\n:KUBE-EXT-{i:016} -");
        for k in 0..entry.endpoints.len() {
            let _ = writeln!(text, ":KUBE-SEP-{i:08}{k:08} -");
        }
    }
    text += IPTABLES_JUMPS;
    for (i, entry) in entries.iter().enumerate() {
        iptables_service(&mut text, i, entry);
    }
    text += "-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\nCOMMIT\n";
    text
}

fn iptables_service(text: &mut String, i: usize, entry: &Entry) {
    let (ip, port) = (entry.cluster_ip, entry.port);
    let count = entry.endpoints.len();
    let _ = writeln!(
        text,
        "-A KUBE-SERVICES -d {ip}/32 -p tcp -m tcp --dport {port} -j KUBE-SVC-{i:016}\n\
         -A KUBE-SVC-{i:016} ! -s {PODS} -d {ip}/32 -p tcp -m tcp --dport {port} -j KUBE-MARK-MASQ"
    );
    if let Some(node_port) = entry.node_port {
        let _ = writeln!(
            text,
            "-A KUBE-NODEPORTS -p tcp -m tcp --dport {node_port} -j KUBE-EXT-{i:016}\n\
             -A KUBE-EXT-{i:016} -j KUBE-MARK-MASQ\n\
             -A KUBE-EXT-{i:016} -j KUBE-SVC-{i:016}"
        );
    }
    for (k, endpoint) in entry.endpoints.iter().enumerate() {
        let draw = match count - k {
            1 => String::new(),
            left => format!(
                " -m statistic --mode random --probability {:.11}",
                1.0 / left as f64
            ),
        };
        let _ = writeln!(text, "-A KUBE-SVC-{i:016}{draw} -j KUBE-SEP-{i:08}{k:08}");
        iptables_endpoint(text, &format!("KUBE-SEP-{i:08}{k:08}"), *endpoint, entry);
    }
}

fn iptables_endpoint(text: &mut String, chain: &str, endpoint: IpAddr, entry: &Entry) {
    let _ = writeln!(
        text,
        "-A {chain} -s {endpoint}/32 -j KUBE-MARK-MASQ\n\
         -A {chain} -p tcp -m tcp -j DNAT --to-destination {endpoint}:{}",
        entry.target_port
    );
}
