//! Embeds the eBPF object where the environment variable `SKEP_EBPF_OBJECT` names one; without it the agent looks for a file.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(skep_ebpf_object)");
    println!("cargo::rerun-if-env-changed=SKEP_EBPF_OBJECT");
    if let Some(path) = std::env::var("SKEP_EBPF_OBJECT").ok().filter(|path| !path.is_empty()) {
        println!("cargo::rerun-if-changed={path}");
        println!("cargo::rustc-cfg=skep_ebpf_object");
    }
}
