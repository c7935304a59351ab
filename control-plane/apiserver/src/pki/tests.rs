use super::*;

fn now() -> Timestamp {
    "2026-11-24T08:00:00Z".parse().unwrap()
}

#[test]
fn what_is_made_is_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let names = vec!["10.96.0.1".to_owned()];
    let first = Pki::open_or_create(folder.path(), &names, now()).unwrap();
    let serving = read(&folder.path().join("apiserver.crt")).unwrap();
    let second = Pki::open_or_create(folder.path(), &names, now()).unwrap();
    assert_eq!(first.ca_pem(), second.ca_pem());
    assert_eq!(serving, read(&folder.path().join("apiserver.crt")).unwrap());
    second.server_tls().unwrap();
    second.kubelet_client().unwrap();
    assert_eq!(second.service_account_key().unwrap().point.len(), 65);
}

#[test]
fn a_new_name_or_a_near_end_makes_a_new_serving_certificate() {
    let folder = tempfile::tempdir().unwrap();
    Pki::open_or_create(folder.path(), &[], now()).unwrap();
    let serving = || read(&folder.path().join("apiserver.crt")).unwrap();
    let first = serving();
    Pki::open_or_create(folder.path(), &["example.com".to_owned()], now()).unwrap();
    let second = serving();
    assert_ne!(first, second);
    let later = now().checked_add((300 * 24).hours()).unwrap();
    Pki::open_or_create(folder.path(), &["example.com".to_owned()], later).unwrap();
    assert_ne!(second, serving());
}

#[test]
fn private_keys_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    Pki::open_or_create(folder.path(), &[], now()).unwrap();
    for name in ["ca.key", "sa.key", "apiserver.key", "apiserver-kubelet-client.key"] {
        assert_eq!(fs::metadata(folder.path().join(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
}

#[test]
fn a_client_certificate_carries_its_user_and_group() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open_or_create(folder.path(), &[], now()).unwrap();
    let client = pki.client("jane", Some("dev")).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(client.certificate.as_bytes()).unwrap();
    let (_, parsed) = X509Certificate::from_der(&pem.contents).unwrap();
    let groups: Vec<&str> = parsed.subject().iter_organization().filter_map(|o| o.as_str().ok()).collect();
    assert_eq!(groups, ["dev"]);
}

#[test]
fn the_directory_is_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let pki = folder.path().join("pki");
    fs::create_dir(&pki).unwrap();
    fs::set_permissions(&pki, fs::Permissions::from_mode(0o755)).unwrap();
    Pki::open_or_create(&pki, &[], now()).unwrap();
    assert_eq!(fs::metadata(&pki).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_key_without_its_certificate_is_healed_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open_or_create(folder.path(), &[], now()).unwrap();
    for name in ["apiserver.key", "apiserver-kubelet-client.key"] {
        write(&folder.path().join(name), &pki.client("other", None).unwrap().key, 0o600).unwrap();
    }
    let healed = Pki::open_or_create(folder.path(), &[], now()).unwrap();
    healed.server_tls().unwrap();
    healed.kubelet_client().unwrap();
}

#[test]
fn a_certificate_of_another_authority_is_made_anew() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Pki::open_or_create(folder.path(), &[], now()).unwrap();
    Pki::open_or_create(other.path(), &[], now()).unwrap();
    let serving = || read(&folder.path().join("apiserver.crt")).unwrap();
    let before = serving();
    for name in ["ca.crt", "ca.key"] {
        fs::copy(other.path().join(name), folder.path().join(name)).unwrap();
    }
    Pki::open_or_create(folder.path(), &[], now()).unwrap();
    let after = serving();
    assert_ne!(before, after);
    Pki::open_or_create(folder.path(), &[], now()).unwrap();
    assert_eq!(after, serving());
}

#[test]
fn a_serving_certificate_has_its_names_and_is_no_client_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let pki = Pki::open_or_create(&folder.path().join("pki"), &[], now()).unwrap();
    let names = ["172.30.0.11".to_owned(), "node-1".to_owned()];
    let serving = pki.server("system:node:node-1", Some("system:nodes"), &names).unwrap();
    serving.write_files(&folder.path().join("node-1"), "tls", pki.ca_pem()).unwrap();
    let written = read(&folder.path().join("node-1/tls.crt")).unwrap();
    assert_eq!(read(&folder.path().join("node-1/ca.crt")).unwrap(), pki.ca_pem());
    let (_, pem) = x509_parser::pem::parse_x509_pem(written.as_bytes()).unwrap();
    let (_, parsed) = X509Certificate::from_der(&pem.contents).unwrap();
    let there = parsed.subject_alternative_name().unwrap().unwrap();
    let there: Vec<_> = there.value.general_names.iter().filter_map(name_of).collect();
    assert_eq!(there, names);
    let usage = parsed.extended_key_usage().unwrap().unwrap();
    assert!(usage.value.server_auth && !usage.value.client_auth);
    let mode = fs::metadata(folder.path().join("node-1/tls.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
