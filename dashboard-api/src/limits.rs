//! Rates by a key that callers choose, such as an address or a name, in memory that no number of keys can fill.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Counters; keys that fall on the same one share it. Which ones do is different in every process, so that nobody can
/// choose a key to exhaust another's.
const COUNTERS_MAX: u64 = 1 << 16;
/// Bits of an IPv6 address that name a network: whoever has one has all addresses in it.
const NETWORK_BITS: u32 = 64;

/// How often something may happen, by key.
pub(crate) struct Rates {
    counters: DefaultKeyedRateLimiter<u16>,
    hasher: RandomState,
}

impl Rates {
    pub(crate) fn per_second(n: u32, burst_seconds: u32) -> Self {
        let n = NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let burst = n.saturating_mul(NonZeroU32::new(burst_seconds).unwrap_or(NonZeroU32::MIN));
        Self::new(Quota::per_second(n).allow_burst(burst))
    }

    pub(crate) fn per_minute(n: u32) -> Self {
        Self::new(Quota::per_minute(NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)))
    }

    fn new(quota: Quota) -> Self {
        Self { counters: RateLimiter::keyed(quota), hasher: RandomState::new() }
    }

    /// Counts one. Returns whether it is one too many.
    pub(crate) fn is_too_fast(&self, key: &str) -> bool {
        let counter = u16::try_from(self.hasher.hash_one(key) % COUNTERS_MAX).unwrap_or(0);
        self.counters.check_key(&counter).is_err()
    }
}

/// What an address counts as: an IPv6 address as its network.
pub(crate) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> (128 - NETWORK_BITS) << (128 - NETWORK_BITS);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_keys_takes_a_bounded_number_of_counters() {
        let rates = Rates::per_minute(3);
        assert_eq!((0..4).map(|_| rates.is_too_fast("ann")).collect::<Vec<_>>(), [false, false, false, true]);
        for n in 0..200_000 {
            rates.is_too_fast(&format!("user {n}"));
        }
        assert!(rates.counters.len() as u64 <= COUNTERS_MAX);
        assert!(rates.is_too_fast("ann"), "nobody is forgotten for it");
    }

    #[test]
    fn addresses_of_one_network_are_one() {
        let check = |address: &str| network_of(address.parse().expect("an address")).to_string();
        assert_eq!(check("192.0.2.7"), "192.0.2.7");
        assert_eq!(check("::ffff:192.0.2.7"), "192.0.2.7");
        assert_eq!(check("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(check("2001:db8:1:2::9"), check("2001:db8:1:2:ffff::1"));
        assert_ne!(check("2001:db8:1:2::9"), check("2001:db8:1:3::9"));
    }
}
