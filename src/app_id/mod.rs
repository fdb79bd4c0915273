//! IBM Cloud App ID: service bindings and the management API.
//!
//! ```text
//!  operator ── 1 register ──▶ App ID management API        ManagementClient
//!                                   │ clientId, secret
//!                                   ▼
//!  VCAP_SERVICES, CE_SERVICES, APPID_SERVICE_BINDING,
//!  APPID_BINDING_FILE, or explicit values ──────────────▶  Binding
//!                                   │ issuer, keys_url, token_endpoint, client_id, secret
//!                    ┌──────────────┴──────────────┐
//!                    ▼                             ▼
//!  application A ── 2 credentials ──▶ App ID ── 3 access token ──▶ A
//!  application A ── 4 request + token ──▶ application B (checks it with App ID's keys)
//! ```
//!
//! A [`Binding`] handles three deviations of App ID from the standards: Basic authentication is not
//! form-urlencoded; the old `bluemix.net` hosts issue tokens with the issuer of the new hosts; the
//! issuer of version 3 tokens is a bare host.
//!
//! ```
//! use tower_oauth::app_id::{Binding, Version};
//!
//! let binding = Binding::from_json(
//!     r#"{"tenantId": "39a37f57-a227",
//!         "clientId": "111c22c3-38ea-4de8-b5d4-338744d83b0f",
//!         "secret": "ZmE5ZDQ5ODctMmA1ZS00OGRiLWExZDMtZTA1MjkyZTc4MDB4",
//!         "oauthServerUrl": "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227"}"#,
//! )?;
//! assert_eq!(binding.version(), Version::V4);
//! assert_eq!(binding.issuer().as_str(), binding.oauth_server_url().as_str());
//! assert!(!format!("{binding:?}").contains("ZmE5"));
//!
//! // A tenant that contradicts the URL is an error.
//! let contradictory = Binding::from_json(
//!     r#"{"tenantId": "another",
//!         "oauthServerUrl": "https://eu-gb.appid.cloud.ibm.com/oauth/v4/39a37f57-a227"}"#,
//! );
//! assert!(contradictory.is_err());
//! # Ok::<(), tower_oauth::ConfigError>(())
//! ```

mod application;
mod binding;
mod iam;
mod management;
mod on_demand;
mod server;
mod sources;
mod version;
mod wiring;

pub use self::application::{Application, ApplicationName, ApplicationType, Role, ScopeName};
pub use self::binding::{Binding, BindingBuilder};
pub use self::iam::{IamApiKey, IamToken, IamTokenFuture};
pub use self::management::{ManagementClient, ManagementClientBuilder};
pub use self::version::Version;
