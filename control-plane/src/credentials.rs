//! `skep-control-plane credentials`: kubeconfig files for people, nodes and agents, and certificates as files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use skep_apiserver::pki::Pki;

/// For whom a kubeconfig is made; or, by a subcommand, certificates as files.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    files: Option<Files>,
    #[command(flatten)]
    authority: Authority,
    /// Where the file's user finds the API, as `https://host:port`.
    #[arg(long, required = true)]
    server: Option<String>,
    /// The user's name.
    #[arg(long, required = true)]
    user: Option<String>,
    /// The user's group.
    #[arg(long)]
    group: Option<String>,
    /// The file to write.
    #[arg(long, required = true)]
    output: Option<PathBuf>,
}

/// Who signs.
#[derive(clap::Args)]
struct Authority {
    /// The data directory of the control plane, whose authority signs.
    #[arg(long, env = "SKEP_DATA_DIR", default_value = "/var/lib/skep")]
    data_dir: PathBuf,
}

#[derive(clap::Subcommand)]
enum Files {
    /// Writes a kubelet's serving certificate: tls.crt, tls.key and ca.crt.
    Serving {
        #[command(flatten)]
        authority: Authority,
        /// The node's name.
        #[arg(long)]
        name: String,
        /// A name or an address that the certificate is good for; given for each.
        #[arg(long = "san", required = true)]
        sans: Vec<String>,
        /// The directory to write to.
        #[arg(long)]
        output_dir: PathBuf,
    },
    /// Writes a client certificate for programs that read no kubeconfig: client.crt, client.key and ca.crt.
    Client {
        #[command(flatten)]
        authority: Authority,
        /// The user's name.
        #[arg(long)]
        user: String,
        /// The user's group.
        #[arg(long)]
        group: Option<String>,
        /// The directory to write to.
        #[arg(long)]
        output_dir: PathBuf,
    },
}

impl Authority {
    fn open(&self) -> Result<Pki> {
        let directory = self.data_dir.join("pki");
        Pki::open_or_create(&directory, &[], Timestamp::now())
            .with_context(|| format!("can't use the authority in {}", directory.display()))
    }
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.files {
        Some(Files::Serving { authority, name, sans, output_dir }) => {
            let pki = authority.open()?;
            // The name that upstream's signer of kubelets' serving certificates asks for (`kubernetes.io/kubelet-serving`).
            let credentials = pki.server(&format!("system:node:{name}"), Some("system:nodes"), sans)?;
            Ok(credentials.write_files(output_dir, "tls", pki.ca_pem())?)
        }
        Some(Files::Client { authority, user, group, output_dir }) => {
            let pki = authority.open()?;
            Ok(pki.client(user, group.as_deref())?.write_files(output_dir, "client", pki.ca_pem())?)
        }
        None => kubeconfig(args),
    }
}

fn kubeconfig(args: &Args) -> Result<()> {
    let (Some(server), Some(user), Some(output)) = (&args.server, &args.user, &args.output) else {
        bail!("--server, --user and --output are needed");
    };
    if !server.starts_with("https://") {
        bail!("--server {server}: an address such as https://10.0.0.1:6443");
    }
    let pki = args.authority.open()?;
    let credentials = pki.client(user, args.group.as_deref())?;
    Ok(credentials.write_kubeconfig(output, server, pki.ca_pem(), user)?)
}

/// The administrator's kubeconfig, beside the data.
pub(crate) fn admin(pki: &Pki, data_dir: &Path, address: SocketAddr) -> Result<PathBuf> {
    let path = data_dir.join("admin.kubeconfig");
    let credentials = pki.client("kubernetes-admin", Some("system:masters"))?;
    credentials.write_kubeconfig(&path, &format!("https://{address}"), pki.ca_pem(), "kubernetes-admin")?;
    Ok(path)
}
