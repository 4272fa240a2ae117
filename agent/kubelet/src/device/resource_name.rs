//! Names of resources that plugins may offer.

use trireme_api::names;

/// A vendor's resource, like `example.com/gpu`: neither one of Kubernetes' own nor a name that a quota could not have.
pub(crate) fn is_extended(name: &str) -> bool {
    let is_native = !name.contains('/') || name.contains("kubernetes.io/");
    !is_native && !name.starts_with("requests.") && names::is_qualified_name(&format!("requests.{name}")).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_vendors_are_extended() {
        for good in ["example.com/gpu", "a.b/c-d_e.f"] {
            assert!(is_extended(good), "{good}");
        }
        let long = format!("example.com/{}", "a".repeat(64));
        for bad in [
            "",
            "gpu",
            "cpu",
            "kubernetes.io/gpu",
            "x.kubernetes.io/gpu",
            "requests.example.com/gpu",
            "example.com/",
            "a/b/c",
            "a b/c",
            &long,
        ] {
            assert!(!is_extended(bad), "{bad}");
        }
    }
}
