//! Names of managers.

use std::sync::LazyLock;

use regex::Regex;

/// Names are not longer.
pub const MANAGER_MAX_BYTES: usize = 128;

/// The first character that is not printable, in Go's sense, and where it stands: printable are letters, marks, numbers, punctuation,
/// symbols, and the space.
pub fn unprintable(text: &str) -> Option<(usize, char)> {
    text.char_indices().find(|(_, c)| !is_printable_char(*c))
}

fn is_printable_char(c: char) -> bool {
    static PRINTABLE: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$").ok());
    if c.is_ascii() {
        return matches!(c, ' '..='~');
    }
    PRINTABLE.as_ref().is_some_and(|printable| printable.is_match(c.encode_utf8(&mut [0; 4])))
}

/// The manager name of a client that sends no `fieldManager`: its User-Agent up to the first slash, without unprintable characters.
pub fn of_user_agent(user_agent: &str) -> String {
    let mut name = String::new();
    for c in user_agent.split('/').next().unwrap_or_default().chars().filter(|c| is_printable_char(*c)) {
        if name.len() + c.len_utf8() > MANAGER_MAX_BYTES {
            break;
        }
        name.push(c);
    }
    name
}
