//! The configuration file: YAML whose keys are the flags' names.
//!
//! Turned into flags before parsing, so that one set of names, checks and messages serves file and command line. A key
//! that is also in the environment or on the command line is left out: file < environment < flags.

use std::{ffi::OsString, path::Path};

use serde_json::Value;

/// Why a configuration file can't be used; one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It was named and can't be read.
    #[error("config file {path}: {source}")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// It is no YAML mapping of flags to values.
    #[error("config file {path}: {reason}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong, with the place.
        reason: String,
    },
}

/// A command line with a file's settings worked in.
#[derive(Debug)]
pub struct Merged {
    /// All of it.
    pub args: Vec<OsString>,
    /// The file, if one was read.
    pub file: Option<String>,
}

/// The command line with the file's settings worked in. `args` starts with the program's name and the subcommand.
pub fn with_file(args: Vec<OsString>, default_file: &str) -> Result<Merged, ConfigError> {
    let takes_file = args.get(1).is_some_and(|sub| sub == "server" || sub == "agent");
    if !takes_file {
        return Ok(Merged { args, file: None });
    }
    let named = named_file(&args).or_else(|| std::env::var("TRIREME_CONFIG_FILE").ok());
    let path = named.clone().unwrap_or_else(|| default_file.to_owned());
    if named.is_none() && !Path::new(&path).exists() {
        return Ok(Merged { args, file: None });
    }
    let in_environment = |key: &str| std::env::var_os(format!("TRIREME_{}", key.to_uppercase().replace('-', "_"))).is_some();
    let settings = read(Path::new(&path))?;
    let from_file = settings.into_iter().filter(|(key, _)| !in_environment(key) && !on_command_line(&args, key));
    let mut merged = args.clone();
    merged.extend(from_file.map(|(key, value)| match value {
        Some(value) => format!("--{key}={value}").into(),
        None => format!("--{key}").into(),
    }));
    Ok(Merged { args: merged, file: Some(path) })
}

/// The file's settings: one (flag, value) for each value; a true switch has none.
pub fn read(path: &Path) -> Result<Vec<(String, Option<String>)>, ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: name.clone(), source })?;
    let malformed = |reason: String| ConfigError::Malformed { path: name.clone(), reason };
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let one_line =
        |e: serde_saphyr::Error| malformed(e.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned());
    // Strict booleans: `n` may be the name of a node, and `y` is not `true`.
    let document: Value = serde_saphyr::from_str_with_options(&text, serde_saphyr::options! { strict_booleans: true }).map_err(one_line)?;
    let Value::Object(map) = document else {
        return Err(malformed("expected a mapping of option names to values, such as `node-name: a`".into()));
    };
    let mut settings = Vec::new();
    for (key, value) in map {
        let values = if let Value::Array(values) = value { values } else { vec![value] };
        for value in values {
            match value {
                Value::Bool(true) => settings.push((key.clone(), None)),
                Value::Bool(false) | Value::Null => {}
                Value::String(text) => settings.push((key.clone(), Some(text))),
                Value::Number(number) => settings.push((key.clone(), Some(number.to_string()))),
                _ => return Err(malformed(format!("{key}: expected a text, a number, true, false, or a list of them"))),
            }
        }
    }
    Ok(settings)
}

fn named_file(args: &[OsString]) -> Option<String> {
    let args: Vec<&str> = args.iter().filter_map(|a| a.to_str()).collect();
    args.iter().enumerate().find_map(|(i, arg)| match *arg {
        "--config" | "-c" => args.get(i + 1).map(|v| (*v).to_owned()),
        other => other.strip_prefix("--config=").map(str::to_owned),
    })
}

fn on_command_line(args: &[OsString], key: &str) -> bool {
    let flag = format!("--{key}");
    let with_value = format!("--{key}=");
    args.iter().filter_map(|a| a.to_str()).any(|a| a == flag || a.starts_with(&with_value))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn merged(file: &str, args: &[&str]) -> Result<Vec<String>, ConfigError> {
        let path = std::env::temp_dir().join(format!("trireme-config-{}-{:p}.yaml", std::process::id(), &file));
        std::fs::write(&path, file).unwrap();
        let mut line = vec!["trireme".into(), "server".into(), format!("--config={}", path.display()).into()];
        line.extend(args.iter().map(OsString::from));
        let merged = with_file(line, "/nonexistent");
        std::fs::remove_file(&path).unwrap();
        Ok(merged?.args.into_iter().skip(3).map(|a| a.into_string().unwrap()).collect())
    }

    #[test]
    fn a_flag_wins_over_the_file_and_lists_become_repeated_flags() {
        let file = "node-name: a\ntls-san: [x, y]\ndisable-agent: true\ncluster-init: false\nhttps-listen-port: 7443\n";
        let line = merged(file, &["--node-name=b"]).unwrap();
        assert_eq!(line, ["--node-name=b", "--disable-agent", "--https-listen-port=7443", "--tls-san=x", "--tls-san=y"]);
    }

    #[test]
    fn a_broken_file_is_one_line_with_its_name() {
        for file in ["- a\n- b\n", "a: {b: c}\n", "a: [\n"] {
            let message = merged(file, &[]).unwrap_err().to_string();
            assert!(message.starts_with("config file /") && !message.contains('\n'), "{message}");
        }
    }
}
