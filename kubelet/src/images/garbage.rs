//! Which images go when the disk fills up: those unused for longest, never one in use, pinned, or just pulled.
//!
//! Invariant: [`ImageUses`] decides without I/O; [`Images::collect_garbage`] does what it says. Thresholds, order and words
//! as upstream's `pkg/kubelet/images/image_gc_manager.go`.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::{ImageError, Images, NodeImage};

/// When images are removed, and how many (`imageGCHighThresholdPercent` and its neighbours).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GarbagePolicy {
    /// Percent of the disk in use from which on space is freed; 100 is never.
    pub high_percent: u8,
    /// Percent of the disk in use down to which it is freed.
    pub low_percent: u8,
    /// An image seen for less than this stays.
    pub min_age: SignedDuration,
    /// An image unused for more than this goes, however full the disk is; none is never.
    pub max_age: Option<SignedDuration>,
}

impl Default for GarbagePolicy {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, min_age: SignedDuration::from_mins(2), max_age: None }
    }
}

/// The disk that images are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disk {
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes free.
    pub available: u64,
}

/// What is to be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Garbage {
    /// Ids, in the order of removal.
    pub images: Vec<String>,
    /// Their sizes together.
    pub freed: u64,
    /// That the disk stays fuller than it should, for the event `FreeDiskSpaceFailed`.
    pub insufficient: Option<String>,
}

/// When each image was seen and used, as far as this kubelet knows.
#[derive(Debug, Clone)]
pub struct ImageUses {
    /// Since when uses are known at all.
    since: Timestamp,
    uses: BTreeMap<String, Use>,
}

#[derive(Debug, Clone)]
struct Use {
    first_seen: Timestamp,
    /// None: not since the kubelet started.
    last_used: Option<Timestamp>,
    in_use: bool,
    pinned: bool,
    size: u64,
}

impl ImageUses {
    /// Nothing known yet.
    pub fn new(now: Timestamp) -> Self {
        Self { since: now, uses: BTreeMap::new() }
    }

    /// Takes in what is on the node, and the ids of images that containers have, ended ones too.
    pub fn observe(&mut self, images: &[NodeImage], in_use: &HashSet<String>, now: Timestamp) {
        let present: HashSet<&str> = images.iter().map(|image| image.id.as_str()).collect();
        self.uses.retain(|id, _| present.contains(id.as_str()));
        for image in images {
            let unseen = Use { first_seen: now, last_used: None, in_use: false, pinned: false, size: 0 };
            let of = self.uses.entry(image.id.clone()).or_insert(unseen);
            of.in_use = in_use.contains(&image.id);
            of.pinned = image.pinned;
            of.size = image.size_bytes;
            if of.in_use {
                of.last_used = Some(now);
            }
        }
    }

    /// Chooses what to remove, of what was last observed.
    pub fn garbage(&self, policy: &GarbagePolicy, disk: Disk, now: Timestamp) -> Garbage {
        let mut unused: Vec<(&String, &Use)> = self.uses.iter().filter(|(_, of)| !of.in_use && !of.pinned).collect();
        unused.sort_by_key(|(_, of)| (of.last_used, of.first_seen));
        let mut garbage = Garbage::default();
        // Uses before the kubelet's start are not known: nothing is too old until it has run for that long.
        if let Some(max_age) = policy.max_age.filter(|max_age| now.duration_since(self.since) > *max_age) {
            let old = |of: &Use| of.last_used.is_none_or(|used| now.duration_since(used) > max_age);
            unused.retain(|(id, of)| {
                let goes = old(of);
                if goes {
                    garbage.take(id, of.size);
                }
                !goes
            });
        }
        let Some(wanted) = over_threshold(policy, disk) else { return garbage };
        let freed_by_age = garbage.freed;
        for (id, of) in unused {
            if garbage.freed >= wanted {
                break;
            }
            if now.duration_since(of.first_seen) >= policy.min_age {
                garbage.take(id, of.size);
            }
        }
        if garbage.freed < wanted {
            let (percent, capacity) = (used_percent(disk), human_size(disk.capacity));
            let freed = garbage.freed - freed_by_age;
            garbage.insufficient = Some(format!(
                "Insufficient free disk space on the node's image filesystem ({percent}% of {capacity} used). Failed to free \
                 sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be \
                 used by active images, logs, volumes, or other data."
            ));
        }
        garbage
    }
}

impl Garbage {
    fn take(&mut self, id: &str, size: u64) {
        self.images.push(id.to_owned());
        self.freed = self.freed.saturating_add(size);
    }
}

