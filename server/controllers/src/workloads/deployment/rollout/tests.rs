//! Rollouts against a model of the ReplicaSet controller that creates and readies pods one step at a time.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use serde_json::{Value, json};
use trireme_client::Object;

use super::super::view::{self, View};
use super::super::{DeploymentStatusDraft, new_set, status};
use super::step;

struct World {
    deployment: Deployment,
    sets: Vec<ReplicaSet>,
    now: i64,
}

impl World {
    fn new(replicas: i32, strategy: Value) -> Self {
        let deployment = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "d", "generation": 1},
            "spec": {
                "replicas": replicas, "strategy": strategy, "revisionHistoryLimit": 1, "progressDeadlineSeconds": 600,
                "selector": {"matchLabels": {"app": "web"}},
                "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}},
            },
        }))
        .unwrap();
        Self { deployment, sets: Vec::new(), now: 1_000_000 }
    }

    fn image(&mut self, image: &str) {
        let spec = self.deployment.spec.as_mut().unwrap();
        spec.template.spec.as_mut().unwrap().containers[0].image = Some(image.to_owned());
        self.deployment.metadata.generation = self.deployment.metadata.generation.map(|old| old + 1);
    }

    fn resize(&mut self, replicas: i32) {
        self.deployment.spec.as_mut().unwrap().replicas = Some(replicas);
        self.deployment.metadata.generation = self.deployment.metadata.generation.map(|old| old + 1);
    }

    fn set_of(&mut self, name: &str) -> &mut ReplicaSet {
        self.sets.iter_mut().find(|set| set.name() == name).unwrap()
    }

    /// One reconcile; true if it did something.
    fn reconcile(&mut self) -> bool {
        let deployment = self.deployment.clone();
        let shared = self.sets.iter().cloned().map(Arc::new).collect();
        let old_pods_run = self
            .sets
            .iter()
            .any(|set| !view::same_template(&deployment, set) && set.status.as_ref().is_some_and(|status| status.replicas > 0));
        let view = View::new(&deployment, shared, old_pods_run);
        let step = step(&view);
        let mut acted = false;
        if let Some(create) = &step.create {
            let mut set = new_set(&view, create, None);
            set.metadata.uid = Some(format!("uid-{}", self.sets.len()));
            set.metadata.generation = Some(1);
            set.metadata.creation_timestamp =
                serde_json::from_value(json!(jiff::Timestamp::from_second(self.now).unwrap().to_string())).ok();
            self.sets.push(set);
            acted = true;
        }
        for (set, annotations) in &step.annotate {
            let known = self.set_of(set.name()).metadata.annotations.get_or_insert_default();
            known.extend(annotations.clone());
            acted = true;
        }
        for (set, size) in &step.scale {
            let annotations = super::annotations::size(&view);
            let known = self.set_of(set.name());
            known.spec.as_mut().unwrap().replicas = Some(*size);
            known.metadata.annotations.get_or_insert_default().extend(annotations);
            acted = true;
        }
        for set in &step.delete {
            self.sets.retain(|known| known.uid() != set.uid());
            acted = true;
        }
        let draft = DeploymentStatusDraft { progress: step.progress, collision_count: None };
        let now = jiff::Timestamp::from_second(self.now).unwrap();
        let status = status::status(&view, draft, now);
        acted |= self.deployment.status.as_ref() != Some(&status);
        self.deployment.status = Some(status);
        acted
    }

    /// The ReplicaSets follow their size: pods go at once, one new pod becomes available at a time.
    fn pods_move(&mut self, ready: bool) -> bool {
        self.now += 1;
        let mut moved = false;
        for set in &mut self.sets {
            let size = view::replicas(set);
            let status = set.status.get_or_insert_default();
            let available = status.available_replicas.unwrap_or(0);
            let next = if available < size && ready { available + 1 } else { available.min(size) };
            moved |= next != available || status.replicas != size;
            status.replicas = size;
            status.available_replicas = Some(next);
            status.ready_replicas = Some(next);
            status.observed_generation = Some(1);
        }
        moved
    }

    fn settle(&mut self, mut check: impl FnMut(&World)) {
        for _ in 0..500 {
            let acted = self.reconcile();
            check(self);
            if !self.pods_move(true) && !acted {
                return;
            }
        }
        unreachable!("the rollout never ends: {:#?}", self.sizes());
    }

    fn sizes(&self) -> Vec<(i32, String)> {
        self.sets.iter().filter(|set| view::replicas(set) > 0).map(|set| (view::replicas(set), image(set))).collect()
    }

    fn condition(&self, kind: &str) -> (String, String) {
        let conditions = self.deployment.status.as_ref().unwrap().conditions.as_ref().unwrap();
        let found = conditions.iter().find(|condition| condition.type_ == kind).unwrap();
        (found.status.clone(), found.reason.clone().unwrap())
    }
}

