//! A plan as sorted text, for golden tests and for people.

use std::fmt::Write;

use super::{PlannedBackend, PlannedFrontend, PortPlan, ServicePlan};

/// Plans as text, sorted by Service: equal plans give equal text, and a difference reads well.
pub fn dump<'a>(plans: impl IntoIterator<Item = &'a ServicePlan>) -> String {
    let mut plans: Vec<_> = plans.into_iter().collect();
    plans.sort_unstable_by(|a, b| a.service.cmp(&b.service));
    let mut text = String::new();
    for plan in plans {
        service(&mut text, plan);
    }
    text
}

fn service(text: &mut String, plan: &ServicePlan) {
    for port in &plan.ports {
        self::port(text, port);
    }
    for addr in &plan.addresses {
        line(text, format_args!("{} address {addr}", plan.service));
    }
    if let Some(check) = plan.health_check {
        line(
            text,
            format_args!(
                "{} health {} local={}",
                plan.service, check.port, check.local_endpoints
            ),
        );
    }
    for problem in &plan.problems {
        line(text, format_args!("problem {problem}"));
    }
}

fn port(text: &mut String, plan: &PortPlan) {
    let mut head = plan.id.to_string();
    if let Some(affinity) = plan.affinity {
        let _ = write!(head, " affinity={}s", affinity.as_secs());
    }
    for (set, word) in [
        (plan.internal_drop, " internal-drop"),
        (plan.external_drop, " external-drop"),
        (plan.external_local, " external-local"),
    ] {
        head.push_str(if set { word } else { "" });
    }
    for range in &plan.source_ranges {
        let _ = write!(head, " from={range}");
    }
    line(text, format_args!("{head}"));
    plan.frontends
        .iter()
        .for_each(|frontend| self::frontend(text, frontend));
    plan.backends
        .iter()
        .for_each(|backend| self::backend(text, backend));
}

fn frontend(text: &mut String, frontend: &PlannedFrontend) {
    let ranges = if frontend.source_ranges {
        " source-ranges"
    } else {
        ""
    };
    line(
        text,
        format_args!("  {} {:?}{ranges}", frontend.key, frontend.kind),
    );
}

fn backend(text: &mut String, backend: &PlannedBackend) {
    let mut words = String::new();
    for (set, word) in [
        (backend.local, " local"),
        (backend.internal, " internal"),
        (backend.external, " external"),
    ] {
        words.push_str(if set { word } else { "" });
    }
    let addr = std::net::SocketAddr::new(backend.addr, backend.port);
    line(text, format_args!("  -> {addr}{words}"));
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{arguments}");
}
