//! Taking a cluster away.

use skep_tests::cluster::until;
use skep_tests::machine::{Traces, processes_with};

use crate::Scene;
use crate::hello::apply;

pub(crate) fn taking_a_cluster_away_leaves_nothing(scene: &mut Scene) {
    apply(&scene.cluster.kubectl());
    scene.cluster.down().expect("taken away");
    nothing_is_left(scene);
    scene.cluster.down().expect("taken away what is not there");
    nothing_is_left(scene);
}

pub(crate) fn what_is_left_of_a_killed_cluster_is_taken_away(scene: &mut Scene) {
    scene.cluster.deploy().expect("a new one");
    apply(&scene.cluster.kubectl());
    for process in ["containerd", "node-1-kubelet", "node-1-ebpf-proxy", "skep-control-plane"] {
        scene.cluster.kill(process).expect("killed");
    }
    scene.cluster.down().expect("taken away");
    nothing_is_left(scene);
}

fn nothing_is_left(scene: &Scene) {
    let data = scene.cluster.data();
    assert!(!data.exists(), "{} is there", data.display());
    assert_eq!(processes_with(&data.display().to_string()), Vec::<String>::new());
    // The kernel frees eBPF programs and maps after a while.
    until("nothing is left", || {
        let left = Traces::now().since(&scene.before);
        if left.is_empty() { Ok(()) } else { Err(left.join("\n")) }
    });
}
