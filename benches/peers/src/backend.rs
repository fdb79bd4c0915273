//! jsonwebtoken 11 has one crypto provider per process. The provider installed here dispatches to
//! either backend, so that tower-oauth2-resource-server is measured with both.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use jsonwebtoken_11::crypto::{CryptoProvider, aws_lc, rust_crypto};

static RUST_CRYPTO: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy)]
pub enum Backend {
    AwsLc,
    RustCrypto,
}

impl Backend {
    /// Selects this backend for the following verifications.
    pub fn select(self) {
        RUST_CRYPTO.store(matches!(self, Self::RustCrypto), Relaxed);
    }
}

fn selected() -> &'static CryptoProvider {
    if RUST_CRYPTO.load(Relaxed) {
        &rust_crypto::DEFAULT_PROVIDER
    } else {
        &aws_lc::DEFAULT_PROVIDER
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the lint applies to the library only"
)]
pub fn install() {
    let provider = CryptoProvider {
        signer_factory: |algorithm, key| (selected().signer_factory)(algorithm, key),
        verifier_factory: |algorithm, key| (selected().verifier_factory)(algorithm, key),
        key_utils: aws_lc::DEFAULT_PROVIDER.key_utils.clone(),
    };
    Box::leak(Box::new(provider)).install_default().unwrap();
}
