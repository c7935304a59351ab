//! Where in an object something is wrong, and what: upstream's `field.Path` and `field.Error` (k8s.io/apimachinery/pkg/util/validation/field).

use std::fmt;

/// A path into an object, such as `spec.template.spec.containers[0].image` or `metadata.labels[app]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// The path of a top-level field; the empty string is the object itself.
    #[must_use]
    pub fn new(root: &str) -> Self {
        Self(root.to_owned())
    }

    /// The path of a named field below this one.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The path of an item of the list that is here.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The path of an entry of the map that is here.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("<nil>") } else { f.write_str(&self.0) }
    }
}

/// What is wrong with a field. The names are those that clients see as the cause's `reason`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// A reference to something that does not exist.
    NotFound,
    /// A value that must be given is not.
    Required,
    /// A value that must be unique is there twice.
    Duplicate,
    /// A malformed or out-of-range value.
    Invalid,
    /// A value outside of an enumeration.
    NotSupported,
    /// A value that is valid, but not allowed here and now.
    Forbidden,
    /// A string that is too long.
    TooLong,
    /// A list with too many items.
    TooMany,
    /// A failure that has nothing to do with the value.
    Internal,
    /// A value of the wrong JSON type.
    TypeInvalid,
}

impl ErrorType {
    /// The `reason` of a `StatusCause`.
    #[must_use]
    pub const fn cause(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Internal => "InternalError",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Internal => "Internal error",
            Self::TypeInvalid => "Invalid value",
        }
    }
}

/// One thing that is wrong with an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of mistake it is.
    pub kind: ErrorType,
    /// Where.
    pub field: Path,
    /// The value as Go prints it (`"quoted"`, `5`, `null`), where the message shows one.
    pub value: Option<String>,
    /// What would be right.
    pub detail: String,
}

/// All that is wrong with an object, in the order found.
pub type ErrorList = Vec<Error>;

/// A value as it stands in a message: strings quoted, everything else as JSON.
fn shown(value: &serde_json::Value) -> String {
    value.to_string()
}

impl Error {
    /// A required value is missing.
    #[must_use]
    pub fn required(field: &Path, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::Required, field: field.clone(), value: None, detail: detail.into() }
    }

    /// A value is malformed or out of range.
    #[must_use]
    pub fn invalid(field: &Path, value: impl Into<serde_json::Value>, detail: impl Into<String>) -> Self {
        Self {
            kind: ErrorType::Invalid,
            field: field.clone(),
            value: Some(shown(&value.into())),
            detail: detail.into(),
        }
    }

    /// A value has the wrong type.
    #[must_use]
    pub fn type_invalid(field: &Path, value: impl Into<serde_json::Value>, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::TypeInvalid, ..Self::invalid(field, value, detail) }
    }

    /// A value is not of the enumeration `valid` (listed in the order given, as upstream sorts it).
    #[must_use]
    pub fn not_supported(field: &Path, value: impl Into<serde_json::Value>, valid: &[&str]) -> Self {
        let detail = if valid.is_empty() {
            String::new()
        } else {
            let quoted: Vec<String> = valid.iter().map(|v| format!("\"{v}\"")).collect();
            format!("supported values: {}", quoted.join(", "))
        };
        Self { kind: ErrorType::NotSupported, ..Self::invalid(field, value, detail) }
    }

    /// A value is there twice.
    #[must_use]
    pub fn duplicate(field: &Path, value: impl Into<serde_json::Value>) -> Self {
        Self { kind: ErrorType::Duplicate, ..Self::invalid(field, value, "") }
    }

    /// A value refers to something that does not exist.
    #[must_use]
    pub fn not_found(field: &Path, value: impl Into<serde_json::Value>) -> Self {
        Self { kind: ErrorType::NotFound, ..Self::invalid(field, value, "") }
    }

    /// A value is not allowed here and now.
    #[must_use]
    pub fn forbidden(field: &Path, detail: impl Into<String>) -> Self {
        Self { kind: ErrorType::Forbidden, field: field.clone(), value: None, detail: detail.into() }
    }

    /// A string is longer than `max` bytes; the value itself is not shown.
    #[must_use]
    pub fn too_long(field: &Path, max: usize) -> Self {
        let detail = format!("may not be more than {max} bytes");
        Self { kind: ErrorType::TooLong, field: field.clone(), value: None, detail }
    }

    /// A list of `actual` items where `max` are allowed.
    #[must_use]
    pub fn too_many(field: &Path, actual: usize, max: usize) -> Self {
        let detail = format!("must have at most {max} items");
        Self { kind: ErrorType::TooMany, field: field.clone(), value: Some(actual.to_string()), detail }
    }

    /// The message without the field: upstream's `ErrorBody`.
    #[must_use]
    pub fn body(&self) -> String {
        let mut body = self.kind.words().to_owned();
        if let Some(value) = &self.value {
            body.push_str(": ");
            body.push_str(value);
        }
        if !self.detail.is_empty() {
            body.push_str(": ");
            body.push_str(&self.detail);
        }
        body
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}
