//! Decides whether a panic ends a request or the process.
//!
//! A panic in a request unwinds: its connection closes and all others are served, so no client can stop a server. A panic on a
//! thread of the store ends the process at once: a replica that goes on after a broken invariant could acknowledge what it does not
//! hold. The service manager starts it again, and it recovers from its log.

/// The threads that the store runs on.
const STORE_THREADS: [&str; 2] = ["trireme-raft", "trireme-log"];

/// Sets the policy for this process.
pub fn install() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("unnamed");
        tracing::error!(thread = name, "{panic}");
        report(panic);
        if STORE_THREADS.iter().any(|store| name.starts_with(store)) {
            std::process::abort();
        }
    }));
}
