//! What kubectl shows: tables, objects, descriptions, watches, discovery, explanations.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_tests::cluster::Cluster;
use sluice_tests::kubectl::{Kubectl, Version};

pub fn installed(cluster: &Cluster) -> Result<()> {
    all(&cluster.kubectl(Version::Installed), "watched-installed")
}

pub fn newest(cluster: &Cluster) -> Result<()> {
    all(&cluster.kubectl(Version::Newest), "watched-newest")
}

fn all(kubectl: &Kubectl, watched: &str) -> Result<()> {
    tables(kubectl)?;
    objects(kubectl)?;
    descriptions(kubectl)?;
    watch(kubectl, watched)?;
    discovery(kubectl)?;
    explanations(kubectl)
}

/// Fails unless the output of the command contains every one of the texts.
fn shows(kubectl: &Kubectl, words: &str, texts: &[&str]) -> Result<()> {
    let output = kubectl.run(words)?;
    for text in texts {
        ensure!(
            output.contains(text),
            "kubectl {words} does not show {text:?}:\n{output}"
        );
    }
    Ok(())
}

fn tables(kubectl: &Kubectl) -> Result<()> {
    shows(
        kubectl,
        "get nodes -o wide",
        &[
            "NAME",
            "STATUS",
            "INTERNAL-IP",
            "CONTAINER-RUNTIME",
            "node1",
            "Ready",
            "198.18.0.11",
            "containerd://",
        ],
    )?;
    shows(
        kubectl,
        "get pods -o wide",
        &["READY", "RESTARTS", "NODE", "1/1", "Running", "10.244."],
    )?;
    shows(kubectl, "get pods -A", &["NAMESPACE", "default"])?;
    shows(
        kubectl,
        "get services",
        &[
            "TYPE",
            "CLUSTER-IP",
            "PORT(S)",
            "NodePort",
            "80:30080/TCP",
            "80/TCP,7/UDP",
        ],
    )?;
    shows(
        kubectl,
        "get deployments",
        &["READY", "UP-TO-DATE", "AVAILABLE", "6/6"],
    )?;
    shows(kubectl, "get replicasets", &["DESIRED", "CURRENT", "READY"])?;
    shows(
        kubectl,
        "get endpointslices",
        &["ADDRESSTYPE", "IPv4", "IPv6"],
    )?;
    shows(kubectl, "get endpoints front", &["ENDPOINTS", ":8080"])?;
    shows(
        kubectl,
        "get namespaces",
        &["default", "kube-system", "Active"],
    )?;
    shows(
        kubectl,
        "get configmaps,secrets,serviceaccounts",
        &["configmap/echo", "serviceaccount/default"],
    )?;
    shows(
        kubectl,
        "get leases -n kube-node-lease",
        &["HOLDER", "node1"],
    )?;
    shows(kubectl, "get events", &["REASON", "Started"])?;
    shows(
        kubectl,
        "get pods -l app=front --show-labels",
        &["app=front"],
    )?;
    shows(
        kubectl,
        "get pods --field-selector spec.nodeName=node1 -o name",
        &["pod/"],
    )
}

fn objects(kubectl: &Kubectl) -> Result<()> {
    shows(
        kubectl,
        "get service front -o yaml",
        &[
            "kind: Service",
            "ipFamilyPolicy: RequireDualStack",
            "clusterIPs:",
        ],
    )?;
    let service = kubectl.json("get service front")?;
    ensure!(
        service["spec"]["clusterIPs"].as_array().map_or(0, Vec::len) == 2,
        "{service}"
    );
    shows(kubectl, "get pods -o name", &["pod/client"])?;
    shows(
        kubectl,
        "get service front -o jsonpath={.spec.type}",
        &["ClusterIP"],
    )?;
    shows(
        kubectl,
        "get pods -o custom-columns=N:.metadata.name,H:.spec.nodeName",
        &["client", "node"],
    )
}

fn descriptions(kubectl: &Kubectl) -> Result<()> {
    shows(
        kubectl,
        "describe pod client",
        &[
            "Node:",
            "Status:",
            "Running",
            "IPs:",
            "sluice.local/echo:1",
            "Conditions:",
            "Events:",
            "Scheduled",
        ],
    )?;
    shows(
        kubectl,
        "describe service front",
        &["Endpoints:", "IP Families:", "IPv4,IPv6", ":8080"],
    )?;
    shows(
        kubectl,
        "describe node node1",
        &[
            "Addresses:",
            "Capacity:",
            "Conditions:",
            "PodCIDRs:",
            "Non-terminated Pods:",
        ],
    )?;
    shows(
        kubectl,
        "describe deployment front",
        &["6 desired", "RollingUpdate", "NewReplicaSet:"],
    )?;
    shows(kubectl, "describe configmap echo", &["motd"])
}

/// `get -w` shows an object that is made after it began.
fn watch(kubectl: &Kubectl, name: &str) -> Result<()> {
    let mut child = kubectl
        .command("get configmaps -o name -w")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = child.stdout.take().context("no standard output")?;
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .for_each(|line| drop(sender.send(line)));
    });
    let seen = (|| {
        wait_for(&receiver, "configmap/echo")?;
        kubectl.run(&format!("create configmap {name} --from-literal=a=b"))?;
        wait_for(&receiver, &format!("configmap/{name}"))
    })();
    child.kill()?;
    child.wait()?;
    kubectl.run(&format!("delete configmap {name}"))?;
    seen
}

fn wait_for(lines: &mpsc::Receiver<String>, wanted: &str) -> Result<()> {
    loop {
        let line = lines.recv_timeout(Duration::from_secs(20));
        if line.with_context(|| format!("the watch never showed {wanted}"))? == wanted {
            return Ok(());
        }
    }
}

fn discovery(kubectl: &Kubectl) -> Result<()> {
    shows(
        kubectl,
        "api-resources",
        &[
            "deployments",
            "deploy",
            "apps/v1",
            "EndpointSlice",
            "leases",
        ],
    )?;
    shows(
        kubectl,
        "api-resources --namespaced=false",
        &["nodes", "namespaces"],
    )?;
    shows(
        kubectl,
        "api-versions",
        &["apps/v1", "v1", "discovery.k8s.io/v1"],
    )?;
    shows(kubectl, "version", &["Server Version"])?;
    shows(kubectl, "cluster-info", &["127.0.0.1"])
}

fn explanations(kubectl: &Kubectl) -> Result<()> {
    shows(kubectl, "explain pod", &["KIND:", "Pod", "spec", "status"])?;
    shows(
        kubectl,
        "explain deployment.spec.strategy",
        &["rollingUpdate"],
    )?;
    shows(
        kubectl,
        "explain service.spec --recursive",
        &["ipFamilyPolicy", "nodePort"],
    )
}
