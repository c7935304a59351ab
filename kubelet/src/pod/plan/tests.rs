//! Tables and properties of the plan, with a runtime that does each step at once.

use k8s_openapi::api::core::v1::EphemeralContainer;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;

use super::*;

fn container(name: &str) -> Container {
    Container { name: name.into(), ..Container::default() }
}

fn sidecar(name: &str) -> Container {
    Container { restart_policy: Some("Always".into()), ..container(name) }
}

fn pod(policy: &str, inits: Vec<Container>, mains: &[&str]) -> Pod {
    let spec = PodSpec {
        restart_policy: Some(policy.into()),
        init_containers: Some(inits),
        containers: mains.iter().map(|name| container(name)).collect(),
        ..PodSpec::default()
    };
    Pod { spec: Some(spec), ..Pod::default() }
}

fn deleted(mut pod: Pod) -> Pod {
    pod.metadata.deletion_timestamp = Some(Time(at(0)));
    pod.metadata.deletion_grace_period_seconds = Some(5);
    pod
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).expect("a time in range")
}

fn running() -> Observed {
    let run = Run::Running { started: true, unhealthy: false, stopping: false };
    Observed { attempt: 0, short_runs: 0, restart: false, run }
}

fn exited(exit_code: i32, short_runs: u32) -> Observed {
    let run = Run::Exited { exit_code, started_at: at(0), finished_at: at(1) };
    Observed { attempt: short_runs, short_runs, restart: false, run }
}

fn state(containers: &[(&str, Observed)]) -> RuntimeState {
    let containers = containers.iter().map(|(name, observed)| ((*name).to_owned(), observed.clone())).collect();
    RuntimeState { sandbox: true, containers }
}

fn start(container: &str, attempt: u32) -> Step {
    Step::Start { container: container.into(), attempt }
}

fn stop_within(container: &str, seconds: i64) -> Step {
    Step::Stop { container: container.into(), grace: SignedDuration::from_secs(seconds) }
}

fn with_debugger(mut pod: Pod) -> Pod {
    let debugger = EphemeralContainer { name: "debugger".into(), ..EphemeralContainer::default() };
    pod.spec.as_mut().expect("a spec").ephemeral_containers = Some(vec![debugger]);
    pod
}

#[test]
fn an_ephemeral_container_runs_once_beside_whatever_else_runs() {
    let pod = with_debugger(pod("Always", vec![container("init")], &["a"]));
    assert_eq!(plan(&pod, &state(&[("init", running())]), at(1)).steps, [start("debugger", 0)]);
    let ran = state(&[("init", exited(0, 0)), ("a", running()), ("debugger", exited(1, 0))]);
    assert_eq!(plan(&pod, &ran, at(1)), Plan::default());
    assert_eq!(outcome(pod.spec.as_ref().expect("a spec"), &ran), Outcome::Running);
}

#[test]
fn a_container_that_needs_a_new_run_is_stopped_and_started_at_once_whatever_it_ended_with() {
    let pod = pod("OnFailure", vec![], &["a"]);
    let restart = |observed| Observed { restart: true, ..observed };
    assert_eq!(plan(&pod, &state(&[("a", restart(running()))]), at(1)).steps, [stop_within("a", 30)]);
    let ended = state(&[("a", restart(exited(0, 3)))]);
    assert_eq!(plan(&pod, &ended, at(1)).steps, [start("a", 4)]);
    assert_eq!(outcome(pod.spec.as_ref().expect("a spec"), &ended), Outcome::Running);
}

#[test]
fn an_ephemeral_container_is_stopped_with_its_pod() {
    let ended = with_debugger(pod("Never", vec![], &["a"]));
    let left = state(&[("a", exited(0, 0)), ("debugger", running())]);
    assert_eq!(plan(&ended, &left, at(1)).steps, [stop_within("debugger", 30)]);
    assert_eq!(plan(&deleted(ended), &left, at(1)).steps, [stop_within("debugger", 5)]);
}