impl Images {
    /// Removes images as the policy has it, and returns what was removed. `in_use` are the ids of images that containers
    /// have, also ended ones that are not removed yet.
    ///
    /// # Errors
    /// When the image service doesn't answer, or an image can't be removed; the next call goes on.
    pub async fn collect_garbage(
        &self,
        uses: &mut ImageUses,
        policy: &GarbagePolicy,
        in_use: &HashSet<String>,
        now: Timestamp,
    ) -> Result<Garbage, ImageError> {
        uses.observe(&self.list().await?, in_use, now);
        let systems = self.file_systems().await?;
        let mount_point = systems.first().map(|system| system.mount_point.clone()).unwrap_or_default();
        let disk = disk(Path::new(&mount_point));
        let disk = disk.map_err(|error| ImageError::Runtime(format!("image filesystem {mount_point:?}: {error}")))?;
        let garbage = uses.garbage(policy, disk, now);
        for id in &garbage.images {
            tracing::info!(image = id, "removing an unused image");
            self.remove(id).await?;
        }
        Ok(garbage)
    }
}

fn disk(of: &Path) -> std::io::Result<Disk> {
    let is = rustix::fs::statvfs(of)?;
    Ok(Disk { capacity: is.f_blocks * is.f_frsize, available: is.f_bavail * is.f_frsize })
}

/// The bytes to free, none while the disk is not full enough.
fn over_threshold(policy: &GarbagePolicy, disk: Disk) -> Option<u64> {
    if disk.capacity == 0 || used_percent(disk) < u64::from(policy.high_percent) || policy.high_percent >= 100 {
        return None;
    }
    let free = disk.capacity / 100 * u64::from(100_u8.saturating_sub(policy.low_percent));
    Some(free.saturating_sub(disk.available))
}

/// Rounded up, as upstream's.
fn used_percent(disk: Disk) -> u64 {
    let available = disk.available.min(disk.capacity);
    let free = u128::from(available) * 100 / u128::from(disk.capacity.max(1));
    100 - u64::try_from(free).unwrap_or(0).min(100)
}

fn human_size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = bytes;
    while whole >= 1024 && unit + 1 < units.len() {
        whole /= 1024;
        unit += 1;
    }
    format!("{whole} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    fn image(id: &str, size_bytes: u64) -> NodeImage {
        NodeImage { id: id.to_owned(), names: vec![], size_bytes, pinned: false }
    }

    fn in_use(ids: &[&str]) -> HashSet<String> {
        ids.iter().map(|id| (*id).to_owned()).collect()
    }

    /// Of three images `old` was used first, `new` later, `never` not at all.
    fn uses() -> ImageUses {
        let images = [image("old", 10), image("new", 10), image("never", 5)];
        let mut uses = ImageUses::new(at(0));
        uses.observe(&images, &in_use(&["old"]), at(0));
        uses.observe(&images, &in_use(&["new"]), at(100));
        uses.observe(&images, &in_use(&[]), at(200));
        uses
    }

    fn disk(available: u64) -> Disk {
        Disk { capacity: 100, available }
    }

    #[test]
    fn nothing_goes_while_there_is_room() {
        assert_eq!(uses().garbage(&GarbagePolicy::default(), disk(16), at(1000)), Garbage::default());
    }

    #[test]
    fn those_unused_for_longest_go_until_there_is_room() {
        let garbage = uses().garbage(&GarbagePolicy::default(), disk(10), at(1000));
        assert_eq!((garbage.images, garbage.insufficient), (vec!["never".to_owned(), "old".to_owned()], None));
    }

    #[test]
    fn what_is_in_use_pinned_or_new_stays_and_the_lack_is_told() {
        let mut uses = uses();
        let pinned = NodeImage { pinned: true, ..image("pinned", 50) };
        uses.observe(&[image("old", 10), image("fresh", 50), pinned], &in_use(&["old"]), at(950));
        let garbage = uses.garbage(&GarbagePolicy::default(), disk(10), at(1000));
        assert!(garbage.images.is_empty());
        let told = garbage.insufficient.unwrap();
        let words = "Insufficient free disk space on the node's image filesystem (90% of 100 B used). Failed to free sufficient \
                     space by deleting unused images (freed 0 bytes).";
        assert!(told.starts_with(words), "{told}");
    }

    #[test]
    fn an_image_unused_for_too_long_goes_once_the_kubelet_knows() {
        let policy = GarbagePolicy { max_age: Some(SignedDuration::from_secs(500)), ..GarbagePolicy::default() };
        assert!(uses().garbage(&policy, disk(90), at(500)).images.is_empty());
        assert_eq!(uses().garbage(&policy, disk(90), at(550)).images, ["never", "old"]);
    }

    #[test]
    fn an_image_that_is_gone_is_forgotten() {
        let mut uses = uses();
        uses.observe(&[], &in_use(&[]), at(300));
        assert!(uses.garbage(&GarbagePolicy::default(), disk(0), at(1000)).images.is_empty());
    }
}
