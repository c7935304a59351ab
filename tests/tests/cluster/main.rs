//! A whole cluster, from `cargo xtask deploy` to `--down`: real kubelets, containerd, eBPF and kubectls. Needs root, and the binaries built.
//!
//! One cluster serves all tests, which run one after the other in the order below: each leaves a cluster that works, and the
//! last ones take it away.

mod clients;
mod failures;
mod flow;
mod hello;
mod removal;

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Trial};
use skep_tests::cluster::Cluster;
use skep_tests::kubectls;
use skep_tests::machine::Traces;

/// The cluster, and what was on the machine before it.
pub(crate) struct Scene {
    pub(crate) cluster: Cluster,
    pub(crate) before: Traces,
}

/// A test and its name.
type Named = (String, Box<dyn FnOnce(&mut Scene) + Send>);

fn main() -> ExitCode {
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    let named = tests();
    if arguments.list {
        let trials = named.into_iter().map(|(name, _)| Trial::test(name, || Ok(()))).collect();
        return libtest_mimic::run(&arguments, trials).exit_code();
    }
    let before = Traces::now();
    let cluster = match Cluster::start() {
        Ok(cluster) => cluster,
        Err(error) => {
            eprintln!("the cluster does not start: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    let scene = Arc::new(Mutex::new(Scene { cluster, before }));
    let trials = named.into_iter().map(|(name, test)| {
        let scene = scene.clone();
        let is_ignored = clients::programs().is_none() && clients::NAMES.contains(&&*name);
        let run = move || {
            // A test that failed leaves the cluster to the next.
            test(&mut scene.lock().unwrap_or_else(PoisonError::into_inner));
            Ok(())
        };
        Trial::test(name, run).with_ignored_flag(is_ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

fn tests() -> Vec<Named> {
    let by_kubectl = kubectls().into_iter().map(|binary| -> Named {
        let version = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let test = move |scene: &mut Scene| flow::an_application_lives_its_life(scene, &binary);
        (format!("an_application_lives_its_life_by_{version}"), Box::new(test))
    });
    let first = [
        named("two_nodes_are_ready_and_every_process_is_shown", hello::two_nodes_are_ready_and_every_process_is_shown),
        named("no_node_has_a_rule_of_a_packet_filter", hello::no_node_has_a_rule_of_a_packet_filter),
    ];
    let last = [
        named("each_name_of_a_service_leads_to_it", hello::each_name_of_a_service_leads_to_it),
        named(
            "a_pod_connects_to_the_api_server_by_its_service",
            hello::a_pod_connects_to_the_api_server_by_its_service,
        ),
        named(
            "a_killed_process_is_restarted_and_serves_again",
            failures::a_killed_process_is_restarted_and_serves_again,
        ),
        named("a_deleted_pod_is_replaced", failures::a_deleted_pod_is_replaced),
        named(
            "killed_agents_fail_no_request_and_restart_no_container",
            failures::killed_agents_fail_no_request_and_restart_no_container,
        ),
        named("deploying_again_keeps_containers_and_data", failures::deploying_again_keeps_containers_and_data),
        named(
            "a_node_without_its_kubelet_is_not_ready_and_serves_no_more",
            failures::a_node_without_its_kubelet_is_not_ready_and_serves_no_more,
        ),
        named("taking_a_cluster_away_leaves_nothing", removal::taking_a_cluster_away_leaves_nothing),
        named(
            "what_is_left_of_a_killed_cluster_is_taken_away",
            removal::what_is_left_of_a_killed_cluster_is_taken_away,
        ),
    ];
    let clients = clients::NAMES.into_iter().zip(clients::TESTS).map(|(name, test)| named(name, test));
    first.into_iter().chain(by_kubectl).chain(clients).chain(last).collect()
}

fn named(name: &str, test: fn(&mut Scene)) -> Named {
    (name.to_owned(), Box::new(test))
}
