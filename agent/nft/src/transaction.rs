//! A transaction on one table, as statements in the words of nft.
//!
//! Invariant: a transaction cannot name another table. Names are checked and rules cannot hold a line break, so that no text that a
//! caller puts in ends one statement and begins another.

use std::fmt::{self, Display, Write};

use crate::Error;

/// Longest name that the kernel takes, its final zero aside.
const MAX_NAME: usize = 127;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// IPv4 and IPv6.
    Inet,
    /// Frames that cross a bridge.
    Bridge,
}

impl Family {
    /// The kernel's number (`NFPROTO_*`).
    pub(crate) fn number(self) -> u8 {
        match self {
            Family::Inet => 1,
            Family::Ip => 2,
            Family::Bridge => 7,
            Family::Ip6 => 10,
        }
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Family::Ip => "ip",
            Family::Ip6 => "ip6",
            Family::Inet => "inet",
            Family::Bridge => "bridge",
        })
    }
}

/// Where in a packet's way a base chain stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hook {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// `prerouting`, `input`, `forward`, `output` or `postrouting`.
    pub hook: &'static str,
    /// Lower comes first.
    pub priority: i32,
}

/// One statement on the table of its transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Statement {
    AddTable,
    DeleteTable,
    AddChain(String),
    AddBaseChain(String, Hook),
    FlushChain(String),
    DeleteChain(String),
    /// Chain and rule.
    AddRule(String, String),
    /// Map and definition.
    AddMap(String, String),
    /// Set and definition.
    AddSet(String, String),
    DeleteSet(String),
    FlushSet(String),
    /// Set or map, and element.
    AddElement(String, String),
    /// Set or map, and key.
    DeleteElement(String, String),
}

impl Statement {
    /// Writes it as `nft` reads it.
    pub(crate) fn write(&self, out: &mut impl Write, family: Family, table: &str) -> fmt::Result {
        match self {
            Statement::AddTable => writeln!(out, "add table {family} {table}"),
            Statement::DeleteTable => writeln!(out, "delete table {family} {table}"),
            Statement::AddChain(chain) => writeln!(out, "add chain {family} {table} {chain}"),
            Statement::AddBaseChain(chain, Hook { kind, hook, priority }) => {
                writeln!(out, "add chain {family} {table} {chain} {{ type {kind} hook {hook} priority {priority}; policy accept; }}")
            }
            Statement::FlushChain(chain) => writeln!(out, "flush chain {family} {table} {chain}"),
            Statement::DeleteChain(chain) => writeln!(out, "delete chain {family} {table} {chain}"),
            Statement::AddRule(chain, rule) => writeln!(out, "add rule {family} {table} {chain} {rule}"),
            Statement::AddMap(map, definition) => writeln!(out, "add map {family} {table} {map} {{ {definition} }}"),
            Statement::AddSet(set, definition) => writeln!(out, "add set {family} {table} {set} {{ {definition} }}"),
            Statement::DeleteSet(set) => writeln!(out, "delete set {family} {table} {set}"),
            Statement::FlushSet(set) => writeln!(out, "flush set {family} {table} {set}"),
            Statement::AddElement(set, element) => writeln!(out, "add element {family} {table} {set} {{ {element} }}"),
            Statement::DeleteElement(set, key) => writeln!(out, "delete element {family} {table} {set} {{ {key} }}"),
        }
    }
}

/// Statements on one table that are applied together or not at all.
#[derive(Debug, Clone)]
pub struct Transaction {
    family: Family,
    table: String,
    statements: Vec<Statement>,
    replaces_table: bool,
    invalid: Option<(&'static str, String)>,
}

impl Transaction {
    /// Nothing yet, on this table.
    pub fn new(family: Family, table: &str) -> Self {
        let mut transaction = Self { family, table: table.to_owned(), statements: Vec::new(), replaces_table: false, invalid: None };
        transaction.check_name(table);
        transaction
    }

    /// Whether it holds no statement.
    pub fn is_empty(&self) -> bool {
        self.statements.is_empty()
    }

    /// Empties the table, or makes it if it does not exist.
    pub fn replace_table(&mut self) {
        self.replaces_table = true;
        // Deleting needs the table to exist, adding does not mind if it does.
        self.statements.extend([Statement::AddTable, Statement::DeleteTable, Statement::AddTable]);
    }

    /// Removes the table; it is no error if it does not exist.
    pub fn remove_table(&mut self) {
        self.statements.extend([Statement::AddTable, Statement::DeleteTable]);
    }

    /// A chain that other chains lead to; an existing one is left as it is.
    pub fn add_chain(&mut self, chain: &str) {
        self.push(chain, Statement::AddChain);
    }

    /// A chain that the kernel calls, with policy accept.
    pub fn add_base_chain(&mut self, chain: &str, at: Hook) {
        self.push(chain, |chain| Statement::AddBaseChain(chain, at));
    }

    /// Removes all rules of a chain.
    pub fn flush_chain(&mut self, chain: &str) {
        self.push(chain, Statement::FlushChain);
    }

