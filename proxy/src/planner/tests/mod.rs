//! The planner's behaviour: tables of cases for the rules, golden dumps, properties.

mod bad_objects;
mod claims;
mod golden;
mod properties;
mod routing;

use serde_json::Value;

use super::dump::dump;
use super::{ObjectName, Planner, ServicePlan};
use crate::testing::{Event, happen, planner};

/// Plans of all Services after these objects were added in this order.
fn plan_all<'a>(objects: impl IntoIterator<Item = &'a Value>) -> Vec<ServicePlan> {
    let mut planner = planner();
    for object in objects {
        happen(&mut planner, &Event::Set(object.clone()));
    }
    all_plans(&planner)
}

fn all_plans(planner: &Planner) -> Vec<ServicePlan> {
    planner
        .service_names()
        .iter()
        .map(|name| planner.plan(name))
        .collect()
}

fn plan_of(objects: &[Value], service: &str) -> ServicePlan {
    let mut planner = planner();
    for object in objects {
        happen(&mut planner, &Event::Set(object.clone()));
    }
    planner.plan(&ObjectName::new("default", service))
}

fn dump_of(objects: &[Value]) -> String {
    dump(&plan_all(objects))
}
