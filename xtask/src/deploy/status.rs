//! What of a cluster runs.

use std::path::Path;

use anyhow::Result;

use super::api::Api;
use super::layout::Layout;
use super::parts::Part;
use super::processes;
use super::settings::Settings;

/// Prints every process and every node.
pub(crate) fn run(data_dir: &Path) -> Result<()> {
    let Some(settings) = Settings::read(data_dir)? else {
        println!("No cluster is in {}", data_dir.display());
        return Ok(());
    };
    let layout = Layout::new(settings, data_dir);
    println!("Cluster {} in {}, API on https://{}", layout.name(), data_dir.display(), layout.settings.listen);
    println!("\n{:<22} {:<10} LOG", "PROCESS", "PID");
    for part in Part::all(&layout) {
        let pid = processes::find(&layout, &part).map_or("-".to_owned(), |pid| pid.as_raw_nonzero().to_string());
        println!("{:<22} {pid:<10} {}", part.name(), layout.log(&part.name()).display());
    }
    println!("\n{:<22} {:<16} {:<18} STATE", "NODE", "ADDRESS", "PODS");
    let states = Api::new(&layout).nodes();
    for node in layout.nodes() {
        let state = states.as_ref().ok().and_then(|states| states.iter().find(|state| state.name == node.name));
        let pods = state.and_then(|state| state.pod_cidr).map_or("-".to_owned(), |cidr| cidr.to_string());
        let word = match (state, &states) {
            (Some(state), _) if state.ready => "Ready".to_owned(),
            (Some(state), _) => format!("NotReady: {}", state.message),
            (None, Ok(_)) => "not registered".to_owned(),
            (None, Err(_)) => "unknown: the API server does not answer".to_owned(),
        };
        println!("{:<22} {:<16} {pods:<18} {word}", node.name, node.address.to_string());
    }
    Ok(())
}
