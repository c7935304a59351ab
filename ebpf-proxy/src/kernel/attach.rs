//! Programs loaded, and attached in the place of those that an earlier agent attached; no call and no packet meets none.
//!
//! At a cgroup the new link's pin is renamed over the old one's: both programs are attached for a moment, which they allow. At a
//! network link the pinned link gets the new program.

use std::fs::{self, File};
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::tc::TcAttachOptions;
use aya::programs::{
    CgroupAttachMode, CgroupSockAddr, LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType,
};
use aya::{Ebpf, EbpfLoader};

use super::netns_cookie::netns_cookie;
use super::{KernelError, Maps, at, map_folder};

/// The programs at the node's cgroup, by the name they have in the object.
pub const CGROUP_PROGRAMS: [&str; 4] = ["skep_connect4", "skep_sendmsg4", "skep_recvmsg4", "skep_getpeername4"];
/// The programs at the uplink.
pub const UPLINK_PROGRAMS: [(&str, TcAttachType); 2] =
    [("skep_nat_ingress", TcAttachType::Ingress), ("skep_nat_egress", TcAttachType::Egress)];

type Reason = Box<dyn std::error::Error + Send + Sync>;

/// The link to other nodes and the outside.
#[derive(Clone, Debug)]
pub struct Uplink {
    /// Its name; an Ethernet link of the namespace that the calling thread is in.
    pub link: String,
    /// The address that translated packets are sent from: one that this node has on it.
    pub address: Ipv4Addr,
}

/// Programs that are loaded over the pinned maps and not attached yet.
pub struct Programs {
    ebpf: Ebpf,
    bpf_dir: PathBuf,
    cgroup: File,
    uplink: Option<Uplink>,
}

/// Loads the programs over the pinned maps (made when they are missing), for the cgroup and, where there is one, the uplink.
///
/// # Errors
/// When the folder is no bpffs, the verifier refuses a program or the cgroup can't be opened.
pub fn load(
    object: &[u8],
    bpf_dir: &Path,
    cgroup: &Path,
    uplink: Option<&Uplink>,
) -> Result<(Programs, Maps), KernelError> {
    let folder = map_folder(bpf_dir);
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let mut ebpf: Ebpf = EbpfLoader::new().default_map_pin_directory(&folder).load(object)?;
    for name in CGROUP_PROGRAMS {
        program::<CgroupSockAddr>(&mut ebpf, name)?.load().map_err(refused(name))?;
    }
    for (name, _) in UPLINK_PROGRAMS {
        program::<SchedClassifier>(&mut ebpf, name)?.load().map_err(refused(name))?;
    }
    let mut maps = Maps::open(bpf_dir)?;
    maps.set_netns(netns_cookie().map_err(|source| KernelError::Namespace { source })?)?;
    if let Some(uplink) = uplink {
        maps.set_address(uplink.address)?;
    }
    let cgroup = File::open(cgroup).map_err(at(cgroup))?;
    Ok((Programs { ebpf, bpf_dir: bpf_dir.to_owned(), cgroup, uplink: uplink.cloned() }, maps))
}

/// Loads the programs and attaches them at once, whatever was there.
///
/// # Errors
/// Those of [`load`] and [`Programs::attach`].
pub fn attach(object: &[u8], bpf_dir: &Path, cgroup: &Path, uplink: Option<&Uplink>) -> Result<Maps, KernelError> {
    let (programs, maps) = load(object, bpf_dir, cgroup, uplink)?;
    programs.attach()?;
    Ok(maps)
}

impl Programs {
    /// Whether an agent with another layout of the maps was here: its programs serve from its maps, and are better replaced when the
    /// new ones are filled.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn replace_another_layout(&self) -> Result<bool, KernelError> {
        Ok(!other_layouts(&self.bpf_dir)?.is_empty())
    }

    /// Attaches them in the place of those of an earlier agent, and removes the maps of another layout. Without an uplink, what was
    /// attached there is detached.
    ///
    /// # Errors
    /// When the cgroup is none or there is no such link.
    pub fn attach(mut self) -> Result<(), KernelError> {
        for name in CGROUP_PROGRAMS {
            at_cgroup(&mut self.ebpf, name, &self.cgroup, &self.bpf_dir)?;
        }
        for (name, direction) in UPLINK_PROGRAMS {
            match &self.uplink {
                Some(uplink) => at_uplink(&mut self.ebpf, name, &uplink.link, direction, &self.bpf_dir)?,
                None => unpin_others(&self.bpf_dir, name, None)?,
            }
        }
        for folder in other_layouts(&self.bpf_dir)? {
            fs::remove_dir_all(&folder).map_err(at(&folder))?;
        }
        Ok(())
    }
}