    /// Removes a chain, which must have no rules and be used by none.
    pub fn delete_chain(&mut self, chain: &str) {
        self.push(chain, Statement::DeleteChain);
    }

    /// Appends a rule.
    pub fn add_rule(&mut self, chain: &str, rule: &str) {
        self.check_text("rule", rule);
        self.push(chain, |chain| Statement::AddRule(chain, rule.to_owned()));
    }

    /// A map; `definition` is what stands between the braces (`type ipv4_addr : verdict;`).
    pub fn add_map(&mut self, map: &str, definition: &str) {
        self.check_text("map", definition);
        self.push(map, |map| Statement::AddMap(map, definition.to_owned()));
    }

    /// A set; `definition` as for a map.
    pub fn add_set(&mut self, set: &str, definition: &str) {
        self.check_text("set", definition);
        self.push(set, |set| Statement::AddSet(set, definition.to_owned()));
    }

    /// Removes a set that no rule uses.
    pub fn delete_set(&mut self, set: &str) {
        self.push(set, Statement::DeleteSet);
    }

    /// Removes all elements of a set.
    pub fn flush_set(&mut self, set: &str) {
        self.push(set, Statement::FlushSet);
    }

    /// An element of a set (`10.42.0.7`) or of a map (`10.42.0.7 : accept`).
    pub fn add_element(&mut self, set: &str, element: &str) {
        self.check_text("element", element);
        self.push(set, |set| Statement::AddElement(set, element.to_owned()));
    }

    /// Removes an element by its key.
    pub fn delete_element(&mut self, set: &str, key: &str) {
        self.check_text("element", key);
        self.push(set, |set| Statement::DeleteElement(set, key.to_owned()));
    }

    /// Whether what the table held before is gone afterwards.
    pub(crate) fn replaces_table(&self) -> bool {
        self.replaces_table
    }

    /// The script for `nft -f -`, or what is wrong with it.
    pub fn script(&self) -> Result<String, Error> {
        self.check()?;
        let mut script = String::new();
        for statement in &self.statements {
            // Writing to a String cannot fail.
            let _ = statement.write(&mut script, self.family, &self.table);
        }
        Ok(script)
    }

    pub(crate) fn family(&self) -> Family {
        self.family
    }

    pub(crate) fn table(&self) -> &str {
        &self.table
    }

    pub(crate) fn statements(&self) -> &[Statement] {
        &self.statements
    }

    /// The statement at this place, as `nft` reads it.
    pub(crate) fn statement(&self, place: usize) -> Option<String> {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.statements.get(place)?.write(&mut text, self.family, &self.table);
        Some(text.trim_end().to_owned())
    }

    /// What is wrong with it.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &self.invalid {
            Some((what, text)) => Err(Error::Invalid { what, text: text.clone() }),
            None => Ok(()),
        }
    }

    fn push(&mut self, name: &str, statement: impl FnOnce(String) -> Statement) {
        self.check_name(name);
        self.statements.push(statement(name.to_owned()));
    }

    fn check_name(&mut self, name: &str) {
        let begins = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let goes_on = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'/'));
        if !begins || !goes_on || name.len() > MAX_NAME {
            self.invalid.get_or_insert(("name", name.to_owned()));
        }
    }

    fn check_text(&mut self, what: &'static str, text: &str) {
        // A semicolon or brace would be harmless inside quotes. It is refused all the same: no rule needs one.
        let depth = text.bytes().try_fold(0i32, |depth, byte| match byte {
            b'\n' | b'\r' | 0 => None,
            b'{' => Some(depth + 1),
            b'}' => Some(depth - 1).filter(|d| *d >= 0),
            _ => Some(depth),
        });
        if depth != Some(0) {
            self.invalid.get_or_insert((what, text.to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn statements_name_their_own_table_only() {
        let mut transaction = Transaction::new(Family::Ip, "trireme");
        transaction.replace_table();
        transaction.add_base_chain("in", Hook { kind: "filter", hook: "input", priority: -110 });
        transaction.add_rule("in", "ct state new accept");
        transaction.add_element("m", "10.0.0.1 . tcp : goto a");
        let script = transaction.script().unwrap();
        assert!(script.lines().all(|l| format!("{l} ").contains(" ip trireme ")), "{script}");
        assert!(script.contains("add chain ip trireme in { type filter hook input priority -110; policy accept; }"), "{script}");
    }

    #[test]
    fn text_cannot_leave_its_statement() {
        type Case = fn(&mut Transaction);
        let cases: [Case; 6] = [
            |t| t.add_chain("a\nflush ruleset"),
            |t| t.add_chain("a b"),
            |t| t.add_chain(""),
            |t| t.add_rule("a", "accept\nflush ruleset"),
            |t| t.add_element("a", "1.2.3.4 }\u{0}"),
            |t| t.add_element("a", "1.2.3.4 } ; flush ruleset ; add set ip x y {"),
        ];
        for case in cases {
            let mut transaction = Transaction::new(Family::Ip, "trireme");
            case(&mut transaction);
            assert!(transaction.script().is_err(), "{transaction:?}");
        }
        assert!(Transaction::new(Family::Ip, "a; flush ruleset").script().is_err());
    }
}
