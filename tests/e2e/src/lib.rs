//! End-to-end tests: real servers, agents, containerd and kubectl. The tests are in `tests/`; `ops/test` brings up the
//! clusters that they use, one on this host and one of five hosts, and removes them afterwards.
