//! PKCS #10 certificate requests: decoded once, judged and signed from the same bytes.
//!
//! Owns how the PEM document in `spec.request` of a CertificateSigningRequest becomes DER, and what its subject says. The
//! document holds exactly one block, so that no two PEM parsers can see two different requests in it. Must not decide which
//! certificates a client may have (admission and the signers do).
//!
//! Answers to RFC 2986, RFC 7468 and upstream's `ParseCSR`.

use std::net::IpAddr;

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::meta;

const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----";
const END: &str = "-----END CERTIFICATE REQUEST-----";
const WRONG_TYPE: &str = "PEM block type must be CERTIFICATE REQUEST";

/// A request whose signature has been verified.
#[derive(Clone, Debug)]
pub struct CertificateRequest {
    der: Vec<u8>,
    subject: RequestSubject,
}

/// Subject and alternative names of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestSubject {
    /// Common name.
    pub common_name: String,
    /// Every organization (that is: every group).
    pub organizations: Vec<String>,
    /// DNS names.
    pub dns_names: Vec<String>,
    /// IP addresses.
    pub ips: Vec<IpAddr>,
    /// Whether there are names of another kind (e-mail, URI, ...).
    pub other_names: bool,
}

// === impl CertificateRequest ===

impl CertificateRequest {
    /// Decodes a PEM document that holds one certificate request and nothing else, and verifies its signature.
    ///
    /// # Errors
    /// What is wrong with it, for the client.
    pub fn decode(pem: &[u8]) -> Result<CertificateRequest, String> {
        let der = der_of(pem)?;
        let (rest, request) = X509CertificationRequest::from_der(&der).map_err(|error| format!("malformed request: {error}"))?;
        if !rest.is_empty() {
            return Err("data after the request".to_owned());
        }
        request.verify_signature().map_err(|error| format!("the request's signature is not valid: {error}"))?;
        let subject = subject_of(&request)?;
        Ok(CertificateRequest { der, subject })
    }

    /// Decodes `spec.request` of a CertificateSigningRequest object.
    ///
    /// # Errors
    /// As [`CertificateRequest::decode`].
    pub fn of_object(object: &Value) -> Result<CertificateRequest, String> {
        let pem = BASE64_STANDARD.decode(meta::str_at(object, &["spec", "request"])).map_err(|_| WRONG_TYPE.to_owned())?;
        CertificateRequest::decode(&pem)
    }

    /// The bytes that were judged, and that a signer signs.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Who asks, and for which names.
    pub fn subject(&self) -> &RequestSubject {
        &self.subject
    }
}

/// The DER of the only block. A second block, whatever its label, is refused: other parsers might pick that one.
fn der_of(pem: &[u8]) -> Result<Vec<u8>, String> {
    let text = std::str::from_utf8(pem).map_err(|_| WRONG_TYPE)?;
    if text.matches("-----BEGIN").count() > 1 || text.matches("-----END").count() > 1 {
        return Err("exactly one PEM block is expected".to_owned());
    }
    let (before, rest) = text.split_once(BEGIN).ok_or(WRONG_TYPE)?;
    let (body, after) = rest.split_once(END).ok_or(WRONG_TYPE)?;
    if !before.is_empty() && !before.ends_with('\n') {
        return Err(WRONG_TYPE.to_owned());
    }
    if !after.trim_ascii().is_empty() {
        return Err("data after the PEM block".to_owned());
    }
    let body: String = body.chars().filter(|c| !c.is_ascii_whitespace()).collect();
    BASE64_STANDARD.decode(body).map_err(|_| "the PEM block is not base64".to_owned())
}

