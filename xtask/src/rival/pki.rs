//! Keys and certificates of the upstream cluster, by openssl.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::layout::Layout;
use super::parts::api_server_names;
use crate::shell;

const DAYS: &str = "365";

/// Makes what is missing: two authorities, what they vouch for, and the key of service accounts' tokens.
///
/// # Errors
/// When openssl fails.
pub(super) fn make(layout: &Layout) -> Result<()> {
    let folder = layout.path("pki");
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let names = format!("subjectAltName={}", api_server_names(layout));
    let (server, client) = ("extendedKeyUsage=serverAuth", "extendedKeyUsage=clientAuth");
    authority(&folder, "ca", "/CN=kubernetes-ca")?;
    authority(&folder, "front-proxy-ca", "/CN=kubernetes-front-proxy-ca")?;
    certificate(&folder, "ca", "apiserver", "/CN=kube-apiserver", &[server, &names])?;
    certificate(&folder, "ca", "admin", "/O=system:masters/CN=kubernetes-admin", &[client])?;
    certificate(&folder, "front-proxy-ca", "front-proxy", "/CN=front-proxy", &[client])?;
    let key = folder.join("service-account.key");
    if !key.exists() {
        shell::output(shell::command("openssl", ["genrsa", "-out"]).arg(&key).arg("2048"))?;
        let words = ["rsa", "-pubout", "-in"];
        shell::output(shell::command("openssl", words).arg(&key).arg("-out").arg(key.with_extension("pub")))?;
    }
    Ok(())
}

fn authority(folder: &Path, name: &str, subject: &str) -> Result<()> {
    request(
        folder,
        name,
        subject,
        &["basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign"],
        None,
    )
}

fn certificate(folder: &Path, authority: &str, name: &str, subject: &str, extensions: &[&str]) -> Result<()> {
    let all = [&["basicConstraints=critical,CA:FALSE"], extensions].concat();
    request(folder, name, subject, &all, Some(authority))
}

fn request(folder: &Path, name: &str, subject: &str, extensions: &[&str], authority: Option<&str>) -> Result<()> {
    let (key, certificate) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.crt")));
    if certificate.exists() {
        return Ok(());
    }
    // A configuration of its own: the machine's adds extensions.
    let words = ["req", "-x509", "-config", "/dev/null", "-newkey", "rsa:2048", "-nodes", "-days", DAYS];
    let mut command = shell::command("openssl", words);
    command.args(["-subj", subject, "-keyout"]).arg(&key).arg("-out").arg(&certificate);
    for extension in extensions {
        command.args(["-addext", extension]);
    }
    if let Some(authority) = authority {
        command.arg("-CA").arg(folder.join(format!("{authority}.crt")));
        command.arg("-CAkey").arg(folder.join(format!("{authority}.key")));
    }
    shell::output(&mut command).map(drop)
}
