//! Which form of an answer a client wants: `Accept`, and which form a body has: `Content-Type`. Upstream: k8s.io/apiserver/pkg/endpoints/handlers/negotiation.

use skep_api::Status;
use skep_api::decode::Media;

/// What an object is shown as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As it is.
    Whole,
    /// `as=Table`: columns and rows for people.
    Table,
    /// `as=PartialObjectMetadata`: metadata only.
    Metadata,
    /// `as=PartialObjectMetadataList`: a list of such.
    MetadataList,
}

/// What an answer is encoded in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// RFC 8259.
    Json,
    /// One YAML document.
    Yaml,
    /// Kubernetes' protobuf envelope.
    Protobuf,
}

impl Form {
    /// Its media type.
    pub(crate) const fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => PROTOBUF,
        }
    }
}

/// A form and a shape that were agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// The shape.
    pub shape: Shape,
    /// The encoding.
    pub form: Form,
    /// The API version of a shape that is not the object's own.
    pub meta_version: &'static str,
}

/// What can be made of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// The objects themselves have a protobuf form.
    pub protobuf: bool,
    /// They can be shown as a table, or by their metadata.
    pub shapes: bool,
}

impl Offer {
    /// What has no other shapes: a Status, a discovery document.
    pub(crate) const PLAIN: Self = Self { protobuf: true, shapes: false };
}