#[test]
fn the_sandbox_comes_before_any_container() {
    assert_eq!(plan(&pod("Always", vec![], &["a"]), &RuntimeState::default(), at(1)).steps, [Step::CreateSandbox]);
}

#[test]
fn all_main_containers_start_together() {
    assert_eq!(plan(&pod("Always", vec![], &["a", "b"]), &state(&[]), at(1)).steps, [start("a", 0), start("b", 0)]);
}

#[test]
fn init_containers_run_one_after_the_other() {
    let pod = pod("Always", vec![container("i"), container("j")], &["a"]);
    assert_eq!(plan(&pod, &state(&[]), at(1)).steps, [start("i", 0)]);
    assert_eq!(plan(&pod, &state(&[("i", running())]), at(1)).steps, []);
    assert_eq!(plan(&pod, &state(&[("i", exited(0, 0))]), at(1)).steps, [start("j", 0)]);
    assert_eq!(plan(&pod, &state(&[("i", exited(0, 0)), ("j", exited(0, 0))]), at(1)).steps, [start("a", 0)]);
}

#[test]
fn a_sidecar_stays_while_the_containers_after_it_run() {
    let pod = pod("Always", vec![sidecar("s")], &["a"]);
    assert_eq!(plan(&pod, &state(&[("s", running())]), at(1)).steps, [start("a", 0)]);
    assert_eq!(plan(&pod, &state(&[("s", exited(0, 0)), ("a", running())]), at(1)).steps, [start("s", 1)]);
}

#[test]
fn a_failed_init_container_fails_a_pod_that_never_restarts() {
    let pod = pod("Never", vec![container("i")], &["a"]);
    let state = state(&[("i", exited(1, 0))]);
    assert_eq!(outcome(pod.spec.as_ref().expect("spec"), &state), Outcome::Failed);
    assert_eq!(plan(&pod, &state, at(1)).steps, [Step::RemoveSandbox]);
}

#[test]
fn a_crashing_container_waits_out_its_back_off() {
    let pod = pod("Always", vec![], &["a"]);
    assert_eq!(plan(&pod, &state(&[("a", exited(1, 0))]), at(1)).steps, [start("a", 1)]);
    let waiting = plan(&pod, &state(&[("a", exited(1, 1))]), at(10));
    assert_eq!((waiting.steps, waiting.wake_at), (vec![], Some(at(11))));
    assert_eq!(plan(&pod, &state(&[("a", exited(1, 1))]), at(11)).steps, [start("a", 2)]);
}

#[test]
fn the_back_off_doubles_from_ten_seconds_to_five_minutes() {
    let waits: Vec<_> = (0..8).map(|runs| back_off(runs).as_secs()).collect();
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    assert_eq!(back_off(u32::MAX).as_secs(), 300);
    assert_eq!(next_short_runs(7, at(0), at(600)), 0);
}

#[test]
fn an_unhealthy_container_is_stopped_once() {
    let pod = pod("Always", vec![], &["a"]);
    let observed = |stopping| Observed { run: Run::Running { started: true, unhealthy: true, stopping }, ..running() };
    assert_eq!(plan(&pod, &state(&[("a", observed(false))]), at(1)).steps, [stop_within("a", 30)]);
    assert_eq!(plan(&pod, &state(&[("a", observed(true))]), at(1)).steps, []);
}

#[test]
fn deletion_stops_containers_then_sidecars_in_reverse_then_the_sandbox() {
    let pod = deleted(pod("Always", vec![sidecar("s"), sidecar("t")], &["a"]));
    let all = [("s", running()), ("t", running()), ("a", running())];
    assert_eq!(plan(&pod, &state(&all), at(1)).steps, [stop_within("a", 5)]);
    assert_eq!(plan(&pod, &state(&all[..2]), at(1)).steps, [stop_within("t", 5)]);
    assert_eq!(plan(&pod, &state(&all[..1]), at(1)).steps, [stop_within("s", 5)]);
    assert_eq!(plan(&pod, &state(&[]), at(1)).steps, [Step::RemoveSandbox, Step::DeleteFromApi]);
    assert_eq!(plan(&pod, &RuntimeState::default(), at(1)).steps, [Step::DeleteFromApi]);
}

