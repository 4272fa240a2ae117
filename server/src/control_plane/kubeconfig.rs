//! The administrator's kubeconfig.

use std::{
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use base64::{Engine, prelude::BASE64_STANDARD};

/// Writes a kubeconfig for `server` with a client certificate; whole or not at all.
pub fn write(path: &Path, mode: u32, server: &str, ca_pem: &str, certificate_pem: &str, key_pem: &str) -> std::io::Result<()> {
    let encode = |text: &str| BASE64_STANDARD.encode(text);
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: default\npreferences: {{}}\n\
         clusters:\n- name: default\n  cluster:\n    server: {server}\n    certificate-authority-data: {}\n\
         contexts:\n- name: default\n  context:\n    cluster: default\n    user: default\n\
         users:\n- name: default\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
        encode(ca_pem),
        encode(certificate_pem),
        encode(key_pem),
    );
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let fresh = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.set_permissions(std::fs::Permissions::from_mode(mode))?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)
}
