//! The runtime's side of CNI: reads the call, asks the agent, words the result. Pure but for the one exchange on the socket.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::wire::{Answer, Attached, Attachment, Failure, LONGEST, PortMapping, Request};

/// The versions of the specification whose results are spoken; the last is the newest.
pub const VERSIONS: [&str; 2] = ["1.0.0", "1.1.0"];
/// The agent's socket where the configuration names none.
pub const SOCKET: &str = "/run/skep/cni.sock";
/// How long an agent may take; runtimes give a sandbox minutes.
const PATIENCE: Duration = Duration::from_secs(60);

const INCOMPATIBLE_VERSION: u32 = 1;
const INVALID_ENVIRONMENT: u32 = 4;
const IO_FAILURE: u32 = 5;
const UNDECODABLE: u32 = 6;
const TRY_AGAIN_LATER: u32 = 11;
const NOT_AVAILABLE: u32 = 50;

/// What the plugin prints, and whether it failed.
#[derive(Debug)]
pub struct Reply {
    /// For standard output.
    pub output: String,
    /// Whether the exit code says failure.
    pub failed: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    cni_version: String,
    #[serde(default)]
    socket: Option<PathBuf>,
    #[serde(default)]
    runtime_config: RuntimeConfig,
    #[serde(default, rename = "cni.dev/valid-attachments")]
    valid_attachments: Vec<Attachment>,
}

/// What the runtime gives for the capabilities that the configuration names.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RuntimeConfig {
    #[serde(default)]
    port_mappings: Vec<PortMapping>,
}

/// Serves one call: `env` gives the CNI_ variables, `input` is the network configuration.
pub fn call(env: &dyn Fn(&str) -> Option<String>, input: &[u8]) -> Reply {
    let newest = VERSIONS[VERSIONS.len() - 1];
    let command = env("CNI_COMMAND").unwrap_or_default();
    let config = serde_json::from_slice::<Config>(input);
    if command == "VERSION" {
        let version = config.map_or_else(|_| newest.to_owned(), |config| config.cni_version);
        let output = json!({ "cniVersion": version, "supportedVersions": VERSIONS });
        return Reply { output: output.to_string(), failed: false };
    }
    let config = match config {
        Ok(config) => config,
        Err(error) => return failure(newest, UNDECODABLE, &format!("can't decode the network configuration: {error}")),
    };
    let version = config.cni_version.clone();
    if !VERSIONS.contains(&&*version) {
        let message = format!("CNI version {version:?} is not supported; supported are {VERSIONS:?}");
        return failure(newest, INCOMPATIBLE_VERSION, &message);
    }
    let request = match request(&command, env, &config) {
        Ok(request) => request,
        Err(message) => return failure(&version, INVALID_ENVIRONMENT, &message),
    };
    let socket = config.socket.as_deref().unwrap_or_else(|| Path::new(SOCKET));
    match ask(socket, &request) {
        Err(error) => {
            let code = if matches!(request, Request::Status) { NOT_AVAILABLE } else { TRY_AGAIN_LATER };
            failure(&version, code, &format!("the node's agent does not answer at {}: {error}", socket.display()))
        }
        Ok(Err(refusal)) => failure(&version, refusal.code, &refusal.msg),
        Ok(Ok(None)) => Reply { output: String::new(), failed: false },
        // A check has no output.
        Ok(Ok(Some(attached))) => match &request {
            Request::Add { attachment, netns, .. } => {
                let output = result(&version, attachment, netns, &attached).to_string();
                Reply { output, failed: false }
            }
            _ => Reply { output: String::new(), failed: false },
        },
    }
}

/// The reply when standard input can't be read.
#[must_use]
pub fn unreadable(error: &io::Error) -> Reply {
    failure(VERSIONS[VERSIONS.len() - 1], IO_FAILURE, &format!("can't read the network configuration: {error}"))
}

fn request(command: &str, env: &dyn Fn(&str) -> Option<String>, config: &Config) -> Result<Request, String> {
    let set = |name: &str| {
        env(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("required environment variable {name} is not set"))
    };
    let attachment = || -> Result<Attachment, String> {
        let attachment = Attachment { container_id: set("CNI_CONTAINERID")?, ifname: set("CNI_IFNAME")? };
        if !is_container_id(&attachment.container_id) {
            return Err(format!("CNI_CONTAINERID {:?} is invalid", attachment.container_id));
        }
        if !is_interface_name(&attachment.ifname) {
            return Err(format!("CNI_IFNAME {:?} is invalid", attachment.ifname));
        }
        Ok(attachment)
    };
    Ok(match command {
        "ADD" => {
            let ports = config.runtime_config.port_mappings.clone();
            Request::Add { attachment: attachment()?, netns: set("CNI_NETNS")?.into(), ports }
        }
        "DEL" => Request::Del { attachment: attachment()? },
        "CHECK" => Request::Check { attachment: attachment()?, netns: set("CNI_NETNS")?.into() },
        "GC" => Request::Gc { valid: config.valid_attachments.clone() },
        "STATUS" => Request::Status,
        other => return Err(format!("CNI_COMMAND {other:?} is unknown")),
    })
}

/// The specification: an alphanumeric, then alphanumerics, `_`, `.` and `-`.
fn is_container_id(id: &str) -> bool {
    id.starts_with(|first: char| first.is_ascii_alphanumeric())
        && id.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'))
}

/// The kernel's own rule (`dev_valid_name`).
fn is_interface_name(name: &str) -> bool {
    name.len() < 16
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace())
}

fn ask(socket: &Path, request: &Request) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let body = serde_json::to_vec(request)?;
    let length = u32::try_from(body.len()).ok().filter(|length| *length <= LONGEST);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the request is too long"))?;
    stream.write_all(&length.to_be_bytes())?;
    stream.write_all(&body)?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
    }
    let mut answer = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut answer)?;
    Ok(serde_json::from_slice(&answer)?)
}

fn result(version: &str, attachment: &Attachment, netns: &Path, attached: &Attached) -> Value {
    let mut interfaces = json!([
        { "name": attached.host_interface, "mac": attached.host_mac },
        { "name": attachment.ifname, "mac": attached.pod_mac, "sandbox": netns },
    ]);
    if version == "1.1.0" {
        // 1.1 is the first version with this field.
        for interface in interfaces.as_array_mut().into_iter().flatten() {
            interface["mtu"] = json!(attached.mtu);
        }
    }
    json!({
        "cniVersion": version,
        "interfaces": interfaces,
        "ips": [{ "address": format!("{}/32", attached.address), "gateway": attached.gateway, "interface": 1 }],
        "routes": [{ "dst": "0.0.0.0/0", "gw": attached.gateway }],
        "dns": {},
    })
}

fn failure(version: &str, code: u32, msg: &str) -> Reply {
    let failure = Failure { code, msg: msg.to_owned() };
    let output = json!({ "cniVersion": version, "code": failure.code, "msg": failure.msg });
    Reply { output: output.to_string(), failed: true }
}
