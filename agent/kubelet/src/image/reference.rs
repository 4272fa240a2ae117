//! Image names: `[registry/]repository[:tag][@digest]`.

/// The name with the tag that is meant when none is given; an error in upstream's words for what is no name.
pub(crate) fn normalize(image: &str) -> Result<String, &'static str> {
    const INVALID: &str = "invalid reference format";
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    if digest.is_some_and(|d| !is_digest(d)) {
        return Err(INVALID);
    }
    let (repository, tag) = match name.rfind(':') {
        // A colon before the last slash belongs to the registry's port.
        Some(at) if !name[at..].contains('/') => (&name[..at], Some(&name[at + 1..])),
        _ => (name, None),
    };
    if tag.is_some_and(|t| !is_tag(t)) {
        return Err(INVALID);
    }
    let parts: Vec<&str> = repository.split('/').collect();
    let registry = parts.len() > 1 && is_registry(parts[0]);
    let path = if registry { &parts[1..] } else { &parts[..] };
    if path.iter().any(|c| c.chars().any(|c| c.is_ascii_uppercase())) && path.iter().all(|c| !c.is_empty()) {
        return Err("invalid reference format: repository name must be lowercase");
    }
    if path.is_empty() || !path.iter().all(|c| is_path_component(c)) || (registry && !is_host(parts[0])) {
        return Err(INVALID);
    }
    Ok(match (tag, digest) {
        (None, None) => format!("{image}:latest"),
        _ => image.to_string(),
    })
}

/// The registry that an image comes from.
pub(crate) fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if is_registry(first) => first,
        _ => "docker.io",
    }
}

fn is_registry(first: &str) -> bool {
    first.contains(['.', ':']) || first == "localhost"
}

fn is_host(host: &str) -> bool {
    let (name, port) = host.rsplit_once(':').unwrap_or((host, "1"));
    !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '[' | ']' | ':'))
        && !port.is_empty()
        && port.chars().all(|c| c.is_ascii_digit())
}

fn is_tag(tag: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !tag.is_empty() && tag.len() <= 128 && tag.starts_with(word) && tag.chars().all(|c| word(c) || matches!(c, '.' | '-'))
}

fn is_digest(digest: &str) -> bool {
    digest
        .split_once(':')
        .is_some_and(|(algorithm, hash)| !algorithm.is_empty() && hash.len() >= 32 && hash.chars().all(|c| c.is_ascii_hexdigit()))
}

/// Lower-case words joined by one period, one or two underscores, or any number of hyphens.
fn is_path_component(component: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    component.starts_with(word)
        && component.ends_with(word)
        && component.chars().all(|c| word(c) || matches!(c, '.' | '_' | '-'))
        && !["..", "___", "._", "_.", ".-", "-.", "_-", "-_"].iter().any(|bad| component.contains(bad))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_get_a_tag_or_are_refused() {
        for (image, expected) in [
            ("busybox", "busybox:latest"),
            ("a.b:5000/c/d", "a.b:5000/c/d:latest"),
            ("nginx:1.2", "nginx:1.2"),
            ("localhost/x_y", "localhost/x_y:latest"),
        ] {
            assert_eq!(normalize(image).unwrap(), expected);
        }
        for bad in ["", "a b", "UPPER/x", ":tag", "x:", "x@sha256:1", "-a", "a//b", "http://x/y"] {
            assert!(normalize(bad).is_err(), "{bad}");
        }
        assert_eq!((registry("a.b:5000/c"), registry("library/x"), registry("x")), ("a.b:5000", "docker.io", "docker.io"));
    }
}
