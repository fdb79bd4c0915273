//! IBM Cloud App ID: from a service binding to what the rest of the crate needs.
//!
//! ```text
//!  operator ── 1 register ──▶ App ID management API        ManagementClient
//!                                   │ clientId, secret
//!                                   ▼
//!  VCAP_SERVICES, CE_SERVICES, APPID_SERVICE_BINDING,
//!  APPID_BINDING_FILE, or values of your own ───────────▶  Binding
//!                                   │ issuer, keys_url, token_endpoint, client_id, secret
//!                    ┌──────────────┴──────────────┐
//!                    ▼                             ▼
//!  application A ── 2 credentials ──▶ App ID ── 3 access token ──▶ A
//!  application A ── 4 request + token ──▶ application B (checks it with App ID's keys)
//! ```
//!
//! App ID departs from the standards in a few places that a [`Binding`] knows of: the
//! credentials go out in Basic authentication as they are, not form-urlencoded; the old
//! `bluemix.net` hosts issue tokens in the name of the new ones; and version 3 tokens name a
//! bare host as their issuer.
//!
//! ```
//! use tower_oauth::app_id::{Binding, Version};
//!
//! let binding = Binding::from_json(
//!     r#"{"tenantId": "39a37f57-a227-4bfe-a044-93b6e6060b61",
//!         "clientId": "111c22c3-38ea-4de8-b5d4-338744d83b0f",
//!         "secret": "ZmE5ZDQ5ODctMmA1ZS00OGRiLWExZDMtZTA1MjkyZTc4MDB4",
//!         "oauthServerUrl": "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227-4bfe-a044-93b6e6060b61"}"#,
//! )?;
//! assert_eq!(binding.version(), Version::V4);
//! assert_eq!(binding.issuer().as_str(), binding.oauth_server_url().as_str());
//! assert!(!format!("{binding:?}").contains("ZmE5"));
//!
//! // A tenant that is not the URL's is a mistake, found at once.
//! let torn = Binding::from_json(
//!     r#"{"tenantId": "another",
//!         "oauthServerUrl": "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227-4bfe-a044-93b6e6060b61"}"#,
//! );
//! assert!(torn.is_err());
//! # Ok::<(), tower_oauth::ConfigError>(())
//! ```

mod application;
mod binding;
mod iam;
mod management;
mod server;
mod sources;
mod wiring;

pub use self::application::{Application, ApplicationName, ApplicationType, Role, ScopeName};
pub use self::binding::{Binding, BindingBuilder, Version};
pub use self::iam::{IamApiKey, IamToken, IamTokenFuture};
pub use self::management::{ManagementClient, ManagementClientBuilder};
