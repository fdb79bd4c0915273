//! The address policy: the addresses that no request is sent to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use url::Host;

/// The metadata services of clouds that are outside of the link-local addresses. They serve
/// credentials.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200), // Alibaba Cloud
    Ipv4Addr::new(168, 63, 129, 16),   // Azure
    Ipv4Addr::new(192, 0, 0, 192),     // Oracle Cloud
];

/// The same over IPv6, as unique local addresses. Those of AWS are a prefix.
const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254), // Google Cloud
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe), // Oracle Cloud
    Ipv6Addr::new(0xfd00, 0x100, 0, 0, 0, 0, 0x100, 0x200), // Alibaba Cloud
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),  // Scaleway
    Ipv6Addr::new(0xfd00, 0xa9fe, 0xa9fe, 0, 0, 0, 0, 1), // Akamai (Linode)
];

/// Whether the host is a forbidden address. A name is not: its addresses are checked when it is
/// resolved.
pub(super) fn is_forbidden_host<S>(host: &Host<S>) -> bool {
    match host {
        Host::Ipv4(address) => is_forbidden_address((*address).into()),
        Host::Ipv6(address) => is_forbidden_address((*address).into()),
        Host::Domain(_) => false,
    }
}

/// Whether requests to this address are forbidden: link-local and other addresses of cloud metadata
/// services, which serve credentials, and addresses that are not of one host.
///
/// 240.0.0.0/4 is allowed, because clouds give it to nodes.
pub(crate) fn is_forbidden_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_forbidden_v4(v4),
        IpAddr::V6(v6) => is_forbidden_v6(v6),
    }
}

fn is_forbidden_v4(v4: Ipv4Addr) -> bool {
    is_this_network(v4)
        || v4.is_link_local()
        || v4.is_multicast()
        || v4.is_broadcast()
        || METADATA_V4.contains(&v4)
}

/// 0.0.0.0/8: "this host on this network" (RFC 6890 §2.2.2). Linux connects 0.0.0.0 to loopback.
fn is_this_network(v4: Ipv4Addr) -> bool {
    matches!(v4.octets(), [0, ..])
}

fn is_forbidden_v6(v6: Ipv6Addr) -> bool {
    v6.is_unicast_link_local()
        || v6.is_unspecified()
        || v6.is_multicast()
        // The services of AWS: instance metadata, EKS Pod Identity, DNS, NTP.
        || matches!(v6.segments(), [0xfd00, 0xec2, ..])
        || METADATA_V6.contains(&v6)
        || !v6.is_loopback() && embedded_v4(v6).into_iter().flatten().any(is_forbidden_v4)
        || is_forbidden_local_nat64(v6)
}

/// The IPv4 addresses that an IPv6 address stands for, by each scheme that its form fits.
fn embedded_v4(v6: Ipv6Addr) -> [Option<Ipv4Addr>; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = v6.octets();
    let last = Ipv4Addr::new(m, n, o, p);
    let by_prefix = match v6.segments() {
        // IPv4-compatible and IPv4-mapped (RFC 4291 §2.5.5), and IPv4-translated (RFC 2765 §2.1).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => Some(last),
        // NAT64 (RFC 6052 §2.1).
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last),
        // 6to4 (RFC 3056 §2).
        [0x2002, ..] => Some(Ipv4Addr::new(c, d, e, f)),
        _ => None,
    };
    let is_teredo = [a, b, c, d] == [0x20, 0x01, 0, 0];
    // The server, and the client with inverted bits (RFC 4380 §4).
    let teredo_server = is_teredo.then(|| Ipv4Addr::new(e, f, g, h));
    let teredo_client = is_teredo.then(|| Ipv4Addr::new(!m, !n, !o, !p));
    // In the interface identifier of any prefix (RFC 5214 §6.1).
    let isatap = ([i & !2, j, k, l] == [0, 0, 0x5e, 0xfe]).then_some(last);
    [by_prefix, teredo_server, teredo_client, isatap]
}

