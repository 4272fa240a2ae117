//! Image names as the runtime spells them.

/// The full name, with registry and tag: `docker.io/library/busybox:latest` for `busybox`. None for what is no name.
pub(crate) fn full(name: &str) -> Option<String> {
    let (repository, digest) = name.split_once('@').map_or((name, None), |(r, d)| (r, Some(d)));
    let last = repository.rsplit('/').next()?;
    let tag = last.split_once(':').map(|(_, tag)| tag);
    let words = repository.split('/').all(|part| !part.is_empty());
    let characters = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-:/@".contains(c));
    if !words || !characters || tag.is_some_and(str::is_empty) || digest.is_some_and(|d| !d.starts_with("sha256:")) {
        return None;
    }
    // A first part with a period or a port is a registry, as everywhere.
    let place = match repository.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => "",
        Some(_) => "docker.io/",
        None => "docker.io/library/",
    };
    let tag = if tag.is_none() && digest.is_none() { ":latest" } else { "" };
    Some(format!("{place}{name}{tag}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_or_refused() {
        for (name, expected) in [
            ("busybox", Some("docker.io/library/busybox:latest")),
            ("rancher/mirrored-pause:3.6", Some("docker.io/rancher/mirrored-pause:3.6")),
            ("localhost/trireme/box:1", Some("localhost/trireme/box:1")),
            ("a.b:5000/c", Some("a.b:5000/c:latest")),
            ("x@sha256:00", Some("docker.io/library/x@sha256:00")),
            ("", None),
            ("a//b", None),
            ("a b", None),
            ("a:", None),
        ] {
            assert_eq!(full(name).as_deref(), expected, "{name:?}");
        }
    }
}
