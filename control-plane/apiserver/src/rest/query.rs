//! The query parameters of a request: metav1.ListOptions, GetOptions, CreateOptions, UpdateOptions, PatchOptions, DeleteOptions as the URL carries them.

use std::time::Duration;

use skep_api::Status;
use skep_api::field::{Error as FieldError, Path};
use skep_api::gvk::{GroupKind, Name};
use skep_store::Revision;

use super::patch::PatchType;

/// What to do with fields that the schema does not know: `fieldValidation`.
pub use skep_api::decode::FieldValidation;

/// All parameters of all verbs; each verb reads its own.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// `labelSelector`, unparsed.
    pub label_selector: String,
    /// `fieldSelector`, unparsed.
    pub field_selector: String,
    /// `watch=true`
    pub watch: bool,
    /// `allowWatchBookmarks=true`
    pub bookmarks: bool,
    /// `sendInitialEvents`
    pub initial_events: Option<bool>,
    /// `resourceVersion`; `None` when absent or empty.
    pub resource_version: Option<Revision>,
    /// `resourceVersionMatch`
    pub version_match: String,
    /// `timeoutSeconds`
    pub timeout: Option<Duration>,
    /// `limit`
    pub limit: usize,
    /// `continue`
    pub continue_token: String,
    /// `dryRun=All`
    pub dry_run: bool,
    /// `fieldManager`
    pub field_manager: String,
    /// `fieldValidation`
    pub field_validation: Option<FieldValidation>,
    /// `force`; `None` when it is not given.
    pub force: Option<bool>,
    /// The `User-Agent` header, which names the field manager of a request that does not.
    pub user_agent: String,
    /// `gracePeriodSeconds`
    pub grace_period: Option<i64>,
    /// `propagationPolicy`
    pub propagation_policy: String,
    /// `orphanDependents`
    pub orphan_dependents: Option<bool>,
    /// `pretty`
    pub pretty: bool,
    /// `includeObject` of a table: `None`, `Metadata` or `Object`.
    pub include_object: String,
}

impl Query {
    /// Reads the query of a URL. Unknown parameters are ignored, as upstream does.
    ///
    /// # Errors
    /// 400 naming the parameter that can't be read.
    pub fn parse(query: Option<&str>) -> Result<Self, Status> {
        let mut out = Self::default();
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let value = value.as_ref();
            match key.as_ref() {
                "labelSelector" => value.clone_into(&mut out.label_selector),
                "fieldSelector" => value.clone_into(&mut out.field_selector),
                "watch" => out.watch = flag(value),
                "allowWatchBookmarks" => out.bookmarks = flag(value),
                "sendInitialEvents" => out.initial_events = Some(flag(value)),
                "resourceVersion" if !value.is_empty() => {
                    let number = value.parse().map_err(|_| {
                        Status::bad_request(format!("resourceVersion: Invalid value: \"{value}\": strconv.ParseUint: parsing \"{value}\": invalid syntax"))
                    })?;
                    out.resource_version = Some(Revision(number));
                }
                "resourceVersionMatch" => value.clone_into(&mut out.version_match),
                "timeoutSeconds" if !value.is_empty() => out.timeout = Some(Duration::from_secs(number(&key, value)?)),
                "limit" if !value.is_empty() => out.limit = usize::try_from(number::<u32>(&key, value)?).unwrap_or(0),
                "continue" => value.clone_into(&mut out.continue_token),
                "dryRun" if !value.is_empty() => {
                    if value != "All" {
                        return Err(Status::bad_request(format!(
                            "dryRun: Unsupported value: \"{value}\": supported values: \"All\""
                        )));
                    }
                    out.dry_run = true;
                }
                "fieldManager" => value.clone_into(&mut out.field_manager),
                "fieldValidation" if !value.is_empty() => {
                    out.field_validation = Some(match value {
                        "Strict" => FieldValidation::Strict,
                        "Warn" => FieldValidation::Warn,
                        "Ignore" => FieldValidation::Ignore,
                        _ => {
                            return Err(Status::bad_request(format!(
                                "fieldValidation: Unsupported value: \"{value}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
                            )));
                        }
                    });
                }
                "force" => out.force = Some(flag(value)),
                "gracePeriodSeconds" if !value.is_empty() => out.grace_period = Some(number(&key, value)?),
                "propagationPolicy" => value.clone_into(&mut out.propagation_policy),
                "orphanDependents" => out.orphan_dependents = Some(flag(value)),
                "pretty" => out.pretty = flag(value),
                "includeObject" => value.clone_into(&mut out.include_object),
                _ => {}
            }
        }
        Ok(out)
    }

    /// Checks what comes with a write: its options are a `CreateOptions`, `UpdateOptions` or `PatchOptions`.
    ///
    /// # Errors
    /// 422 for a field manager that is too long, not printable or missing, and for a force that forces nothing.
    pub(crate) fn check_options(&self, kind: &'static str, patch: Option<PatchType>) -> Result<(), Status> {
        let path = Path::new("fieldManager");
        let mut errors = Vec::new();
        match patch {
            Some(PatchType::Apply) if self.field_manager.is_empty() => {
                errors.push(FieldError::required(&path, "is required for apply patch"));
            }
            Some(PatchType::Json | PatchType::Merge | PatchType::Strategic) if self.force.is_some() => {
                errors.push(FieldError::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
            }
            _ => {}
        }
        errors.extend(skep_api::meta::validate_field_manager(&self.field_manager, &path));
        if errors.is_empty() {
            return Ok(());
        }
        let kind = GroupKind { group: Name::Borrowed("meta.k8s.io"), kind: Name::Borrowed(kind) };
        Err(Status::invalid(&kind, "", &errors))
    }

    /// The name of who writes, for `managedFields`.
    pub(crate) fn manager(&self) -> String {
        skep_api::apply::manager_of(&self.field_manager, &self.user_agent)
    }

    /// What unknown fields do; upstream's default is to warn.
    #[must_use]
    pub fn validation(&self) -> FieldValidation {
        self.field_validation.unwrap_or(FieldValidation::Warn)
    }
}

/// Upstream's Convert_Slice_string_To_bool: present means true, unless it says false or 0.
fn flag(value: &str) -> bool {
    !matches!(value, "false" | "0" | "False" | "FALSE")
}

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, Status> {
    value.parse().map_err(|_| {
        Status::bad_request(format!(
            "{key}: Invalid value: \"{value}\": strconv.ParseInt: parsing \"{value}\": invalid syntax"
        ))
    })
}
