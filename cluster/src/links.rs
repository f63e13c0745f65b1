//! The network between the machines: a bridge in the switch's namespace and a veth pair to each machine.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{InfoData, InfoVeth};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth};

use crate::layout::{Layout, MACHINE_PREFIXES, Machine};
use crate::{ethtool, netns};

/// The link of a machine inside its namespace.
pub const UPLINK: &str = "eth0";
const BRIDGE: &str = "br0";

/// Makes what is missing: namespaces, bridge, links, addresses, the programs on the bridge's ports.
pub fn ensure(layout: &Layout) -> Result<()> {
    let switch = netns::ensure(&layout.switch())?;
    netns::block_on_within(&switch, ensure_bridge)?;
    for machine in Machine::all() {
        let namespace = netns::ensure(&layout.namespace(machine))?;
        ensure_machine(layout, &switch, &namespace, machine)
            .with_context(|| format!("cannot connect {}", machine.name()))?;
    }
    Ok(())
}

fn ensure_machine(layout: &Layout, switch: &File, inside: &File, machine: Machine) -> Result<()> {
    let port = machine.name();
    let peer = inside.as_raw_fd();
    let pin = layout.pins().join("switch").join(&port);
    netns::block_on_within(switch, || ensure_port(port, peer, pin))?;
    netns::block_on_within(inside, || ensure_uplink(machine))
}

/// Takes a machine's cable out, or puts it back: its bridge port goes down or up.
pub fn set_cable(layout: &Layout, machine: Machine, connected: bool) -> Result<()> {
    let switch = netns::open(&layout.switch())?;
    netns::block_on_within(&switch, || async move {
        let port = if_nametoindex(machine.name().as_str())?;
        let link = LinkUnspec::new_with_index(port);
        let link = if connected { link.up() } else { link.down() };
        connect()?.link().set(link.build()).execute().await?;
        Ok(())
    })
}

async fn ensure_bridge() -> Result<()> {
    let handle = connect()?;
    set_up(&handle, "lo").await?;
    if if_nametoindex(BRIDGE).is_err() {
        handle
            .link()
            .add(LinkBridge::new(BRIDGE).build())
            .execute()
            .await
            .context("cannot create a bridge")?;
    }
    set_up(&handle, BRIDGE).await
}

async fn ensure_port(port: String, peer: RawFd, pin: std::path::PathBuf) -> Result<()> {
    let handle = connect()?;
    if if_nametoindex(port.as_str()).is_err() {
        add_pair(&handle, &port, peer).await?;
    }
    let bridge = if_nametoindex(BRIDGE)?;
    let link = LinkUnspec::new_with_index(if_nametoindex(port.as_str())?)
        .controller(bridge)
        .up();
    handle.link().set(link.build()).execute().await?;
    pass_all(&port, &pin)
}

async fn add_pair(handle: &Handle, port: &str, peer: RawFd) -> Result<()> {
    let inside = LinkUnspec::new_with_name(UPLINK).setns_by_fd(peer).build();
    let pair = LinkVeth::new(port, UPLINK)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(inside)))
        .build();
    let added = handle.link().add(pair).execute().await;
    added.context("cannot create a veth pair")
}

/// XDP_TX and redirects out of a veth reach its peer only when the peer runs a program, too.
fn pass_all(port: &str, pin: &Path) -> Result<()> {
    sluice_proxy::loader::attach_pass_all(port, pin).context("cannot attach an XDP program")
}

async fn ensure_uplink(machine: Machine) -> Result<()> {
    let handle = connect()?;
    // The addresses are ours by construction; waiting for duplicates to show up would only delay.
    std::fs::write(format!("/proc/sys/net/ipv6/conf/{UPLINK}/accept_dad"), "0")?;
    set_up(&handle, "lo").await?;
    set_up(&handle, UPLINK).await?;
    let index = if_nametoindex(UPLINK)?;
    let (v4, v6) = MACHINE_PREFIXES;
    ensure_address(&handle, index, machine.v4().into(), v4).await?;
    ensure_address(&handle, index, machine.v6().into(), v6).await?;
    ethtool::disable_tx_checksum(UPLINK).context("cannot switch checksum offload off")
}

async fn ensure_address(handle: &Handle, index: u32, address: IpAddr, prefix: u8) -> Result<()> {
    let mut request = handle.address().add(index, address, prefix);
    if address.is_ipv6() {
        let no_detection = AddressAttribute::Flags(AddressFlags::Nodad);
        request.message_mut().attributes.push(no_detection);
    }
    match request.execute().await {
        Err(error) if code(&error) == Some(Errno::EEXIST) => Ok(()),
        other => other.with_context(|| format!("cannot add address {address}")),
    }
}

async fn set_up(handle: &Handle, name: &str) -> Result<()> {
    let index = if_nametoindex(name)?;
    let link = LinkUnspec::new_with_index(index).up();
    handle.link().set(link.build()).execute().await?;
    Ok(())
}

fn connect() -> Result<Handle> {
    let (connection, handle, _) = rtnetlink::new_connection()?;
    tokio::spawn(connection);
    Ok(handle)
}

fn code(error: &rtnetlink::Error) -> Option<Errno> {
    match error {
        rtnetlink::Error::NetlinkError(message) => Some(Errno::from_raw(-message.raw_code())),
        _ => None,
    }
}

/// Whether the kernel has what [`ensure`] needs; called in a namespace that is thrown away.
pub fn probe() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        ensure_bridge().await?;
        let pair = LinkVeth::new("probe0", "probe1").build();
        let added = connect()?.link().add(pair).execute().await;
        added.context("cannot create a veth pair")
    })
}
