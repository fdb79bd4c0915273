//! jsonwebtoken 11 has one provider for the process, which is compiled in or installed. To see
//! tower-oauth2-resource-server with either, one is installed that asks which is meant.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use jsonwebtoken_11::crypto::{CryptoProvider, aws_lc, rust_crypto};

static RUST_CRYPTO: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Copy)]
pub enum Backend {
    AwsLc,
    RustCrypto,
}

impl Backend {
    /// From here on it verifies.
    pub fn choose(self) {
        RUST_CRYPTO.store(matches!(self, Self::RustCrypto), Relaxed);
    }
}

fn chosen() -> &'static CryptoProvider {
    if RUST_CRYPTO.load(Relaxed) {
        &rust_crypto::DEFAULT_PROVIDER
    } else {
        &aws_lc::DEFAULT_PROVIDER
    }
}

#[expect(clippy::disallowed_methods, reason = "the rule is the library's")]
pub fn install() {
    let provider = CryptoProvider {
        signer_factory: |algorithm, key| (chosen().signer_factory)(algorithm, key),
        verifier_factory: |algorithm, key| (chosen().verifier_factory)(algorithm, key),
        key_utils: aws_lc::DEFAULT_PROVIDER.key_utils.clone(),
    };
    Box::leak(Box::new(provider)).install_default().unwrap();
}
