//! Which user a container's process is: names and numbers looked up in the image's own `/etc/passwd` and `/etc/group`.
//!
//! Invariant: pure; the files are texts that the image's maker wrote, lines that don't parse are passed over. Lookup as
//! containerd's `WithUser` and `WithAdditionalGIDs`; what of the image counts, as upstream's kubelet
//! (`determineEffectiveSecurityContext`): its user, but not its group.

/// A user by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum User {
    /// A number, which need not be in any file.
    Id(u32),
    /// A name of the image's `/etc/passwd`.
    Name(String),
}

/// A user that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedUser {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// The primary group, then those of `/etc/group` that the user is in.
    pub groups: Vec<u32>,
    /// The home folder of `/etc/passwd`; none when the user is not there.
    pub home: Option<String>,
}

/// Why a user can't be looked up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// The name is in no file.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    Unknown(String),
}

impl User {
    /// The user of an image's `user[:group]`; none given is root.
    pub fn of_image(text: &str) -> Self {
        let user = text.split(':').next().unwrap_or_default();
        if user.is_empty() {
            return Self::Id(0);
        }
        user.parse().map_or_else(|_| Self::Name(user.to_owned()), Self::Id)
    }

    /// Looks the user up in the texts of `/etc/passwd` and `/etc/group`, empty for a file that is not there.
    /// `group` is `runAsGroup`; without one it is the primary group in `/etc/passwd`, or root's.
    ///
    /// # Errors
    /// When a name is not there.
    pub fn resolve(&self, group: Option<u32>, passwd: &str, groups: &str) -> Result<ResolvedUser, UserError> {
        let mut entries = passwd.lines().filter_map(Entry::parse);
        let entry = match self {
            Self::Id(id) => entries.find(|entry| entry.uid == *id),
            Self::Name(name) => entries.find(|entry| entry.name == name),
        };
        let uid = match (self, &entry) {
            (_, Some(entry)) => entry.uid,
            (Self::Id(id), None) => *id,
            (Self::Name(name), None) => return Err(UserError::Unknown(name.clone())),
        };
        let gid = group.or(entry.as_ref().map(|entry| entry.gid)).unwrap_or(0);
        let mut all = vec![gid];
        if let Some(entry) = &entry {
            let of_user = groups.lines().filter_map(|line| group_with(line, entry.name));
            for group in of_user {
                if !all.contains(&group) {
                    all.push(group);
                }
            }
        }
        Ok(ResolvedUser { uid, gid, groups: all, home: entry.map(|entry| entry.home.to_owned()) })
    }
}

/// A line of `/etc/passwd`.
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl<'a> Entry<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let _password = fields.next()?;
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or_default();
        Some(Self { name, uid, gid, home })
    }
}

/// The number of a line of `/etc/group`, if it lists the user.
fn group_with(line: &str, user: &str) -> Option<u32> {
    let mut fields = line.split(':').skip(2);
    let gid = fields.next()?.parse().ok()?;
    fields.next()?.split(',').any(|member| member.trim() == user).then_some(gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken line\nweb:x:33:34::/var/www:/bin/false\n";
    const GROUP: &str = "root:x:0:\nlogs:x:7:other,web\nwheel:x:10:root\nweb:x:34:web\n";

    #[test]
    fn a_name_is_looked_up_with_its_groups() {
        let found = User::of_image("web").resolve(None, PASSWD, GROUP).unwrap();
        let home = Some("/var/www".to_owned());
        assert_eq!(found, ResolvedUser { uid: 33, gid: 34, groups: vec![34, 7], home });
    }

    #[test]
    fn a_number_that_is_in_no_file_is_in_roots_group() {
        let found = User::of_image("1000:1000").resolve(None, PASSWD, GROUP).unwrap();
        assert_eq!(found, ResolvedUser { uid: 1000, gid: 0, groups: vec![0], home: None });
    }

    #[test]
    fn no_user_is_root() {
        let found = User::of_image("").resolve(None, "", "").unwrap();
        assert_eq!((found.uid, found.gid), (0, 0));
    }

    #[test]
    fn the_pods_group_comes_before_the_images() {
        let found = User::Id(33).resolve(Some(5), PASSWD, GROUP).unwrap();
        assert_eq!((found.gid, found.groups), (5, vec![5, 7, 34]));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        let error = User::of_image("nobody:x").resolve(None, PASSWD, GROUP).unwrap_err();
        assert_eq!(error.to_string(), "unable to find user nobody: no matching entries in passwd file");
    }
}
