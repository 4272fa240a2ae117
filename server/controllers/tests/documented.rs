//! `docs/controllers.md` says what is true.
#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeMap;

use trireme_controllers::Switches;

#[test]
fn the_page_lists_every_controller_as_it_is() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/controllers.md")).unwrap();
    let rows = page.lines().filter_map(|line| {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (name, state, note) = (cells.next()?, cells.next()?, cells.next()?);
        name.ends_with("-controller").then(|| (name.to_owned(), (state == "works", note.to_owned())))
    });
    let rows: BTreeMap<String, (bool, String)> = rows.collect();
    let states = Switches::default().states();
    let listed: Vec<&String> = rows.keys().collect();
    let real: Vec<&str> = states.iter().map(|state| state.name).collect();
    assert_eq!(listed, real);
    for state in states {
        let (works, note) = &rows[state.name];
        assert_eq!(*works, state.is_on, "{}", state.name);
        assert!(state.is_on || state.reason.as_ref() == Some(note), "{}: {note}", state.name);
    }
}
