//! In which form a client wants its answer.
//!
//! Answers to upstream's `apiserver/pkg/endpoints/handlers/negotiation`. Protobuf is offered for kinds that have such a form,
//! and for metadata alone; clients name JSON as their second choice for the rest (custom resources, Tables).

use http::HeaderMap;
use http::header::ACCEPT;
use trireme_api::protobuf;
use trireme_api::status::Status;

use crate::error::Answer;

/// The encoding of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

/// What is asked for in place of the object itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transform {
    /// The object.
    #[default]
    None,
    /// A Table.
    Table,
    /// Only the metadata.
    PartialMetadata,
    /// A list of only metadata.
    PartialMetadataList,
}

/// The negotiated form.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// How it is encoded.
    pub encoding: Encoding,
    /// What is shown.
    pub transform: Transform,
    /// The meta.k8s.io version of a Table or PartialObjectMetadata.
    pub v1beta1: bool,
    /// Whether the aggregated discovery document was asked for.
    pub aggregated_discovery: bool,
}

impl Form {
    /// The apiVersion of Tables and PartialObjectMetadata.
    pub fn meta_api_version(self) -> &'static str {
        if self.v1beta1 { "meta.k8s.io/v1beta1" } else { "meta.k8s.io/v1" }
    }
}

/// Which forms an endpoint has beside JSON, YAML and metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Whether its objects have a protobuf form.
    pub protobuf: bool,
    /// Whether its objects can be shown as rows of a Table.
    pub table: bool,
}

/// Picks the first acceptable form.
pub fn negotiate(headers: &HeaderMap, offer: Offer) -> Answer<Form> {
    let mut any = false;
    let mut ranges: Vec<(u32, &str)> = Vec::new();
    for value in headers.get_all(ACCEPT) {
        let Ok(value) = value.to_str() else { continue };
        for range in value.split(',').map(str::trim).filter(|r| !r.is_empty()) {
            any = true;
            let quality = range
                .split(';')
                .find_map(|p| p.trim().strip_prefix("q="))
                .and_then(|q| q.parse::<f32>().ok())
                .map_or(1000, |q| (q.clamp(0.0, 1.0) * 1000.0) as u32);
            ranges.push((quality, range));
        }
    }
    if !any {
        return Ok(Form::default());
    }
    ranges.sort_by_key(|(quality, _)| std::cmp::Reverse(*quality));
    ranges.into_iter().find_map(|(_, range)| accept(range, offer)).ok_or_else(|| Box::new(not_acceptable()))
}

fn accept(range: &str, offer: Offer) -> Option<Form> {
    let mut parts = range.split(';').map(str::trim);
    let mut form = Form {
        encoding: match parts.next()? {
            "application/json" | "application/*" | "*/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            protobuf::CONTENT_TYPE => Encoding::Protobuf,
            _ => return None,
        },
        ..Form::default()
    };
    let (mut what, mut group, mut version) = (None, None, None);
    for part in parts {
        match part.split_once('=') {
            Some(("as", v)) => what = Some(v),
            Some(("g", v)) => group = Some(v),
            Some(("v", v)) => version = Some(v),
            _ => {}
        }
    }
    let is_protobuf = form.encoding == Encoding::Protobuf;
    let Some(what) = what else { return (offer.protobuf || !is_protobuf).then_some(form) };
    if what == "APIGroupDiscoveryList" && !is_protobuf {
        form.aggregated_discovery = group == Some("apidiscovery.k8s.io") && version == Some("v2");
        return form.aggregated_discovery.then_some(form);
    }
    if group != Some("meta.k8s.io") {
        return None;
    }
    form.v1beta1 = match version {
        Some("v1") => false,
        Some("v1beta1") => true,
        _ => return None,
    };
    form.transform = match what {
        "Table" if !is_protobuf && offer.table => Transform::Table,
        "PartialObjectMetadata" => Transform::PartialMetadata,
        "PartialObjectMetadataList" => Transform::PartialMetadataList,
        _ => return None,
    };
    Some(form)
}

/// How a Status that ends a request is encoded: as the client would like an object that has every form.
pub fn status_encoding(headers: &HeaderMap) -> Encoding {
    match negotiate(headers, Offer { protobuf: true, table: true }) {
        Ok(form) if form.encoding == Encoding::Protobuf => Encoding::Protobuf,
        _ => Encoding::Json,
    }
}

/// Upstream's 406.
fn not_acceptable() -> Status {
    let mut status = Status::failure(
        406,
        "NotAcceptable",
        "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf",
    );
    status.details = Some(trireme_api::status::StatusDetails::default());
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str) -> Result<Form, u16> {
        check_kind(accept, true)
    }

    fn check_kind(accept: &str, has_protobuf: bool) -> Result<Form, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        negotiate(&headers, Offer { protobuf: has_protobuf, table: has_protobuf }).map_err(|s| s.code())
    }

    #[test]
    fn picks_what_kubectl_and_client_go_send() {
        let table =
            check("application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json")
                .unwrap();
        assert_eq!((table.transform, table.v1beta1), (Transform::Table, false));
        assert_eq!(check("application/vnd.kubernetes.protobuf, */*").unwrap().encoding, Encoding::Protobuf);
        assert_eq!(check_kind("application/vnd.kubernetes.protobuf, */*", false).unwrap(), Form::default());
        assert_eq!(check_kind("application/vnd.kubernetes.protobuf", false), Err(406));
        let metadata = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";
        let metadata = check_kind(metadata, false).unwrap();
        assert_eq!((metadata.encoding, metadata.transform), (Encoding::Protobuf, Transform::PartialMetadataList));
        let table = "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(check(table).unwrap(), Form::default());
        assert_eq!(check("application/json;q=0.5, application/yaml").unwrap().encoding, Encoding::Yaml);
        assert!(
            check("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json").unwrap().aggregated_discovery
        );
        assert_eq!(check_kind("application/json;as=Table;v=v1;g=meta.k8s.io", false), Err(406), "what has no columns has no Table");
        assert_eq!(check("text/csv"), Err(406));
        assert_eq!(check("application/json;as=Table;v=v9;g=meta.k8s.io"), Err(406));
    }
}
