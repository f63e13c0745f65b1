//! Every process is killed with SIGKILL under load, and started again by `sluice up`.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sluice_tests::cluster::{Cluster, NODES};
use sluice_tests::kubectl::{Kubectl, Version};
use sluice_tests::{poll, traffic};

use crate::FRONT_PODS;
use crate::network::{self, url};
use crate::services::{cluster_ips, ready_endpoints};

const NODE_PORT: u16 = 30080;

/// Load from a pod to a cluster IP and from outside to a node port, of both families.
struct Load(Vec<(&'static str, traffic::Background)>);

impl Load {
    fn start(cluster: &Cluster, kubectl: &Kubectl) -> Result<Self> {
        let ips = cluster_ips(kubectl, "front")?;
        let options = ["--concurrency", "4", "--pause-ms", "5"];
        let mut all = Vec::new();
        // From a node, since a stream through the API server would end with the process that is killed.
        for (what, ip) in [
            "node1 to the IPv4 cluster IP",
            "node1 to the IPv6 cluster IP",
        ]
        .into_iter()
        .zip(&ips)
        {
            all.push((
                what,
                traffic::Background::from_machine(cluster, "node1", &url(ip, 80), &options)?,
            ));
        }
        for (what, ip) in [
            ("outside to the IPv4 node port", "198.18.0.11"),
            ("outside to the IPv6 node port", "fd00:198:18::11"),
        ] {
            all.push((
                what,
                traffic::Background::from_machine(
                    cluster,
                    "client",
                    &url(ip, NODE_PORT),
                    &options,
                )?,
            ));
        }
        Ok(Self(all))
    }

    fn stop(self) -> Result<()> {
        for (what, load) in self.0 {
            load.stop()?.all_answered().context(what)?;
        }
        Ok(())
    }
}

/// Kills a part on every node in turn, heals, and expects that nobody noticed.
fn kill_everywhere(cluster: &Cluster, part: &str) -> Result<()> {
    let kubectl = cluster.kubectl(Version::Installed);
    let before = restarts(&kubectl)?;
    let load = Load::start(cluster, &kubectl)?;
    for node in NODES {
        kill_part(cluster, node, part)?;
    }
    // The dataplane is on its own for a moment.
    std::thread::sleep(Duration::from_millis(500));
    cluster.up()?;
    a_new_pod_works(&kubectl, part)?;
    load.stop()?;
    ensure!(restarts(&kubectl)? == before, "containers were restarted");
    Ok(())
}

fn kill_part(cluster: &Cluster, machine: &str, part: &str) -> Result<()> {
    let pid = Pid::from_raw(cluster.pid_of(machine, part)?);
    kill(pid, Signal::SIGKILL)?;
    poll::until("the process ends", Duration::from_secs(10), || {
        ensure!(cluster.pid_of(machine, part).is_err(), "{part} still runs");
        Ok(())
    })
}

/// Pods and their containers' restarts.
fn restarts(kubectl: &Kubectl) -> Result<String> {
    kubectl.run("get pods -l app=front --sort-by=.metadata.name -o custom-columns=N:.metadata.name,R:.status.containerStatuses[*].restartCount --no-headers")
}

/// What was healed is complete: a pod is made, reaches a Service, and is removed.
fn a_new_pod_works(kubectl: &Kubectl, part: &str) -> Result<()> {
    let name = format!("after-{part}");
    kubectl.apply(&format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}}}, spec: {{terminationGracePeriodSeconds: 1, \
         containers: [{{name: echo, image: 'sluice.local/echo:1', args: [serve, --drain-ms, '0']}}]}}}}"
    ))?;
    kubectl.run(&format!(
        "wait --for=condition=Ready pod/{name} --timeout=60s"
    ))?;
    for ip in cluster_ips(kubectl, "front")? {
        traffic::from_pod(kubectl, &name, &url(&ip, 80), 100)?.all_answered()?;
    }
    kubectl
        .run(&format!("delete pod {name} --wait --timeout=60s"))
        .map(drop)
}

pub fn the_proxy_is_killed_under_load(cluster: &Cluster) -> Result<()> {
    kill_everywhere(cluster, "proxy")
}

pub fn the_kubelet_is_killed_under_load(cluster: &Cluster) -> Result<()> {
    kill_everywhere(cluster, "kubelet")
}

pub fn the_address_daemon_is_killed_under_load(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl(Version::Installed);
    let addresses = |kubectl: &Kubectl| -> Result<Vec<String>> {
        let pods = network::pods(kubectl, "app=front")?;
        let mut all: Vec<String> = pods.into_iter().flat_map(|pod| pod.addresses).collect();
        all.sort();
        Ok(all)
    };
    let before = addresses(&kubectl)?;
    kill_everywhere(cluster, "ipam")?;
    let after = addresses(&kubectl)?;
    ensure!(
        before == after,
        "addresses changed from {before:?} to {after:?}"
    );
    Ok(())
}

pub fn containerd_is_killed_under_load(cluster: &Cluster) -> Result<()> {
    kill_everywhere(cluster, "containerd")
}

/// What kubectl reported as created is there afterwards, whatever the moment of the kill.
pub fn the_master_is_killed_while_it_is_written_to(cluster: &Cluster) -> Result<()> {
    let kubectl = cluster.kubectl(Version::Installed);
    let load = Load::start(cluster, &kubectl)?;
    let mut acknowledged = Vec::new();
    for round in 0..2 {
        let pid = Pid::from_raw(cluster.pid_of("master", "master")?);
        let killer = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(1200 + 170 * round));
            kill(pid, Signal::SIGKILL)
        });
        acknowledged.extend(write_until_refused(&kubectl, round));
        killer
            .join()
            .map_err(|_| anyhow::anyhow!("a worker panicked"))??;
        cluster.up()?;
    }
    ensure!(
        !acknowledged.is_empty(),
        "nothing was written before the kill"
    );
    let present = kubectl.run("get configmaps -o name")?;
    for name in &acknowledged {
        ensure!(
            present
                .lines()
                .any(|line| line == format!("configmap/{name}")),
            "{name} is lost"
        );
    }
    a_new_pod_works(&kubectl, "master")?;
    load.stop()?;
    let ready = ready_endpoints(&kubectl, "front")?;
    ensure!(ready == 2 * FRONT_PODS, "{ready} endpoints are ready");
    kubectl.run("delete configmaps -l test=kill").map(drop)
}

fn write_until_refused(kubectl: &Kubectl, round: u64) -> Vec<String> {
    let name = |number: u32| format!("kill-{round}-{number}");
    let manifest = |number: u32| {
        format!(
            "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: {}, labels: {{test: kill}}}}}}",
            name(number)
        )
    };
    let create = |number: &u32| {
        let output = kubectl.feed("create --validate=false -f -", &manifest(*number));
        output.is_ok_and(|output| output.status.success())
    };
    (0..1000).take_while(create).map(name).collect()
}
