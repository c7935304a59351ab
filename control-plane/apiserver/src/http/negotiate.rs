//! Which form of an answer a client wants: `Accept`, and which form a body has: `Content-Type`.

use skep_api::Status;
use skep_api::decode::Media;

/// What an object is shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As it is.
    Whole,
    /// `as=Table`: columns and rows for people.
    Table,
    /// `as=PartialObjectMetadata` (or `…List`): metadata only.
    Metadata,
}

/// What an answer is encoded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The shape.
    pub shape: Shape,
    /// YAML instead of JSON.
    pub yaml: bool,
}

/// What can be made.
const OFFERED: &[&str] = &["application/json", "application/yaml"];
/// What can be read.
const READ: &[&str] = &["application/json", "application/yaml", PROTOBUF];
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The first form in `Accept` (by order, then by quality 0) that can be made.
///
/// # Errors
/// 406 when there is none.
pub(crate) fn accept(header: Option<&str>) -> Result<Accepted, Status> {
    let plain = Accepted { shape: Shape::Whole, yaml: false };
    let Some(header) = header.filter(|header| !header.trim().is_empty()) else { return Ok(plain) };
    for clause in header.split(',') {
        let mut parts = clause.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let yaml = match media {
            "*/*" | "application/*" | "application/json" => false,
            "application/yaml" => true,
            _ => continue,
        };
        let mut shape = Some(Shape::Whole);
        let (mut group, mut version) = (None, None);
        for (key, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            match key {
                "as" => {
                    shape = match value {
                        "Table" => Some(Shape::Table),
                        "PartialObjectMetadata" | "PartialObjectMetadataList" => Some(Shape::Metadata),
                        _ => None,
                    }
                }
                "g" => group = Some(value),
                "v" => version = Some(value),
                "q" if value.parse::<f32>().is_ok_and(|quality| quality <= 0.0) => shape = None,
                _ => {}
            }
        }
        let known = |shape| {
            shape == Shape::Whole || (group == Some("meta.k8s.io") && matches!(version, Some("v1" | "v1beta1")))
        };
        if let Some(shape) = shape.filter(|shape| known(*shape)) {
            return Ok(Accepted { shape, yaml });
        }
    }
    Err(Status::not_acceptable(OFFERED))
}

/// How a body is encoded.
///
/// # Errors
/// 415 when it is something that is not read here.
pub(crate) fn content(header: Option<&str>) -> Result<Media, Status> {
    match essence(header) {
        "" | "application/json" => Ok(Media::Json),
        "application/yaml" | "text/yaml" | "application/x-yaml" => Ok(Media::Yaml),
        PROTOBUF => Ok(Media::Protobuf),
        _ => Err(Status::unsupported_media_type(READ)),
    }
}

/// The media type without parameters.
#[must_use]
pub(crate) fn essence(header: Option<&str>) -> &str {
    header.and_then(|header| header.split(';').next()).map(str::trim).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_gets_a_table_and_clients_without_wishes_get_json() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(accept(Some(table)).unwrap().shape, Shape::Table);
        assert_eq!(accept(None).unwrap(), Accepted { shape: Shape::Whole, yaml: false });
        assert_eq!(accept(Some("application/vnd.kubernetes.protobuf, */*")).unwrap().shape, Shape::Whole);
        assert!(accept(Some("application/yaml")).unwrap().yaml);
    }

    #[test]
    fn what_cannot_be_made_is_not_acceptable() {
        assert_eq!(accept(Some("application/vnd.kubernetes.protobuf")).unwrap_err().code, 406);
        assert_eq!(accept(Some("application/json;as=Table;v=v9;g=meta.k8s.io")).unwrap_err().code, 406);
        assert_eq!(content(Some("application/cbor")).unwrap_err().code, 415);
    }
}
