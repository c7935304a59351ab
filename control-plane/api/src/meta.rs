//! Object metadata, the same for every kind: reading it, naming objects, and upstream's rules for it.
//!
//! Invariant: accessors never fail; what is absent or of another type reads as empty. Validation answers in upstream's words
//! (k8s.io/apimachinery/pkg/api/validation and pkg/apis/meta/v1/validation).

mod access;
mod generate;
mod options;
mod selector;
mod validate;

pub use access::*;
pub use generate::{GENERATED_PREFIX_MAX_LENGTH, SUFFIX_ALPHABET, SUFFIX_LENGTH, generate_name, name_suffix};
pub use options::{
    validate_delete_options, validate_dry_run, validate_field_manager, validate_field_validation,
    validate_local_object_reference, validate_object_reference,
};
pub use selector::{validate_label_selector, validate_label_selector_requirement};
pub use validate::{
    validate_annotations, validate_create, validate_finalizers, validate_label_key, validate_labels,
    validate_managed_fields, validate_owner_references, validate_qualified_name, validate_update,
};
