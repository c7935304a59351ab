//! What an applier hears when fields that it sets are another's (k8s.io/apimachinery/pkg/util/managedfields/internal/conflict.go).

use super::fields::Fields;
use super::managers::{Entry, Operation};
use crate::status::{Cause, Details, Reason, Status};

/// The fields of a manager that an apply would change.
#[derive(Clone, Debug, PartialEq)]
pub struct Conflict {
    pub(super) with: Entry,
    /// The fields.
    pub fields: Fields,
}

impl Conflict {
    /// The manager as messages name it.
    fn manager(&self) -> String {
        let mut out = format!("{:?}", self.with.manager);
        if !self.with.subresource.is_empty() {
            out.push_str(&format!(" with subresource {:?}", self.with.subresource));
        }
        if self.with.operation == Operation::Update {
            // Upstream's identifiers of managers have no time, so that none is told.
            out.push_str(&format!(" using {}", self.with.api_version));
        }
        out
    }

    /// Upstream's identifier, by which the managers are sorted.
    fn identifier(&self) -> (&str, &'static str, &str, &str) {
        let operation = if self.with.operation == Operation::Apply { "Apply" } else { "Update" };
        (&self.with.manager, operation, &self.with.api_version, &self.with.subresource)
    }
}

/// 409 with a cause for every field.
pub(super) fn status(mut conflicts: Vec<Conflict>) -> Status {
    conflicts.sort_by(|a, b| a.identifier().cmp(&b.identifier()));
    let mut causes = Vec::new();
    let mut lines = Vec::new();
    for conflict in &conflicts {
        let manager = conflict.manager();
        lines.push(format!("conflicts with {manager}:"));
        for path in conflict.fields.paths() {
            lines.push(format!("- {path}"));
            causes.push(Cause {
                reason: "FieldManagerConflict".to_owned(),
                message: format!("conflict with {manager}"),
                field: path,
            });
        }
    }
    let message = match causes.as_slice() {
        [only] => format!("Apply failed with 1 conflict: {}: {}", only.message, only.field),
        many => format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n")),
    };
    let mut status = Status::new(409, Reason::Conflict, message);
    status.details = Some(Box::new(Details { causes, ..Details::default() }));
    status
}
