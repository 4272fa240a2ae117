//! Which volume fits a claim.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use trireme_api::quantity::Quantity;

use super::{class_of_claim, class_of_volume, is_meant_for, is_usable_on, volume_phase};
use crate::{Object, labels};

const STORAGE: &str = "storage";

/// Where the volume will be used, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// Anywhere: the claim does not wait for a pod.
    Anywhere,
    /// Not known yet: the scheduler will choose. Until then only a volume that names the claim will do.
    Open,
    /// On this node.
    Node(&'a Node),
}

/// The volume for a claim: the one that names it, else of the available ones that fit the one with the fewest access modes too many
/// (where the claim does not wait for a pod), then the smallest.
pub fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'a Arc<PersistentVolume>>,
    place: Place<'_>,
    is_taken: impl Fn(&PersistentVolume) -> bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let wanted = request(claim);
    let mut chosen: Option<(Rank<'a>, &'a Arc<PersistentVolume>)> = None;
    for volume in volumes {
        let spec = volume.spec.as_ref();
        let named = is_meant_for(volume, claim);
        let reserved = spec.is_some_and(|spec| spec.claim_ref.is_some());
        if is_taken(volume) || (reserved && !named) || volume.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let Some(size) = capacity(volume).filter(|size| *size >= wanted) else { continue };
        if !is_same_kind(volume, claim) {
            continue;
        }
        let reachable = match place {
            Place::Node(node) => is_usable_on(volume, node),
            Place::Anywhere | Place::Open => true,
        };
        if named {
            return reachable.then_some(volume);
        }
        let fits = volume_phase(volume) == "Available"
            && class_of_volume(volume) == class_of_claim(claim)
            && selects(claim, volume)
            && offers_modes(volume, claim);
        if matches!(place, Place::Open) || !reachable || !fits {
            continue;
        }
        let modes = if matches!(place, Place::Anywhere) { modes(volume).len() } else { 0 };
        let rank = (modes, size, volume.name());
        if chosen.as_ref().is_none_or(|(known, _)| rank < *known) {
            chosen = Some((rank, volume));
        }
    }
    chosen.map(|(_, volume)| volume)
}

/// The lowest is the best: access modes, size, name.
type Rank<'a> = (usize, Quantity, &'a str);

/// Why a claim that names a volume cannot have it, in upstream's words.
#[must_use]
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    if volume.metadata.deletion_timestamp.is_some() {
        return Some(format!("the volume is marked for deletion {:?}", volume.name()));
    }
    let reason = if capacity(volume).is_none_or(|size| size < request(claim)) {
        "requested PV is too small"
    } else if class_of_volume(volume) != class_of_claim(claim) {
        "storageClassName does not match"
    } else if mode_of_volume(volume) != mode_of_claim(claim) {
        "incompatible volumeMode"
    } else if attributes_of_volume(volume) != attributes_of_claim(claim) {
        "volumeAttributesClassName does not match"
    } else if !offers_modes(volume, claim) {
        "incompatible accessMode"
    } else {
        return None;
    };
    Some(reason.to_owned())
}

/// How much a claim asks for.
#[must_use]
pub fn request(claim: &PersistentVolumeClaim) -> Quantity {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()).and_then(|resources| resources.requests.as_ref());
    requests.and_then(|requests| parse(requests.get(STORAGE))).unwrap_or_else(Quantity::zero)
}

fn capacity(volume: &PersistentVolume) -> Option<Quantity> {
    parse(volume.spec.as_ref()?.capacity.as_ref()?.get(STORAGE))
}

fn parse(text: Option<&Text>) -> Option<Quantity> {
    text?.0.parse().ok()
}

/// Whether both are file systems, or both devices, with the same attributes.
fn is_same_kind(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    mode_of_volume(volume) == mode_of_claim(claim) && attributes_of_volume(volume) == attributes_of_claim(claim)
}

fn mode_of_volume(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
}

fn mode_of_claim(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref()).unwrap_or("Filesystem")
}

fn attributes_of_volume(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref()).unwrap_or_default()
}

fn attributes_of_claim(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref()).unwrap_or_default()
}

