//! Public keys that take the place of a key that is not registered.
//!
//! A signature is verified for each well-formed assertion. Without it, the time of the response
//! would show which applications and keys exist. A signature by one of these keys is refused, too:
//! their private keys are public.

use std::sync::LazyLock;

use crate::jwt::{Algorithm, VerificationKey};
use crate::key_set::KeySet;

/// RFC 7515 appendix A.2, the base points of the three curves, and RFC 8037 appendix A.2.
const JWKS: &str = r#"{"keys":[
    {"kty":"RSA","e":"AQAB","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"},
    {"kty":"EC","crv":"P-256","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY",
     "y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"},
    {"kty":"EC","crv":"P-384",
     "x":"qofKIr6LBTeOscce8yCtdG4dO2KLp5uYWfdB4IJUKjhVAvJdv1UpbDpUXjhydgq3",
     "y":"NhfeSpYmLG9dnpi_kpLcKfj0Hb0omhR86doxE7XwuMAKYLHOHX6BnXpDHXyQ6g5f"},
    {"kty":"EC","crv":"P-521",
     "x":"AMaFjga3BATpzZ4-y2YjlbRCnGSBOQU_tSH4KK9ga009uqFLXnfv51ko_h3BJ6L_qN4zSLPBhWpCm_l-fjHC5b1m",
     "y":"ARg5KWp4mjvABFyKX7QsfRvZmPVESVebRGgXr70XJz5mLJfucple9CZAxVC5AT-tB2E1PHCGonLCQIi-lHaf0WZQ"},
    {"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
]}"#;

static KEYS: LazyLock<KeySet> =
    LazyLock::new(|| KeySet::from_json(JWKS.as_bytes()).expect("the keys are valid"));

/// A key for this algorithm.
pub(super) fn decoy_key(algorithm: Algorithm) -> &'static VerificationKey {
    let mut keys = KEYS.used_keys().map(|(_, key)| key);
    keys.find(|key| key.supports(algorithm))
        .expect("there is a key for each algorithm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_decoy_for_each_algorithm() {
        for &algorithm in Algorithm::ALL {
            assert!(decoy_key(algorithm).supports(algorithm));
        }
    }
}
