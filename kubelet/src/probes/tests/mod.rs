mod actions;
mod servers;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{Container, Probe};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::*;

type Answer = dyn Fn(&str) -> Result<ExecOutput, ExecError> + Send + Sync;

/// A command runner that answers from a function of the words, and counts.
struct Commands {
    answer: Box<Answer>,
    ran: Mutex<Vec<String>>,
}

impl Commands {
    fn new(answer: impl Fn(&str) -> Result<ExecOutput, ExecError> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self { answer: Box::new(answer), ran: Mutex::new(vec![]) })
    }

    fn exit(exit_code: i32) -> Arc<Self> {
        Self::new(move |command| Ok(ExecOutput { exit_code, output: format!("ran {command}") }))
    }

    fn count(&self, command: &str) -> usize {
        self.ran.lock().iter().filter(|ran| *ran == command).count()
    }
}

#[async_trait]
impl ExecRunner for Commands {
    async fn run(&self, _: &str, command: &[String], _: Option<Duration>) -> Result<ExecOutput, ExecError> {
        let command = command.join(" ");
        self.ran.lock().push(command.clone());
        (self.answer)(&command)
    }
}

fn prober(commands: Arc<Commands>) -> Arc<Prober> {
    Arc::new(Prober::new(commands).expect("a prober"))
}

fn probe(value: Value) -> Probe {
    serde_json::from_value(value).expect("a probe")
}

fn target(container: Value) -> Target {
    let container: Container = serde_json::from_value(container).expect("a container");
    Target {
        pod_uid: "u1".to_owned(),
        reference: ObjectReference::default(),
        container,
        container_id: "c0".to_owned(),
        address: Some("127.0.0.1".parse().expect("address")),
        started_at: Timestamp::now(),
        before: None,
    }
}

fn plain() -> Target {
    target(json!({"name": "main"}))
}

fn exec(word: &str) -> Value {
    json!({"exec": {"command": [word]}, "periodSeconds": 10, "failureThreshold": 2})
}
