//! `skep-control-plane credentials`: kubeconfig files for people, nodes and agents.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use jiff::Timestamp;
use skep_apiserver::pki::Pki;

/// For whom a kubeconfig is made.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The data directory of the control plane, whose authority signs.
    #[arg(long, env = "SKEP_DATA_DIR", default_value = "/var/lib/skep")]
    data_dir: PathBuf,
    /// Where the file's user finds the API, as `https://host:port`.
    #[arg(long)]
    server: String,
    /// The user's name.
    #[arg(long)]
    user: String,
    /// The user's group.
    #[arg(long)]
    group: Option<String>,
    /// The file to write.
    #[arg(long)]
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if !args.server.starts_with("https://") {
        bail!("--server {}: an address such as https://10.0.0.1:6443", args.server);
    }
    let pki = Pki::open_or_create(&args.data_dir.join("pki"), &[], Timestamp::now())?;
    let credentials = pki.client(&args.user, args.group.as_deref())?;
    credentials.write_kubeconfig(&args.output, &args.server, pki.ca_pem(), &args.user)?;
    Ok(())
}

/// The administrator's kubeconfig, beside the data.
pub(crate) fn admin(pki: &Pki, data_dir: &Path, address: SocketAddr) -> Result<PathBuf> {
    let path = data_dir.join("admin.kubeconfig");
    let credentials = pki.client("kubernetes-admin", Some("system:masters"))?;
    credentials.write_kubeconfig(&path, &format!("https://{address}"), pki.ca_pem(), "kubernetes-admin")?;
    Ok(path)
}
