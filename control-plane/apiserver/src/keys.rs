//! The layout of the store: `group/plural/namespace/name`, or `group/plural//name` for cluster-scoped kinds; the core group is `core`.
//! Names hold no slash (path segment names, checked before a key is made), so a key always splits the same way.

use bytes::Bytes;
use skep_api::GroupResource;
use skep_store::Range;

/// The key of an object; `namespace` is empty for cluster-scoped kinds.
#[must_use]
pub(crate) fn object(resource: &GroupResource, namespace: &str, name: &str) -> Bytes {
    format!("{}{namespace}/{name}", prefix(resource)).into()
}

/// All objects of a resource, in one namespace or (empty) in all.
#[must_use]
pub(crate) fn range(resource: &GroupResource, namespace: &str) -> Range {
    let prefix = prefix(resource);
    Range::prefix(if namespace.is_empty() { prefix } else { format!("{prefix}{namespace}/") })
}

/// What the keys of a resource begin with.
#[must_use]
pub(crate) fn prefix(resource: &GroupResource) -> String {
    let group = if resource.group.is_empty() { "core" } else { &resource.group };
    format!("{group}/{}/", resource.resource)
}

/// The resource's prefix of a key: `group/plural/`.
#[must_use]
pub(crate) fn resource_prefix(key: &[u8]) -> &[u8] {
    let mut slashes = key.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    let _group = slashes.next();
    slashes.next().map_or(&[], |end| &key[..=end])
}

/// The resource of a prefix.
#[must_use]
pub(crate) fn resource_of(prefix: &[u8]) -> Option<GroupResource> {
    let (group, resource) = std::str::from_utf8(prefix).ok()?.trim_end_matches('/').split_once('/')?;
    let group = if group == "core" { "" } else { group };
    Some(GroupResource { group: group.to_owned().into(), resource: resource.to_owned().into() })
}

/// The namespace and name of a key.
#[must_use]
pub(crate) fn split(key: &[u8]) -> (&str, &str) {
    let key = std::str::from_utf8(key).unwrap_or_default();
    let mut parts = key.splitn(4, '/').skip(2);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_split_into_what_they_were_made_of() {
        let key = object(&GroupResource::new("apps", "deployments"), "ns", "web");
        assert_eq!(&key[..], b"apps/deployments/ns/web");
        assert_eq!(split(&key), ("ns", "web"));
        assert_eq!(resource_prefix(&key), b"apps/deployments/");
        assert_eq!(split(&object(&GroupResource::new("", "nodes"), "", "n")), ("", "n"));
        assert!(range(&GroupResource::new("apps", "deployments"), "ns").contains(&key));
        assert!(!range(&GroupResource::new("apps", "deployments"), "n").contains(&key));
    }
}
