//! The generated tables: what each is made from, writing one, and checking all.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::ValueEnum;

use crate::record::{self, Generated, Record};
use crate::{Inputs, protobuf, resources, rust, schema};

/// A table that is committed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Table {
    /// Schema facts of the built-in kinds.
    Schema,
    /// Rows of the built-in resources.
    Resources,
    /// Wire facts of the built-in kinds.
    Protobuf,
}

// === impl Table ===

impl Table {
    fn name(self) -> &'static str {
        match self {
            Table::Schema => "schema",
            Table::Resources => "resources",
            Table::Protobuf => "protobuf",
        }
    }

    /// Where it is, below the sources of the API crate.
    fn output(self) -> &'static str {
        match self {
            Table::Schema => "schema/generated.rs",
            Table::Resources => "resources/generated.rs",
            Table::Protobuf => "protobuf/generated.rs",
        }
    }

    /// The names of its inputs in the record.
    fn inputs(self) -> &'static [&'static str] {
        match self {
            Table::Schema => &["definitions"],
            Table::Resources => &["discovery"],
            Table::Protobuf => &["definitions", "k8s-pb"],
        }
    }

    /// The sources that generate it, below this crate.
    fn generator(self) -> Vec<PathBuf> {
        let own: &[&str] = match self {
            Table::Schema => &["src/schema.rs", "src/presence.rs"],
            Table::Resources => &["src/resources.rs"],
            Table::Protobuf => &["src/protobuf.rs", "src/protobuf", "src/presence.rs"],
        };
        let base = Path::new(env!("CARGO_MANIFEST_DIR"));
        own.iter().chain(&["src/rust.rs"]).map(|source| base.join(source)).collect()
    }

    fn path(self) -> PathBuf {
        rust::api_crate().join(self.output())
    }

    /// The table as its inputs give it; none where one of them is not on this machine.
    fn render(self, inputs: &Inputs, record: &Record) -> anyhow::Result<Option<String>> {
        for name in self.inputs() {
            let Some(path) = place(inputs, name) else { return Ok(None) };
            let pinned = record.inputs.get(*name).with_context(|| format!("generated.json has no input '{name}'"))?;
            let found = record::checksum(std::slice::from_ref(&path))?;
            if found != pinned.sha256 {
                bail!("{}: its checksum is {found}, expected {} ({})", path.display(), pinned.sha256, pinned.from);
            }
        }
        let (definitions, k8s_pb, discovery) = (inputs.definitions.as_deref(), inputs.k8s_pb.as_deref(), inputs.discovery.as_deref());
        let text = match (self, definitions, k8s_pb, discovery) {
            (Table::Schema, Some(definitions), ..) => schema::generate(definitions)?,
            (Table::Resources, .., Some(discovery)) => rust::format(&resources::generate(discovery)?)?,
            (Table::Protobuf, Some(definitions), Some(k8s_pb), _) => protobuf::generate(k8s_pb, definitions)?,
            _ => return Ok(None),
        };
        Ok(Some(text))
    }
}

fn place(inputs: &Inputs, name: &str) -> Option<PathBuf> {
    match name {
        "definitions" => inputs.definitions.clone(),
        "k8s-pb" => inputs.k8s_pb.clone(),
        "discovery" => inputs.discovery.clone(),
        _ => None,
    }
}

/// Writes a table from its pinned inputs, and records it.
pub fn generate(table: Table, inputs: &Inputs) -> anyhow::Result<()> {
    let mut record = record::read()?;
    // Generating from another version of an input pins that version: the difference shows in review.
    for name in table.inputs() {
        let path = place(inputs, name).with_context(|| format!("table '{}' needs --{name}", table.name()))?;
        let pinned = record.inputs.get_mut(*name).with_context(|| format!("generated.json has no input '{name}'"))?;
        pinned.sha256 = record::checksum(&[path])?;
    }
    let text = table.render(inputs, &record)?.with_context(|| format!("table '{}': an input is missing", table.name()))?;
    rust::write(&table.path(), text.as_bytes())?;
    let generated = Generated { generator_sha256: record::checksum(&table.generator())?, sha256: record::sha256(text.as_bytes()) };
    record.tables.insert(table.name().to_owned(), generated);
    record::write(&record)
}

/// Compares every table; false if one is stale.
pub fn check(inputs: &Inputs) -> anyhow::Result<bool> {
    let record = record::read()?;
    let mut fresh = true;
    for table in Table::value_variants() {
        let committed = std::fs::read(table.path()).with_context(|| format!("read {}", table.path().display()))?;
        let said = match table.render(inputs, &record)? {
            Some(text) if text.as_bytes() == committed => Ok("is what its pinned inputs give".to_owned()),
            Some(_) => Err("is not what its pinned inputs give".to_owned()),
            None => recorded(*table, &record, &committed)?,
        };
        match said {
            Ok(said) => println!("{}: {said}", table.name()),
            Err(said) => {
                fresh = false;
                println!("{}: {said}; run `cargo run -p xtask -- generate {}`", table.name(), table.name());
            }
        }
    }
    Ok(fresh)
}

fn recorded(table: Table, record: &Record, committed: &[u8]) -> anyhow::Result<Result<String, String>> {
    let Some(generated) = record.tables.get(table.name()) else { return Ok(Err("is not in generated.json".to_owned())) };
    Ok(if record::sha256(committed) != generated.sha256 {
        Err("was edited by hand: its checksum is not the recorded one".to_owned())
    } else if record::checksum(&table.generator())? != generated.generator_sha256 {
        Err("is older than its generator".to_owned())
    } else {
        Ok(format!("inputs ({}) are not here; equal to the recorded checksum", table.inputs().join(", ")))
    })
}

/// Prints the inputs.
pub fn list() -> anyhow::Result<()> {
    for (name, input) in record::read()?.inputs {
        println!("{name}: {}\n    sha256 {}", input.from, input.sha256);
    }
    Ok(())
}
