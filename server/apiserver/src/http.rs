//! Between a socket and the chain of filters: connections, negotiation, parsing of requests, writing of answers.

pub mod body;
pub mod component;
pub mod extra_routes;
pub mod negotiate;
pub mod parameters;
pub mod query;
pub mod request_info;
pub mod respond;
pub mod selection;
pub mod serve;