fn subject_of(request: &X509CertificationRequest<'_>) -> Result<RequestSubject, String> {
    let name = &request.certification_request_info.subject;
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        attribute.as_str().map(str::to_owned).map_err(|error| format!("the subject cannot be read: {error}"))
    };
    let mut common_names = name.iter_common_name();
    let common_name = common_names.next().map(text).transpose()?.unwrap_or_default();
    // Parsers differ in which of several they take.
    if common_names.next().is_some() {
        return Err("the subject has more than one common name".to_owned());
    }
    let organizations = name.iter_organization().map(text).collect::<Result<_, _>>()?;
    let mut subject = RequestSubject { common_name, organizations, ..RequestSubject::default() };
    let extensions: Vec<_> = request.requested_extensions().into_iter().flatten().collect();
    let mut alternative = extensions.iter().filter_map(|extension| match extension {
        ParsedExtension::SubjectAlternativeName(names) => Some(names),
        _ => None,
    });
    let names = alternative.next();
    if alternative.next().is_some() {
        return Err("the request has more than one list of alternative names".to_owned());
    }
    for name in names.iter().flat_map(|names| &names.general_names) {
        match name {
            GeneralName::DNSName(name) => subject.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => match ip(bytes) {
                Some(ip) => subject.ips.push(ip),
                None => subject.other_names = true,
            },
            _ => subject.other_names = true,
        }
    }
    Ok(subject)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `openssl req -new -newkey ec:P-256 -subj /CN=alice -addext subjectAltName=DNS:a.example,IP:10.0.0.1`
    const ALICE: &str = include_str!("certificate_request/alice.pem");
    /// `openssl req -new -newkey ec:P-256 -subj /O=system:masters/CN=evil`
    const EVIL: &str = include_str!("certificate_request/evil.pem");

    #[test]
    fn a_request_says_who_asks() {
        let request = CertificateRequest::decode(ALICE.as_bytes()).unwrap();
        let expected = RequestSubject {
            common_name: "alice".to_owned(),
            dns_names: vec!["a.example".to_owned()],
            ips: vec![IpAddr::from([10, 0, 0, 1])],
            ..RequestSubject::default()
        };
        assert_eq!(*request.subject(), expected);
        assert!(CertificateRequest::decode(format!("a comment\n{ALICE}\n \n").as_bytes()).is_ok());
    }

    /// The first block carries another label, the second one is harmless: a parser that goes by labels judges the second,
    /// one that does not signs the first.
    #[test]
    fn security_03_a_document_of_two_blocks_is_refused() {
        let hidden = EVIL.replace("CERTIFICATE REQUEST", "NOTHING");
        for (document, reason) in [
            (format!("{hidden}{ALICE}"), "exactly one PEM block is expected"),
            (format!("{ALICE}{hidden}"), "exactly one PEM block is expected"),
            (format!("{ALICE}{EVIL}"), "exactly one PEM block is expected"),
            (hidden.clone(), WRONG_TYPE),
            (format!("x{ALICE}"), WRONG_TYPE),
            (format!("{ALICE}tail"), "data after the PEM block"),
            (EVIL.replace("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"), WRONG_TYPE),
            (ALICE.replace("-----END", "Proc-Type: 4,ENCRYPTED\n-----END"), "the PEM block is not base64"),
            (String::new(), WRONG_TYPE),
        ] {
            assert_eq!(CertificateRequest::decode(document.as_bytes()).unwrap_err(), reason, "{document}");
        }
    }

    #[test]
    fn security_03_the_signature_is_verified() {
        let (mut alice, evil) = (der_of(ALICE.as_bytes()).unwrap(), der_of(EVIL.as_bytes()).unwrap());
        let last = alice.len() - 1;
        alice[last] ^= 1;
        let pem = |der: &[u8]| format!("{BEGIN}\n{}\n{END}\n", BASE64_STANDARD.encode(der));
        assert!(CertificateRequest::decode(pem(&alice).as_bytes()).is_err());
        assert!(CertificateRequest::decode(pem(&evil).as_bytes()).is_ok());
        let mut longer = evil;
        longer.push(0);
        assert_eq!(CertificateRequest::decode(pem(&longer).as_bytes()).unwrap_err(), "data after the request");
    }

    #[test]
    fn security_03_two_common_names_are_refused() {
        let twice = include_str!("certificate_request/twice.pem");
        assert_eq!(CertificateRequest::decode(twice.as_bytes()).unwrap_err(), "the subject has more than one common name");
    }
}