/// What can be made and read.
const FORMS: &[&str] = &["application/json", "application/yaml", PROTOBUF];
/// What a watch can be.
const STREAMS: &[&str] = &["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The best form in `Accept` that can be made: by quality, then by how exactly it is named, then by order.
///
/// # Errors
/// 406 when there is none.
pub(crate) fn accept(header: Option<&str>, offer: Offer) -> Result<Accepted, Status> {
    let Some(header) = header.filter(|header| !header.trim().is_empty()) else {
        return Ok(Accepted { shape: Shape::Whole, form: Form::Json, meta_version: "meta.k8s.io/v1" });
    };
    let mut clauses: Vec<Clause<'_>> = header.split(',').map(Clause::parse).filter(|c| c.quality > 0.0).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality).then(a.wildcards.cmp(&b.wildcards)));
    clauses.iter().find_map(|clause| clause.accepted(offer)).ok_or_else(|| Status::not_acceptable(FORMS))
}

/// The same for a watch, which can't be YAML.
///
/// # Errors
/// 406.
pub(crate) fn accept_stream(header: Option<&str>, offer: Offer) -> Result<Accepted, Status> {
    let accepted = accept(header, offer)?;
    if accepted.form == Form::Yaml { Err(Status::not_acceptable(STREAMS)) } else { Ok(accepted) }
}

/// The form of an error: the one that the client wants, or JSON.
#[must_use]
pub(crate) fn error_form(header: Option<&str>) -> Form {
    accept(header, Offer::PLAIN).map_or(Form::Json, |accepted| accepted.form)
}

/// One media range of `Accept`.
struct Clause<'a> {
    media: &'a str,
    quality: f32,
    /// 0 for an exact type, 1 for `application/*`, 2 for `*/*`.
    wildcards: u8,
    as_kind: Option<&'a str>,
    group: Option<&'a str>,
    version: Option<&'a str>,
    stream: Option<&'a str>,
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let wildcards = match media {
            "*/*" => 2,
            media if media.ends_with("/*") => 1,
            _ => 0,
        };
        let mut clause =
            Self { media, quality: 1.0, wildcards, as_kind: None, group: None, version: None, stream: None };
        for (key, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match key.trim() {
                "as" => clause.as_kind = Some(value),
                "g" => clause.group = Some(value),
                "v" => clause.version = Some(value),
                "stream" => clause.stream = Some(value),
                "q" => clause.quality = value.parse().unwrap_or(1.0),
                _ => {}
            }
        }
        clause
    }

    fn accepted(&self, offer: Offer) -> Option<Accepted> {
        let (shape, meta_version) = self.shape(offer)?;
        let forms: &[Form] = match self.media {
            "*/*" | "application/*" => &[Form::Json, Form::Yaml, Form::Protobuf],
            "application/json" => &[Form::Json],
            "application/yaml" => &[Form::Yaml],
            PROTOBUF => &[Form::Protobuf],
            _ => &[],
        };
        let can = |form: Form| match (form, shape) {
            (Form::Json, _) => true,
            (Form::Yaml, _) => self.stream.is_none_or(str::is_empty),
            (Form::Protobuf, Shape::Whole) => offer.protobuf,
            (Form::Protobuf, Shape::Table) => false,
            (Form::Protobuf, Shape::Metadata | Shape::MetadataList) => true,
        };
        let form = forms.iter().copied().find(|form| can(*form))?;
        Some(Accepted { shape, form, meta_version })
    }

    /// The shape that is asked for; `None` when there is no such.
    fn shape(&self, offer: Offer) -> Option<(Shape, &'static str)> {
        if !matches!(self.stream, None | Some("" | "watch")) {
            return None;
        }
        if (self.as_kind, self.group, self.version) == (None, None, None) {
            return Some((Shape::Whole, "meta.k8s.io/v1"));
        }
        let version = match self.version {
            Some("v1") => "meta.k8s.io/v1",
            Some("v1beta1") => "meta.k8s.io/v1beta1",
            _ => return None,
        };
        let shape = match self.as_kind? {
            "Table" => Shape::Table,
            "PartialObjectMetadata" => Shape::Metadata,
            "PartialObjectMetadataList" => Shape::MetadataList,
            _ => return None,
        };
        (offer.shapes && self.group == Some("meta.k8s.io")).then_some((shape, version))
    }
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
        _ => Err(Status::unsupported_media_type(FORMS)),
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

    const ALL: Offer = Offer { protobuf: true, shapes: true };
    const CUSTOM: Offer = Offer { protobuf: false, shapes: true };

    fn of(header: &str) -> (Form, Shape) {
        accept(Some(header), ALL).map(|accepted| (accepted.form, accepted.shape)).unwrap()
    }

    #[test]
    fn kubectl_gets_a_table_and_clients_without_wishes_get_json() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
        assert_eq!(of(table), (Form::Json, Shape::Table));
        assert_eq!(of(""), (Form::Json, Shape::Whole));
        assert_eq!(of("*/*"), (Form::Json, Shape::Whole));
        assert_eq!(of("application/yaml"), (Form::Yaml, Shape::Whole));
        let beta = accept(Some("application/json;as=Table;v=v1beta1;g=meta.k8s.io"), ALL).unwrap();
        assert_eq!(beta.meta_version, "meta.k8s.io/v1beta1");
    }

    #[test]
    fn the_first_of_the_best_that_can_be_made_is_taken() {
        assert_eq!(of("application/vnd.kubernetes.protobuf,application/json"), (Form::Protobuf, Shape::Whole));
        assert_eq!(of("application/vnd.kubernetes.protobuf;stream=watch"), (Form::Protobuf, Shape::Whole));
        assert_eq!(of("application/vnd.kubernetes.protobuf;q=0.5, application/yaml"), (Form::Yaml, Shape::Whole));
        assert_eq!(of("*/*, application/vnd.kubernetes.protobuf"), (Form::Protobuf, Shape::Whole));
        assert_eq!(of("application/json;q=0,application/yaml"), (Form::Yaml, Shape::Whole));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
        assert_eq!(of(metadata), (Form::Protobuf, Shape::MetadataList));
        let table = "application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1,application/json";
        assert_eq!(of(table), (Form::Json, Shape::Whole));
    }

    #[test]
    fn objects_without_a_protobuf_form_are_json_to_those_who_take_it() {
        let both = "application/vnd.kubernetes.protobuf,application/json";
        assert_eq!(accept(Some(both), CUSTOM).unwrap().form, Form::Json);
        assert_eq!(accept(Some("application/vnd.kubernetes.protobuf"), CUSTOM).unwrap_err().code, 406);
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
        assert_eq!(accept(Some(metadata), CUSTOM).unwrap().form, Form::Protobuf);
    }

    #[test]
    fn what_cannot_be_made_is_not_acceptable() {
        assert_eq!(accept(Some("application/cbor"), ALL).unwrap_err().code, 406);
        assert_eq!(accept(Some("application/json;as=Table;v=v9;g=meta.k8s.io"), ALL).unwrap_err().code, 406);
        assert_eq!(accept(Some("application/json;as=Table;v=v1;g=meta.k8s.io"), Offer::PLAIN).unwrap_err().code, 406);
        assert_eq!(accept_stream(Some("application/yaml"), ALL).unwrap_err().code, 406);
        assert_eq!(error_form(Some("application/json;as=Table;v=v1;g=meta.k8s.io")), Form::Json);
        assert_eq!(content(Some("application/cbor")).unwrap_err().code, 415);
    }
}