#[test]
fn a_pod_that_ended_in_time_does_not_exceed_its_deadline_later() {
    let mut pod = pod("Never", vec![], &["a"]);
    pod.spec.as_mut().expect("spec").active_deadline_seconds = Some(10);
    pod.status.get_or_insert_default().start_time = Some(Time(at(0)));
    let runs = state(&[("a", running())]);
    assert!(exceeds_deadline(&pod, &runs, at(10)) && !exceeds_deadline(&pod, &runs, at(9)));
    assert!(!exceeds_deadline(&pod, &state(&[("a", exited(0, 0))]), at(100)));
}

#[test]
fn a_pod_past_its_deadline_is_stopped() {
    let mut pod = pod("Always", vec![], &["a"]);
    pod.spec.as_mut().expect("spec").active_deadline_seconds = Some(10);
    pod.status.get_or_insert_default().start_time = Some(Time(at(0)));
    let state = state(&[("a", running())]);
    let before = plan(&pod, &state, at(9));
    assert_eq!((before.steps, before.wake_at), (vec![], Some(at(10))));
    assert_eq!(plan(&pod, &state, at(10)).steps, [stop_within("a", 30)]);
}

/// Does a plan's steps at once: a started init container succeeds, any other container runs.
fn execute(pod: &Pod, state: &mut RuntimeState, steps: &[Step]) {
    let inits = pod.spec.as_ref().expect("spec").init_containers.clone().unwrap_or_default();
    for step in steps {
        match step {
            Step::CreateSandbox => state.sandbox = true,
            Step::RemoveSandbox => state.sandbox = false,
            Step::Start { container, attempt } => {
                let init = inits.iter().any(|init| init.name == *container && !is_sidecar(init));
                let observed = if init { exited(0, 0) } else { running() };
                state.containers.insert(container.clone(), Observed { attempt: *attempt, ..observed });
            }
            Step::Stop { container, .. } => {
                state.containers.insert(container.clone(), exited(137, 0));
            }
            Step::DeleteFromApi => {}
        }
    }
}

fn any_observed() -> impl Strategy<Value = Option<Observed>> {
    prop_oneof![
        Just(None),
        Just(Some(running())),
        (prop_oneof![Just(0), Just(1)], 0..4_u32).prop_map(|(code, runs)| Some(exited(code, runs))),
    ]
}

proptest! {
    #[test]
    fn from_any_state_the_plan_reaches_rest(
        policy in prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")],
        delete: bool,
        sandbox: bool,
        observed in proptest::collection::vec(any_observed(), 5),
    ) {
        let names = ["i", "s", "j", "a", "b"];
        let pod = pod(policy, vec![container("i"), sidecar("s"), container("j")], &["a", "b"]);
        let pod = if delete { deleted(pod) } else { pod };
        let containers = names.iter().zip(observed).filter_map(|(name, seen)| Some(((*name).to_owned(), seen?)));
        let mut state = RuntimeState { sandbox, containers: containers.collect() };
        // Late enough for every back-off to be over.
        let now = at(10_000);
        for _ in 0..20 {
            let next = plan(&pod, &state, now);
            if next.steps.is_empty() || next.steps == [Step::DeleteFromApi] {
                prop_assert_eq!(next.steps.is_empty(), !delete);
                if delete {
                    prop_assert!(!state.sandbox);
                }
                return Ok(());
            }
            execute(&pod, &mut state, &next.steps);
        }
        prop_assert!(false, "no rest after 20 rounds: {:?}", state);
    }
}
