//! What to do with a pod that waits: give it a node, make room for it, or let it wait. No I/O.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cycle::Cycle;
use crate::framework::{Plugin, Snapshot};
use crate::node_info::PodInfo;
use crate::plugins::NODE_NAME;
use crate::preemption::{Preemption, preempt};
use crate::volumes::{PodVolumes, Steps};

/// What becomes of a pod.
#[derive(Clone, Debug)]
pub(crate) enum Decision {
    /// It goes to this node, when its volumes are ready.
    Bind(String, Steps),
    /// It waits.
    Wait(Waiting),
}

/// Why a pod waits, and for what.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    /// The message of the condition and event, in upstream's wording.
    pub(crate) message: String,
    /// The plugins that refused it.
    pub(crate) plugins: BTreeSet<&'static str>,
    /// Whether victims were looked for.
    pub(crate) searched: bool,
    /// What happens to the pod's nominated node.
    pub(crate) view: View,
}

/// The change of a waiting pod's nominated node.
#[derive(Clone, Debug)]
pub(crate) enum View {
    /// It stays as it is.
    Keep,
    /// The nomination is withdrawn.
    Withdraw,
    /// This node is nominated; the pod fits there as soon as the victims have left it.
    Preempt { node: String, victims: Vec<Arc<PodInfo>> },
}

/// Decides about one pod. `tie` decides among equals.
pub(crate) fn decide(plugins: &[Box<dyn Plugin>], pod: &PodInfo, snapshot: &Snapshot<'_>, tie: u64) -> Decision {
    let mut cycle = Cycle::new(plugins, pod, snapshot);
    let unfit = match cycle.place(tie) {
        Ok(node) => {
            let volumes = PodVolumes::of(&pod.pod, snapshot).ok().flatten();
            let steps = volumes.and_then(|volumes| volumes.on(&node.node, snapshot).ok());
            return Decision::Bind(node.name().to_owned(), steps.unwrap_or_default());
        }
        Err(unfit) => unfit,
    };
    let mut waiting = Waiting { message: unfit.message(), plugins: unfit.plugins.clone(), searched: unfit.nodes > 0, view: View::Withdraw };
    if unfit.nodes == 0 {
        // Without nodes, every new node must wake the pod: NodeName is woken by each.
        waiting.plugins.insert(NODE_NAME);
        return Decision::Wait(waiting);
    }
    let said = match preempt(&mut cycle, &unfit, tie) {
        Preemption::Evict { node, victims } => {
            waiting.view = View::Preempt { node, victims };
            None
        }
        Preemption::NotEligible(said) => {
            waiting.view = View::Keep;
            Some(said)
        }
        Preemption::Hopeless(said) => Some(said),
    };
    if let Some(said) = said {
        waiting.message.push(' ');
        waiting.message.push_str(&said);
    }
    Decision::Wait(waiting)
}
