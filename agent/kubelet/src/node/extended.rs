//! Extended resources in the node's status: those of device plugins, and those that somebody else has written there. Pure.
//!
//! Answers to <https://kubernetes.io/docs/tasks/administer-cluster/extended-resource-node/>.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::NodeStatus, apimachinery::pkg::api::resource::Quantity};

use crate::device::{Totals, is_extended};

/// Amounts by resource.
type Quantities = BTreeMap<String, Quantity>;

/// Adds to the node's own capacity and allocatable amounts those of extended resources. What this kubelet knows nothing of stays, and all of
/// it can be allocated; a kubelet that knows nothing of earlier devices takes it for devices that are gone.
pub(super) fn add(totals: &Totals, before: Option<&NodeStatus>, capacity: &mut Quantities, allocatable: &mut Quantities) {
    let known = before.and_then(|status| status.capacity.as_ref()).into_iter().flatten();
    for (name, quantity) in known.filter(|(name, _)| is_extended(name)) {
        let stays = if totals.is_new { Quantity("0".into()) } else { quantity.clone() };
        capacity.insert(name.clone(), stays.clone());
        allocatable.insert(name.clone(), stays);
    }
    for (name, amounts) in &totals.by_resource {
        capacity.insert(name.clone(), Quantity(amounts.capacity.to_string()));
        allocatable.insert(name.clone(), Quantity(amounts.allocatable.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::device::Amounts;

    fn added(totals: &Totals, before: Value) -> Value {
        let before: NodeStatus = serde_json::from_value(json!({ "capacity": before })).unwrap();
        let own: Quantities = [("cpu".to_owned(), Quantity("4".into()))].into();
        let (mut capacity, mut allocatable) = (own.clone(), own);
        add(totals, Some(&before), &mut capacity, &mut allocatable);
        json!([capacity, allocatable])
    }

    #[test]
    fn plugins_decide_of_theirs_and_others_of_the_rest() {
        let by_resource = [("example.com/gpu".to_owned(), Amounts { capacity: 3, allocatable: 2 })].into();
        let mut totals = Totals { by_resource, is_new: false };
        let before = json!({"cpu": "8", "hugepages-2Mi": "0", "example.com/gpu": "9", "example.com/dongle": "4"});
        let expected = json!([{"cpu": "4", "example.com/gpu": "3", "example.com/dongle": "4"},
            {"cpu": "4", "example.com/gpu": "2", "example.com/dongle": "4"}]);
        assert_eq!(added(&totals, before.clone()), expected);
        totals.is_new = true;
        let expected = json!([{"cpu": "4", "example.com/gpu": "3", "example.com/dongle": "0"},
            {"cpu": "4", "example.com/gpu": "2", "example.com/dongle": "0"}]);
        assert_eq!(added(&totals, before), expected);
    }
}
