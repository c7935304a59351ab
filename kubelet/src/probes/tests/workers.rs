//! Probes over time, on a clock that only tests move.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

struct Harness {
    probes: Probes,
    changes: mpsc::Receiver<Change>,
    commands: Arc<Commands>,
}

impl Harness {
    fn new(commands: Arc<Commands>) -> Self {
        let prober = prober(Arc::clone(&commands));
        let (probes, changes) = Probes::new(prober, EventRecorder::none(), CancellationToken::new());
        Self { probes, changes, commands }
    }

    fn state(&self) -> ProbeState {
        self.probes.state("u1", "main").expect("a state")
    }

    async fn change(&mut self) -> ProbeState {
        let change = self.changes.recv().await.expect("a change");
        assert_eq!((change.pod_uid.as_str(), change.container.as_str()), ("u1", "main"));
        self.state()
    }
}

fn switched(on: &Arc<AtomicBool>) -> Arc<Commands> {
    let on = Arc::clone(on);
    Commands::new(move |_| Ok(ExecOutput { exit_code: i32::from(!on.load(Ordering::Relaxed)), output: String::new() }))
}

#[tokio::test]
async fn a_container_without_probes_is_ready_at_once() {
    let harness = Harness::new(Commands::exit(1));
    assert_eq!(harness.probes.state("u1", "main"), None);
    harness.probes.start(plain());
    assert_eq!(harness.state(), ProbeState { started: true, ready: true, gave_up: None });
}

#[tokio::test(start_paused = true)]
async fn a_container_is_ready_while_its_readiness_probe_passes() {
    let on = Arc::new(AtomicBool::new(true));
    let mut harness = Harness::new(switched(&on));
    harness.probes.start(target(json!({"name": "main", "readinessProbe": exec("ready")})));
    assert!(harness.state().started && !harness.state().ready);
    assert!(harness.change().await.ready);
    on.store(false, Ordering::Relaxed);
    assert!(!harness.change().await.ready);
    on.store(true, Ordering::Relaxed);
    assert!(harness.change().await.ready);
}

#[tokio::test(start_paused = true)]
async fn other_probes_wait_until_the_container_is_started() {
    let on = Arc::new(AtomicBool::new(false));
    let mut harness = Harness::new(switched(&on));
    let mut startup = exec("startup");
    startup["failureThreshold"] = json!(100);
    let mut ready = exec("ready");
    ready["initialDelaySeconds"] = json!(30);
    harness.probes.start(target(json!({
        "name": "main", "startupProbe": startup, "readinessProbe": ready, "livenessProbe": exec("live"),
    })));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((harness.commands.count("ready"), harness.commands.count("live")), (0, 0));
    assert!(!harness.state().started);
    on.store(true, Ordering::Relaxed);
    let started = harness.change().await;
    assert!(started.started && !started.ready);
    assert!(harness.change().await.ready);
}

#[tokio::test(start_paused = true)]
async fn a_liveness_probe_gives_up_at_its_threshold_and_probes_no_more() {
    let mut harness = Harness::new(Commands::exit(1));
    let mut live = exec("live");
    live["terminationGracePeriodSeconds"] = json!(7);
    harness.probes.start(target(json!({"name": "main", "livenessProbe": live})));
    let gave_up = harness.change().await.gave_up.expect("given up");
    assert_eq!(gave_up, GaveUp { kind: ProbeKind::Liveness, grace_seconds: Some(7) });
    assert_eq!(gave_up.note("main"), "Container main failed liveness probe, will be restarted");
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(harness.commands.count("live"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_startup_probe_gives_up_as_well() {
    let mut harness = Harness::new(Commands::exit(1));
    harness.probes.start(target(json!({"name": "main", "startupProbe": exec("startup")})));
    let state = harness.change().await;
    assert!(state.unhealthy() && !state.started);
    assert_eq!(state.gave_up.map(|gave_up| gave_up.kind), Some(ProbeKind::Startup));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_cannot_be_done_counts_as_nothing() {
    let harness = Harness::new(Commands::new(|_| Err(ExecError::Failed("gone".to_owned()))));
    harness.probes.start(target(json!({"name": "main", "livenessProbe": exec("live")})));
    tokio::time::sleep(Duration::from_secs(95)).await;
    assert!(!harness.state().unhealthy());
    assert_eq!(harness.commands.count("live"), 30);
}

#[tokio::test(start_paused = true)]
async fn the_initial_delay_is_waited_for() {
    let harness = Harness::new(Commands::exit(0));
    let mut live = exec("live");
    live["initialDelaySeconds"] = json!(30);
    harness.probes.start(target(json!({"name": "main", "livenessProbe": live})));
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(harness.commands.count("live"), 0);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(harness.commands.count("live"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_run_is_probed_anew_and_the_same_one_is_not() {
    let mut harness = Harness::new(Commands::exit(1));
    let mut target = target(json!({"name": "main", "livenessProbe": exec("live")}));
    harness.probes.start(target.clone());
    assert!(harness.change().await.unhealthy());
    harness.probes.start(target.clone());
    assert!(harness.state().unhealthy());
    target.container_id = "c1".to_owned();
    harness.probes.start(target);
    assert!(!harness.state().unhealthy());
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_going_is_only_asked_whether_it_is_ready() {
    let on = Arc::new(AtomicBool::new(true));
    let mut harness = Harness::new(switched(&on));
    harness.probes.start(target(json!({
        "name": "main", "readinessProbe": exec("ready"), "livenessProbe": exec("live"),
    })));
    assert!(harness.change().await.ready);
    harness.probes.quiet("u1");
    on.store(false, Ordering::Relaxed);
    let state = harness.change().await;
    assert!(!state.ready && !state.unhealthy());
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(!harness.state().unhealthy());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_ran_before_the_kubelet_stays_ready_until_a_probe_says_otherwise() {
    let mut harness = Harness::new(Commands::exit(1));
    let mut target = target(json!({"name": "main", "startupProbe": exec("up"), "readinessProbe": exec("ready")}));
    target.before = Some(Before { started: true, ready: true });
    harness.probes.start(target);
    assert_eq!(harness.state(), ProbeState { started: true, ready: true, gave_up: None });
    assert!(!harness.change().await.ready);
    assert_eq!(harness.commands.count("up"), 0);
}

#[tokio::test(start_paused = true)]
async fn stopped_probes_end() {
    let harness = Harness::new(Commands::exit(0));
    harness.probes.start(target(json!({"name": "main", "livenessProbe": exec("live")})));
    harness.probes.stop_pod("u1");
    harness.probes.shutdown().await;
    assert_eq!(harness.probes.state("u1", "main"), None);
}
