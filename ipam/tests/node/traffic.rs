//! Pods talk to each other: same node, other nodes, TCP and UDP, both families.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::api::FakeApi;
use super::support::{Namespace, Node, Pod, Switch, add_address, eventually, node_object};

const TIMEOUT: Duration = Duration::from_secs(5);

/// An echo server in a pod, for as many exchanges as are asked for.
pub struct Echo {
    tcp: TcpListener,
    udp: UdpSocket,
}

impl Echo {
    pub fn listen(pod: &Namespace, address: IpAddr) -> Self {
        pod.run(|| Self {
            tcp: TcpListener::bind((address, 0)).unwrap(),
            udp: UdpSocket::bind((address, 0)).unwrap(),
        })
    }

    pub fn serve_tcp(&self) -> SocketAddr {
        let (mut stream, peer) = self.tcp.accept().unwrap();
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).unwrap();
        stream.write_all(&bytes).unwrap();
        peer
    }

    pub fn serve_udp(&self) {
        self.udp.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut bytes = [0; 16];
        let (length, peer) = self.udp.recv_from(&mut bytes).unwrap();
        self.udp.send_to(&bytes[..length], peer).unwrap();
    }
}

pub fn tcp(from: &Namespace, to: SocketAddr) -> std::io::Result<()> {
    from.run(|| {
        let mut stream = TcpStream::connect_timeout(&to, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.write_all(b"ping")?;
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes)?;
        assert_eq!(&bytes, b"ping");
        Ok(())
    })
}

fn udp(from: &Namespace, own: IpAddr, to: SocketAddr) -> std::io::Result<()> {
    from.run(|| {
        let socket = UdpSocket::bind((own, 0))?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.connect(to)?;
        socket.send(b"ping")?;
        let mut bytes = [0; 16];
        assert_eq!(socket.recv(&mut bytes)?, 4);
        Ok(())
    })
}

/// One exchange of each kind; the server must see the client's own address.
fn exchange(client: (&Namespace, &Pod), server: (&Namespace, &Pod)) {
    for (own, address) in client.1.addresses.iter().zip(&server.1.addresses) {
        let echo = Echo::listen(server.0, *address);
        let (to_tcp, to_udp) = (
            echo.tcp.local_addr().unwrap(),
            echo.udp.local_addr().unwrap(),
        );
        std::thread::scope(|scope| {
            let serve = scope.spawn(|| echo.serve_tcp());
            tcp(client.0, to_tcp).unwrap_or_else(|error| panic!("TCP {own} -> {to_tcp}: {error}"));
            assert_eq!(
                serve.join().unwrap().ip(),
                *own,
                "the source was changed on the way"
            );
            let serve = scope.spawn(|| echo.serve_udp());
            udp(client.0, *own, to_udp)
                .unwrap_or_else(|error| panic!("UDP {own} -> {to_udp}: {error}"));
            serve.join().unwrap();
        });
    }
}

#[test]
fn pods_reach_each_other_on_the_same_and_on_other_nodes_in_both_families() {
    let api = FakeApi::new(&[1, 2, 3].map(node_object));
    let switch = Switch::new();
    let nodes = [1, 2, 3].map(|number| Node::joined(&switch, number, &api));
    let spaces: Vec<Namespace> = (0..4).map(|_| Namespace::new()).collect();
    // The first node has two pods.
    let placed: Vec<(&Namespace, Pod)> = spaces
        .iter()
        .zip([0, 0, 1, 2])
        .enumerate()
        .map(|(at, (space, node))| (space, nodes[node].add(&format!("pod{at}"), space)))
        .collect();
    for node in &nodes {
        eventually("routes to both peers in both families", || {
            node.namespace.run(gateway_routes) == 4
        });
    }
    for (at, client) in placed.iter().enumerate() {
        for (other, server) in placed.iter().enumerate() {
            if at != other {
                exchange((client.0, &client.1), (server.0, &server.1));
            }
        }
    }
    for node in &nodes {
        let name = format!("node{}", node.number);
        let conditions = api.conditions(&name);
        assert!(
            conditions
                .iter()
                .any(|c| c["type"] == "NetworkUnavailable" && c["status"] == "False"),
            "{conditions:?}"
        );
    }
}

pub fn gateway_routes() -> usize {
    super::repair::our_routes()
        .into_iter()
        .filter(|route| route.contains(" via "))
        .count()
}

#[test]
fn the_node_reaches_its_pods_and_pods_reach_the_node() {
    let node = Node::alone();
    let space = Namespace::new();
    let pod = node.add("pod", &space);
    let echo = Echo::listen(&space, pod.addresses[0]);
    std::thread::scope(|scope| {
        scope.spawn(|| echo.serve_tcp());
        tcp(&node.namespace, echo.tcp.local_addr().unwrap()).unwrap();
    });
    let echo = Echo::listen(&node.namespace, "198.18.0.1".parse().unwrap());
    std::thread::scope(|scope| {
        scope.spawn(|| echo.serve_tcp());
        tcp(&space, echo.tcp.local_addr().unwrap()).unwrap();
    });
}

#[test]
fn an_address_without_a_pod_fails_at_once() {
    let node = Node::alone();
    let space = Namespace::new();
    node.add("pod", &space);
    for address in ["[fd88:0:0:1::77]:80", "10.88.1.77:80"] {
        eventually("the pool's unreachable route is set", || {
            let error = tcp(&space, address.parse().unwrap()).unwrap_err();
            matches!(
                error.raw_os_error(),
                Some(libc::EHOSTUNREACH | libc::ENETUNREACH)
            )
        });
    }
}

#[test]
fn a_pod_cannot_send_from_an_address_that_is_not_its_own() {
    let node = Node::alone();
    let (honest, liar) = (Namespace::new(), Namespace::new());
    let target = node.add("honest", &honest);
    node.add("liar", &liar);
    let receiver = honest.run(|| UdpSocket::bind((target.addresses[0], 0)).unwrap());
    receiver.set_read_timeout(Some(TIMEOUT)).unwrap();
    let to = receiver.local_addr().unwrap();
    liar.run(|| {
        add_address("eth0", "203.0.113.9".parse().unwrap(), 32);
        let forged = UdpSocket::bind("203.0.113.9:0").unwrap();
        forged.send_to(b"forged", to).unwrap();
        let own = UdpSocket::bind("0.0.0.0:0").unwrap();
        own.send_to(b"honest", to).unwrap();
    });
    let mut bytes = [0; 16];
    let length = receiver.recv(&mut bytes).unwrap();
    assert_eq!(
        &bytes[..length],
        b"honest",
        "the forged datagram, which was sent first, arrived"
    );
}

#[test]
fn nodes_with_one_family_or_several_pools_work() {
    for pools in [
        vec!["10.88.1.0/31", "10.88.7.0/24"],
        vec!["fd88:0:0:1::/64"],
    ] {
        let pools: Vec<String> = pools.into_iter().map(String::from).collect();
        let node = Node::with_pools(&pools);
        let spaces: Vec<Namespace> = (0..4).map(|_| Namespace::new()).collect();
        let add = |(at, space)| node.add(&format!("pod{at}"), space);
        let pods: Vec<Pod> = spaces.iter().enumerate().map(add).collect();
        exchange((&spaces[0], &pods[0]), (&spaces[3], &pods[3]));
        assert!(pods.iter().all(|pod| pod.addresses.len() == 1));
    }
}
