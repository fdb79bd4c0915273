//! Any text as an App ID service binding, in each of its formats.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tower_oauth::app_id::Binding;

fuzz_target!(|json: &str| {
    let from_vcap = Binding::from_vcap_services(json);
    let from_ce = Binding::from_ce_services(json);
    for binding in [Binding::from_json(json), from_vcap, from_ce]
        .into_iter()
        .flatten()
    {
        let tenant = binding.tenant_id();
        assert!(!tenant.is_empty() && !tenant.contains('/'));
        for endpoint in [
            binding.oauth_server_url(),
            binding.keys_url(),
            binding.token_endpoint(),
        ] {
            assert!(endpoint.as_str().starts_with("http"), "{endpoint:?}");
        }
        // All secrets of the corpus contain this word; a fuzzer also copies it elsewhere.
        const WORD: &str = "s3cr3t";
        let elsewhere = [
            tenant,
            binding.client_id().unwrap_or_default(),
            binding.oauth_server_url().as_str(),
        ];
        let elsewhere = elsewhere
            .iter()
            .any(|text| text.to_lowercase().contains(WORD))
            || binding
                .management_url()
                .is_some_and(|url| url.as_str().contains(WORD));
        assert!(elsewhere || !format!("{binding:?}").contains(WORD));
    }
});
