//! Any bytes as a well-signed payload. An accepted one has, in a plain reading, the right audience
//! and has not expired, and the context agrees with it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use tower_oauth_fuzz::{AUDIENCE, Fixture, HEADER, ISSUER, NOW, plain};

thread_local!(static FIXTURE: Fixture = Fixture::new());

fn text<'a>(claims: &'a serde_json::Map<String, Value>, name: &str) -> Option<&'a str> {
    // `null` counts as absent.
    let claim = claims.get(name).filter(|claim| !claim.is_null());
    claim.map(|claim| {
        claim
            .as_str()
            .expect("a registered claim of the wrong type is rejected")
    })
}

fuzz_target!(|payload: &[u8]| {
    FIXTURE.with(|fixture| {
        let Ok(context) = fixture.validate(&fixture.sign(HEADER, payload)) else {
            return;
        };
        let claims = plain(payload);
        assert_eq!(claims["iss"], ISSUER);
        let audience = match &claims["aud"] {
            Value::Array(list) => list
                .iter()
                .map(|one| one.as_str().expect("a string"))
                .collect(),
            one => vec![one.as_str().expect("a string")],
        };
        assert!(audience.contains(&AUDIENCE));
        assert!(context.audience().eq(audience));
        let expires_at = claims["exp"].as_f64().expect("a number");
        assert!(expires_at + 60.0 > NOW as f64);
        assert_eq!(context.expires_at().as_secs(), expires_at as u64);
        for not_later in ["nbf", "iat"] {
            let date = claims
                .get(not_later)
                .map_or(0.0, |date| date.as_f64().expect("a number"));
            assert!(date < (NOW + 61) as f64);
        }
        assert!(!claims.contains_key("cnf"));
        for rejected in ["at_hash", "c_hash"] {
            assert!(
                claims.get(rejected).is_none_or(Value::is_null),
                "{rejected}"
            );
        }
        assert!(!claims.get("events").is_some_and(Value::is_object));
        assert_eq!(context.subject(), text(&claims, "sub"));
        // Private claims of some issuers, which may have any type in tokens of others.
        let string = |name: &str| claims.get(name).and_then(Value::as_str);
        assert_eq!(
            context.client_id(),
            text(&claims, "client_id")
                .or(text(&claims, "azp"))
                .or(string("appid"))
                .or(string("cid"))
        );
        // Claims of an accepted token are readable as any type.
        let _roles = context.roles().count();
        assert_eq!(
            context.claims::<Value>().expect("an object"),
            Value::Object(claims)
        );
    });
});