fn image(set: &ReplicaSet) -> String {
    let template = set.spec.as_ref().unwrap().template.as_ref().unwrap();
    template.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
}

fn revision_of(world: &World, wanted: &str) -> i64 {
    let set = world.sets.iter().find(|set| image(set) == wanted).unwrap();
    super::annotations::revision(set)
}

#[test]
fn a_rolling_update_stays_within_its_bounds_and_can_be_undone() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "30%", "maxUnavailable": 1}});
    let mut world = World::new(10, strategy);
    world.settle(|_| {});
    assert_eq!(world.sizes(), [(10, "i:1".to_owned())]);
    assert_eq!(world.condition("Progressing"), ("True".to_owned(), "NewReplicaSetAvailable".to_owned()));

    let bounds = |world: &World| {
        let wanted: i32 = world.sets.iter().map(view::replicas).sum();
        let available: i32 = world.sets.iter().map(|set| view::available(set).min(view::replicas(set))).sum();
        assert!(wanted <= 13, "more than 10 + 3: {:?}", world.sizes());
        assert!(available >= 9, "fewer than 10 - 1 would be available: {:?}", world.sizes());
    };
    world.image("i:2");
    world.settle(bounds);
    assert_eq!(world.sizes(), [(10, "i:2".to_owned())]);
    assert_eq!((revision_of(&world, "i:1"), revision_of(&world, "i:2")), (1, 2));

    world.image("i:1");
    world.settle(bounds);
    assert_eq!(world.sizes(), [(10, "i:1".to_owned())]);
    assert_eq!(revision_of(&world, "i:1"), 3, "undo makes the old revision the newest");
    assert_eq!(world.sets.len(), 2, "the same ReplicaSet is used again");

    world.image("i:3");
    world.settle(bounds);
    assert_eq!(world.sets.len(), 2, "history is limited to one old revision");
}

#[test]
fn recreate_waits_for_the_last_old_pod() {
    let mut world = World::new(3, json!({"type": "Recreate"}));
    world.settle(|_| {});
    world.image("i:2");
    world.settle(|world| {
        let versions = world.sets.iter().filter(|set| set.status.as_ref().is_some_and(|status| status.replicas > 0));
        assert!(versions.count() <= 1, "two versions run at once");
    });
    assert_eq!(world.sizes(), [(3, "i:2".to_owned())]);
}

#[test]
fn a_rollout_in_the_middle_is_scaled_in_proportion() {
    let strategy = json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}});
    let mut world = World::new(10, strategy);
    world.settle(|_| {});
    // The new version never gets ready: 8 old and 5 new pods.
    world.image("bad");
    for _ in 0..20 {
        world.reconcile();
        world.pods_move(false);
    }
    assert_eq!(world.sizes(), [(8, "i:1".to_owned()), (5, "bad".to_owned())]);
    world.resize(15);
    world.reconcile();
    assert_eq!(world.sizes(), [(11, "i:1".to_owned()), (7, "bad".to_owned())]);
}

#[test]
fn a_rollout_that_hangs_says_so_after_its_deadline_and_not_while_paused() {
    let mut world = World::new(2, json!({"type": "RollingUpdate"}));
    world.settle(|_| {});
    world.image("bad");
    for _ in 0..20 {
        world.reconcile();
        world.pods_move(false);
    }
    assert_eq!(world.condition("Progressing").0, "True");
    world.now += 601;
    world.reconcile();
    assert_eq!(world.condition("Progressing"), ("False".to_owned(), "ProgressDeadlineExceeded".to_owned()));

    let mut world = World::new(2, json!({"type": "RollingUpdate"}));
    world.settle(|_| {});
    world.deployment.spec.as_mut().unwrap().paused = Some(true);
    world.image("i:2");
    world.settle(|_| {});
    assert_eq!(world.sizes(), [(2, "i:1".to_owned())], "paused: nothing rolls");
    assert_eq!(world.condition("Progressing"), ("Unknown".to_owned(), "DeploymentPaused".to_owned()));
    world.resize(4);
    world.settle(|_| {});
    assert_eq!(world.sizes(), [(4, "i:1".to_owned())], "but it can be scaled");
    world.deployment.spec.as_mut().unwrap().paused = None;
    world.settle(|_| {});
    assert_eq!(world.sizes(), [(4, "i:2".to_owned())]);
}