/// Whether an address in 64:ff9b:1::/48 (RFC 8215) stands for a forbidden one with a prefix of 48,
/// 56, 64 or 96 bits. Octet 8 is skipped (RFC 6052 §2.2). Which length is used cannot be seen.
fn is_forbidden_local_nat64(v6: Ipv6Addr) -> bool {
    if !matches!(v6.segments(), [0x64, 0xff9b, 1, ..]) {
        return false;
    }
    let [_, _, _, _, _, _, g, h, _, j, k, l, m, n, o, p] = v6.octets();
    let is_forbidden = [[g, h, j, k], [h, j, k, l], [j, k, l, m]]
        .map(Ipv4Addr::from)
        .into_iter()
        // Zeros, where the prefix has another length.
        .any(|v4| !is_this_network(v4) && is_forbidden_v4(v4));
    // The end of a shorter prefix's address and the zeros after it. 0.0.0.0 and 224.0.0.0 are none.
    let is_suffix = [n, o, p] == [0; 3] && [g, h, j, k, l] != [0; 5];
    is_forbidden || !is_suffix && is_forbidden_v4([m, n, o, p].into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn link_local_and_metadata_addresses_are_forbidden_in_every_form() {
        for address in [
            "169.254.169.254",
            "169.254.0.1",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",
            "0.1.2.3",
            "0.255.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "::",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd00:ec2::23",
            "fd20:ce::254",
            "fd00:c1::a9fe:a9fe",
            "fd00:100::100:200",
            "fd00:42::42",
            "fd00:a9fe:a9fe::1",
            // IPv4-compatible, IPv4-mapped, IPv4-translated.
            "::169.254.169.254",
            "::0.1.2.3",
            "::100.100.100.200",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "::ffff:168.63.129.16",
            "::ffff:0:169.254.169.254",
            // NAT64.
            "64:ff9b::169.254.169.254",
            "64:ff9b::192.0.0.192",
            "64:ff9b::0.0.0.1",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:2:3:4:a9fe:a9fe",
            "64:ff9b:1::0.0.0.0",
            "64:ff9b:1::224.0.0.0",
            "64:ff9b:1:2::0.0.0.1",
            "64:ff9b:1:a9fe:a9:fe00::",      // 48 bits
            "64:ff9b:1:aaa9:fe:a9fe::",      // 56 bits
            "64:ff9b:1:aaaa:a9:fea9:fe00:0", // 64 bits
            // 6to4, Teredo, ISATAP.
            "2002:a9fe:a9fe::",
            "2002:a9fe:a9fe:1::8",
            "2001:0:a9fe:a9fe::ffff:ffff",
            "2001:0:102:304:0:0:5601:5601",
            "2001:db8::5efe:169.254.169.254",
            "2001:db8::200:5efe:169.254.169.254",
            "fd12::5efe:100.100.100.200",
        ] {
            let parsed = address.parse().expect(address);
            assert!(is_forbidden_address(parsed), "{address}");
        }
    }

    #[test]
    fn other_addresses_are_allowed() {
        for address in [
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "100.64.0.1",
            "100.100.100.201",
            "168.63.129.17",
            "192.0.0.191",
            "169.253.255.255",
            "169.255.0.0",
            "240.0.0.1",
            "255.255.255.254",
            "1.0.0.0",
            "93.184.216.34",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::10.0.0.1",
            "64:ff9b:1::240.0.0.1",
            "64:ff9b:1:a00:0:100::",  // 48 bits
            "64:ff9b:1:a:0:1::",      // 56 bits
            "64:ff9b:1:0:a:0:e000:0", // 64 bits
            "64:ff9b:2::169.254.169.254",
            "2002:a00:1::",
            "2001:0:a00:1::f5ff:fffe",
            "2001:db8::5efe:10.0.0.1",
            "2001:db8::100:5efe:169.254.169.254",
            "2001:db8::5eff:169.254.169.254",
            "2001:1::a9fe:a9fe",
            "2001:db8::a9fe:a9fe",
            "fd00:ec3::254",
            "fd20:ce::255",
            "fd12:3456::1",
            "2606:2800:220:1::1",
        ] {
            let parsed = address.parse().expect(address);
            assert!(!is_forbidden_address(parsed), "{address}");
        }
    }

    /// The same address in each form that embeds it.
    fn embedded(v4: Ipv4Addr, random: u128) -> Vec<Ipv6Addr> {
        let v4 = u128::from(u32::from(v4));
        let (upper, lower) = (random >> 64 << 64, random & u128::from(u64::MAX));
        // A prefix that is of no scheme, and no metadata service.
        let site = (0x2a00_u128 << 112) | (upper & ((1 << 112) - 1));
        [
            v4,
            (0xffff << 32) | v4,
            (0xffff << 48) | v4,
            (0x0064_ff9b << 96) | v4,
            (0x0064_ff9b_0001 << 80) | v4,
            (0x2002 << 112) | (v4 << 80) | (random & ((1 << 80) - 1)),
            (0x2001_0000 << 96) | (v4 << 64) | lower,
            (0x2001_0000 << 96) | (0x0102_0304 << 64) | (lower >> 32 << 32) | (v4 ^ 0xffff_ffff),
            site | (0x0000_5efe << 32) | v4,
            site | (0x0200_5efe << 32) | v4,
        ]
        .map(Ipv6Addr::from_bits)
        .to_vec()
    }

    /// The address in 64:ff9b:1::/48 with a prefix of 48, 56, 64 and 96 bits (RFC 6052 §2.2).
    fn local_nat64(v4: Ipv4Addr) -> [Ipv6Addr; 4] {
        let v4 = u128::from(u32::from(v4));
        // The first 64 bits end after the first 16 and 24 bits, or before the first bit.
        let forms = [
            (v4 >> 16 << 64) | ((v4 & 0xffff) << 40),
            (v4 >> 24 << 64) | ((v4 & 0x00ff_ffff) << 32),
            v4 << 24,
            v4,
        ];
        forms.map(|form| Ipv6Addr::from_bits((0x0064_ff9b_0001 << 80) | form))
    }

    proptest! {
        #[test]
        fn a_forbidden_address_is_forbidden_in_each_ipv6_form(
            random: u128,
            v4 in prop_oneof![
                (any::<u8>(), any::<u8>()).prop_map(|(c, d)| Ipv4Addr::new(169, 254, c, d)),
                (any::<u8>(), any::<u8>()).prop_map(|(c, d)| Ipv4Addr::new(0, c, d, 7)),
                prop::sample::select(METADATA_V4.to_vec()),
                any::<Ipv4Addr>().prop_filter("forbidden", |v4| is_forbidden_v4(*v4)),
            ],
        ) {
            prop_assert!(is_forbidden_address(v4.into()));
            for v6 in embedded(v4, random) {
                prop_assert!(is_forbidden_address(v6.into()), "{} as {}", v4, v6);
            }
        }

        /// With the other bits zero, so that a form embeds no second address.
        #[test]
        fn an_allowed_address_is_allowed_in_each_ipv6_form(v4: Ipv4Addr) {
            prop_assume!(!is_forbidden_v4(v4));
            let teredo = (0x2001_0000_u128 << 96) | (0x0102_0304 << 64);
            let client = u128::from(!u32::from(v4));
            let mut forms = embedded(v4, 0x1_0000_0000);
            // Both addresses of Teredo are set.
            forms.drain(6..8);
            forms.push(Ipv6Addr::from_bits(teredo | client));
            for v6 in forms {
                prop_assert!(!is_forbidden_address(v6.into()), "{} as {}", v4, v6);
            }
        }

        #[test]
        fn a_metadata_address_is_forbidden_with_each_length_of_a_local_nat64_prefix(
            v4 in prop_oneof![
                (any::<u8>(), any::<u8>()).prop_map(|(c, d)| Ipv4Addr::new(169, 254, c, d)),
                prop::sample::select(METADATA_V4.to_vec()),
            ],
        ) {
            for v6 in local_nat64(v4) {
                prop_assert!(is_forbidden_address(v6.into()), "{} as {}", v4, v6);
            }
        }

        /// The middle octets are those that begin no forbidden address.
        #[test]
        fn an_allowed_address_is_allowed_with_each_length_of_a_local_nat64_prefix(
            a in 1..100_u8,
            b in 0..100_u8,
            c in 0..100_u8,
            d: u8,
        ) {
            let v4 = Ipv4Addr::new(a, b, c, d);
            for v6 in local_nat64(v4) {
                prop_assert!(!is_forbidden_address(v6.into()), "{} as {}", v4, v6);
            }
        }
    }
}