fn modes(volume: &PersistentVolume) -> &[String] {
    volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default()
}

fn offers_modes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    wanted.iter().all(|mode| modes(volume).contains(mode))
}

fn selects(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_none_or(|selector| labels::matches(selector, volume.metadata.labels.as_ref()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};
    use serde_json::{Value, json};

    use super::*;

    fn claim(spec: Value) -> PersistentVolumeClaim {
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"}, "spec": spec})).unwrap()
    }

    /// A volume and a claim of few values, so that they fit often.
    fn some_volume(rng: &mut StdRng, nth: usize) -> Value {
        let pick = |rng: &mut StdRng, of: &[Value]| of[rng.random_range(0..of.len())].clone();
        let size = pick(rng, &[json!("1Gi"), json!("2Gi"), json!("2048Mi"), json!("3Gi")]);
        let modes = [json!(["ReadWriteOnce"]), json!(["ReadWriteOnce", "ReadOnlyMany"]), json!(["ReadWriteMany"])];
        let owners = [
            Value::Null,
            Value::Null,
            Value::Null,
            json!({"name": "c", "namespace": "ns"}),
            json!({"name": "c", "namespace": "ns", "uid": "u"}),
            json!({"name": "c", "namespace": "ns", "uid": "other"}),
            json!({"name": "d", "namespace": "ns", "uid": "u"}),
        ];
        let mut volume = json!({
            "metadata": {"name": format!("v{nth}"), "labels": {"disk": pick(rng, &[json!("ssd"), json!("hdd")])}},
            "spec": {"capacity": {"storage": size}, "accessModes": pick(rng, &modes),
                "storageClassName": pick(rng, &[json!(""), json!("fast")]), "volumeMode": pick(rng, &[json!("Filesystem"), json!("Filesystem"), json!("Block")])},
            "status": {"phase": pick(rng, &[json!("Available"), json!("Available"), json!("Released"), json!("Pending")])},
        });
        let owner = pick(rng, &owners);
        if !owner.is_null() {
            volume["spec"]["claimRef"] = owner;
        }
        if rng.random_range(0..10) == 0 {
            volume["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        volume
    }

    fn some_claim(rng: &mut StdRng) -> Value {
        let size = ["1Gi", "2Gi", "2.5Gi"][rng.random_range(0..3_usize)];
        let class = ["", "fast"][rng.random_range(0..2_usize)];
        let mode = ["ReadWriteOnce", "ReadWriteMany"][rng.random_range(0..2_usize)];
        let mut spec = json!({"resources": {"requests": {"storage": size}}, "storageClassName": class, "accessModes": [mode]});
        if rng.random_range(0..3) == 0 {
            spec["selector"] = json!({"matchLabels": {"disk": "ssd"}});
        }
        spec
    }

    fn mebibytes(text: &Value) -> f64 {
        let text = text.as_str().unwrap();
        text.strip_suffix("Gi").map_or_else(|| text.strip_suffix("Mi").unwrap().parse().unwrap(), |gi| gi.parse::<f64>().unwrap() * 1024.0)
    }

    /// The model: what the documentation says, on JSON, all candidates ordered.
    fn model(spec: &Value, volumes: &[Value], open: bool) -> Option<String> {
        let name = |volume: &Value| volume["metadata"]["name"].as_str().unwrap().to_owned();
        let usable = |volume: &&Value| {
            volume["metadata"]["deletionTimestamp"].is_null()
                && mebibytes(&volume["spec"]["capacity"]["storage"]) >= mebibytes(&spec["resources"]["requests"]["storage"])
                && volume["spec"]["volumeMode"] == "Filesystem"
        };
        let named = |volume: &&Value| {
            let reference = &volume["spec"]["claimRef"];
            reference["name"] == "c" && (reference["uid"].is_null() || reference["uid"] == "u")
        };
        if let Some(volume) = volumes.iter().filter(usable).find(named) {
            return Some(name(volume));
        }
        let free = |volume: &&Value| {
            let offered = volume["spec"]["accessModes"].as_array().unwrap();
            volume["spec"]["claimRef"].is_null()
                && volume["status"]["phase"] == "Available"
                && volume["spec"]["storageClassName"] == spec["storageClassName"]
                && spec["accessModes"].as_array().unwrap().iter().all(|mode| offered.contains(mode))
                && (spec["selector"].is_null() || volume["metadata"]["labels"]["disk"] == "ssd")
        };
        let mut all: Vec<&Value> = volumes.iter().filter(usable).filter(free).filter(|_| !open).collect();
        all.sort_by(|a, b| {
            let of = |volume: &Value| {
                (volume["spec"]["accessModes"].as_array().unwrap().len(), mebibytes(&volume["spec"]["capacity"]["storage"]))
            };
            of(a).partial_cmp(&of(b)).unwrap().then_with(|| name(a).cmp(&name(b)))
        });
        all.first().map(|volume| name(volume))
    }

    #[test]
    fn the_volume_is_the_one_that_a_search_of_all_finds() {
        let (mut found, mut none) = (0, 0);
        for seed in 0..3000 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut volumes: Vec<Value> = (0..rng.random_range(0..8)).map(|nth| some_volume(&mut rng, nth)).collect();
            // At most one volume names the claim: with two, the result would depend on their order.
            let mut seen = false;
            volumes.retain(|volume| volume["spec"]["claimRef"].is_null() || !std::mem::replace(&mut seen, true));
            let spec = some_claim(&mut rng);
            let typed: Vec<Arc<PersistentVolume>> =
                volumes.iter().map(|volume| Arc::new(serde_json::from_value(volume.clone()).unwrap())).collect();
            for place in [Place::Anywhere, Place::Open] {
                let expected = model(&spec, &volumes, matches!(place, Place::Open));
                let chosen = best(&claim(spec.clone()), &typed, place, |_| false).map(|volume| volume.name().to_owned());
                assert_eq!(chosen, expected, "seed {seed}, {place:?}: {spec} among {volumes:#?}");
                *(if chosen.is_some() { &mut found } else { &mut none }) += 1;
            }
        }
        assert!(found > 500 && none > 500, "found {found}, none {none}");
    }

    #[test]
    fn on_a_node_only_what_it_reaches_and_nobody_took_will_do() {
        let volume = |name: &str, host: &str, size: &str| -> Arc<PersistentVolume> {
            let affinity =
                json!({"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "host", "operator": "In", "values": [host]}]}]}});
            Arc::new(
                serde_json::from_value(json!({"metadata": {"name": name}, "status": {"phase": "Available"},
                "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "nodeAffinity": affinity}}))
                .unwrap(),
            )
        };
        let volumes = [volume("a-small", "a", "1Gi"), volume("a-large", "a", "2Gi"), volume("b", "b", "1Gi")];
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"host": "a"}}})).unwrap();
        let claim = claim(json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}));
        let on =
            |taken: &str| best(&claim, &volumes, Place::Node(&node), |volume| taken.contains(volume.name())).map(|volume| volume.name());
        assert_eq!((on(""), on("a-small"), on("a-small a-large")), (Some("a-small"), Some("a-large"), None));
    }

    #[test]
    fn what_a_named_volume_lacks_is_said() {
        let wanted =
            claim(json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}));
        let volume = |change: Value| -> PersistentVolume {
            let mut spec = json!({"capacity": {"storage": "2Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "fast"});
            change.as_object().unwrap().iter().for_each(|(key, value)| spec[key] = value.clone());
            serde_json::from_value(json!({"metadata": {"name": "v"}, "spec": spec})).unwrap()
        };
        let cases = [
            (json!({}), None),
            (json!({"capacity": {"storage": "1Gi"}}), Some("requested PV is too small")),
            (json!({"storageClassName": "slow"}), Some("storageClassName does not match")),
            (json!({"volumeMode": "Block"}), Some("incompatible volumeMode")),
            (json!({"accessModes": ["ReadOnlyMany"]}), Some("incompatible accessMode")),
        ];
        for (change, expected) in cases {
            assert_eq!(mismatch(&volume(change.clone()), &wanted).as_deref(), expected, "{change}");
        }
    }
}
