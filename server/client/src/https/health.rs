//! Which server to ask: the one that worked last, then the well ones, then the failing ones.

use http::Uri;

pub(super) struct Servers {
    list: Vec<Server>,
    current: usize,
}

struct Server {
    uri: Uri,
    failing: bool,
}

impl Servers {
    pub(super) fn new(list: Vec<Uri>) -> Self {
        // Clients that share a list should not all start at its head.
        let current = if list.is_empty() { 0 } else { rand::random_range(0..list.len()) };
        Self { list: list.into_iter().map(|uri| Server { uri, failing: false }).collect(), current }
    }

    pub(super) fn set(&mut self, list: Vec<Uri>) {
        let in_use = self.list.get(self.current).map(|server| server.uri.clone());
        let list: Vec<Server> = list
            .into_iter()
            .map(|uri| {
                let failing = self.is_failing(&uri);
                Server { uri, failing }
            })
            .collect();
        self.list = list;
        self.current = self.list.iter().position(|server| Some(&server.uri) == in_use.as_ref()).unwrap_or(0);
    }

    /// The servers in the order in which to try them.
    pub(super) fn order(&self) -> Vec<Uri> {
        let count = self.list.len();
        let ring = || (0..count).map(|step| &self.list[(self.current + step) % count]);
        ring().filter(|server| !server.failing).chain(ring().filter(|server| server.failing)).map(|server| server.uri.clone()).collect()
    }

    pub(super) fn is_failing(&self, uri: &Uri) -> bool {
        self.list.iter().any(|server| server.uri == *uri && server.failing)
    }

    /// Stays with a server that works.
    pub(super) fn worked(&mut self, uri: &Uri) {
        let Some(at) = self.list.iter().position(|server| server.uri == *uri) else { return };
        self.list[at].failing = false;
        // A failing server that is well again does not take the traffic back.
        if self.list.get(self.current).is_none_or(|server| server.failing) {
            self.current = at;
        }
    }

    /// Notes a failure; true if the server was well before.
    pub(super) fn failed(&mut self, uri: &Uri) -> bool {
        match self.list.iter_mut().find(|server| server.uri == *uri) {
            Some(server) => !std::mem::replace(&mut server.failing, true),
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(host: &str) -> Uri {
        format!("https://{host}:6443").parse().unwrap_or_default()
    }

    #[test]
    fn a_failing_server_is_asked_last_and_does_not_take_traffic_back() {
        let mut servers = Servers::new(vec![uri("a"), uri("b"), uri("c")]);
        servers.current = 0;
        assert_eq!(servers.order(), [uri("a"), uri("b"), uri("c")]);
        assert!(servers.failed(&uri("a")), "newly failing");
        assert!(!servers.failed(&uri("a")), "known already");
        assert_eq!(servers.order(), [uri("b"), uri("c"), uri("a")]);
        servers.worked(&uri("b"));
        servers.worked(&uri("a"));
        assert_eq!(servers.order(), [uri("b"), uri("c"), uri("a")]);
        servers.set(vec![uri("d"), uri("b")]);
        assert_eq!(servers.order(), [uri("b"), uri("d")]);
    }
}