fn other_layouts(bpf_dir: &Path) -> Result<Vec<PathBuf>, KernelError> {
    let current = map_folder(bpf_dir);
    let mut others = Vec::new();
    for entry in fs::read_dir(bpf_dir).map_err(at(bpf_dir))? {
        let path = entry.map_err(at(bpf_dir))?.path();
        if path.is_dir() && path != current {
            others.push(path);
        }
    }
    Ok(others)
}

/// Detaches the programs and removes all that was pinned.
///
/// # Errors
/// When a pin can't be removed.
pub fn detach(bpf_dir: &Path) -> Result<(), KernelError> {
    match fs::remove_dir_all(bpf_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(bpf_dir)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn at_cgroup(ebpf: &mut Ebpf, name: &'static str, cgroup: &File, bpf_dir: &Path) -> Result<(), KernelError> {
    let failed = |source: Reason| KernelError::Program { name, source };
    let program: &mut CgroupSockAddr = program(ebpf, name)?;
    // `Single` is no flag at all: a link is always beside others (cgroup_bpf_link_attach).
    let id = program.attach(cgroup, CgroupAttachMode::Single).map_err(|error| failed(Box::new(error)))?;
    let link = program.take_link(id).map_err(|error| failed(Box::new(error)))?;
    let link: FdLink = link.try_into().map_err(|error| failed(Box::new(error)))?;
    let (pin, next) = (bpf_dir.join(name), bpf_dir.join(format!("{name}_next")));
    unpin(&next)?;
    link.pin(&next).map_err(|error| failed(Box::new(error)))?;
    fs::rename(&next, &pin).map_err(at(&pin))
}

fn at_uplink(
    ebpf: &mut Ebpf,
    name: &'static str,
    uplink: &str,
    direction: TcAttachType,
    bpf_dir: &Path,
) -> Result<(), KernelError> {
    let failed = |source: Reason| KernelError::Program { name, source };
    let program: &mut SchedClassifier = program(ebpf, name)?;
    let pinned = format!("{name}@{uplink}");
    let pin = bpf_dir.join(&pinned);
    // Fails where the network link is another by now (ENOLINK): then a new one is attached.
    let replaced = PinnedLink::from_pin(&pin).ok().map(FdLink::from).and_then(|link| link.try_into().ok());
    let replaced = replaced.is_some_and(|link| program.attach_to_link(link).is_ok());
    if !replaced {
        unpin(&pin)?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::default());
        let id = program.attach_with_options(uplink, direction, options).map_err(|error| failed(Box::new(error)))?;
        let link = program.take_link(id).map_err(|error| failed(Box::new(error)))?;
        let link: FdLink = link.try_into().map_err(|error| failed(Box::new(error)))?;
        link.pin(&pin).map_err(|error| failed(Box::new(error)))?;
    }
    unpin_others(bpf_dir, name, Some(&pinned))
}

/// Detaches a program from the links that it was attached to before.
fn unpin_others(bpf_dir: &Path, name: &str, pinned: Option<&str>) -> Result<(), KernelError> {
    for entry in fs::read_dir(bpf_dir).map_err(at(bpf_dir))? {
        let file = entry.map_err(at(bpf_dir))?.file_name();
        let file = file.to_string_lossy();
        if Some(&*file) != pinned && file.strip_prefix(name).is_some_and(|rest| rest.starts_with('@')) {
            unpin(&bpf_dir.join(&*file))?;
        }
    }
    Ok(())
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, KernelError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let lacks = || KernelError::Program { name, source: "the object lacks it".into() };
    ebpf.program_mut(name).ok_or_else(lacks)?.try_into().map_err(refused(name))
}

fn refused(name: &'static str) -> impl FnOnce(ProgramError) -> KernelError {
    move |error| KernelError::Program { name, source: Box::new(error) }
}

fn unpin(pin: &Path) -> Result<(), KernelError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(pin)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}
