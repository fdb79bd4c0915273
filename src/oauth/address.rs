//! The address policy: the addresses that no request is sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Whether the host of the URL is a forbidden address.
pub(super) fn is_forbidden_host(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => is_forbidden_address(address.into()),
        Some(Host::Ipv6(address)) => is_forbidden_address(address.into()),
        Some(Host::Domain(_)) | None => false,
    }
}

/// Whether requests to this address are forbidden: link-local and other addresses of cloud metadata
/// services, which serve credentials, and addresses that are not of one host.
pub(crate) fn is_forbidden_address(address: IpAddr) -> bool {
    match embedded_ipv4(address).unwrap_or(address).to_canonical() {
        IpAddr::V4(v4) => {
            v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                // The metadata services of Alibaba Cloud, Oracle Cloud and Azure.
                || v4 == Ipv4Addr::new(100, 100, 100, 200)
                || v4 == Ipv4Addr::new(192, 0, 0, 192)
                || v4 == Ipv4Addr::new(168, 63, 129, 16)
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_unspecified()
                || v6.is_multicast()
                // The metadata service of AWS.
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

/// The IPv4 address in an IPv6 address of NAT64 (RFC 6052 §2.1) or 6to4 (RFC 3056 §2), or in an
/// IPv4-compatible one, which RFC 4291 §2.5.5.1 deprecates.
fn embedded_ipv4(address: IpAddr) -> Option<IpAddr> {
    let IpAddr::V6(v6) = address else { return None };
    let v4 = match v6.octets() {
        [0x00, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] => [a, b, c, d],
        [0x20, 0x02, a, b, c, d, ..] => [a, b, c, d],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a, b, c, d] if a != 0 => [a, b, c, d],
        _ => return None,
    };
    Some(IpAddr::V4(v4.into()))
}
