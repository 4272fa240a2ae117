//! Relative paths inside of volumes.

use crate::validate::At;

/// Relative and without `..`.
pub(crate) fn local_path(path: &At<'_>) {
    if path.text().starts_with('/') {
        path.invalid("must be a relative path");
    }
    no_backsteps(path);
}

pub(crate) fn no_backsteps(path: &At<'_>) {
    if path.text().split('/').any(|part| part == "..") {
        path.invalid("must not contain '..'");
    }
}

pub(crate) fn non_reserved_path(path: &At<'_>) {
    local_path(path);
    if path.text().starts_with("..") && !path.text().starts_with("../") && path.text() != ".." {
        path.invalid("must not start with '..'");
    }
}
