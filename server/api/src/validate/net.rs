//! Addresses and ranges of the network, with upstream's words.

use std::net::IpAddr;

use super::at::At;

/// "must be a valid IP address".
pub(crate) fn ip(address: &At<'_>) {
    if address.text().parse::<std::net::IpAddr>().is_err() {
        address.invalid_as(address.text(), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
    }
}

/// An address that means the same on every node.
pub(crate) fn not_special(address: &At<'_>) {
    let Ok(parsed) = address.text().parse::<IpAddr>() else {
        address.invalid_as(address.text(), "must be a valid IP address");
        return;
    };
    let (local, local_multicast) = match parsed {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0 == 0xfe80, v6.segments()[0] & 0xff0f == 0xff02),
    };
    if parsed.is_unspecified() {
        address.invalid(format!("may not be unspecified ({})", address.text()));
    }
    if parsed.is_loopback() {
        address.invalid("may not be in the loopback range (127.0.0.0/8, ::1/128)");
    }
    if local {
        address.invalid("may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
    if local_multicast {
        address.invalid("may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)");
    }
}

/// "must be a valid CIDR value".
pub(crate) fn cidr(at: &At<'_>) {
    if at.text().trim().parse::<ipnet::IpNet>().is_err() {
        at.invalid_as(at.text().trim(), "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
    }
}
