//! The client: obtains access tokens and adds them to requests.
//!
//! A [`TokenManager`] provides the current [`AccessToken`]. Its [`BearerTokenLayer`] adds the token
//! to requests. [`TokenManagers`] has a manager for each of several origins.
//!
//! # A token
//!
//! ```text
//!  caller ─ access_token() ─▶ is a token valid? ──yes────────────────────────▶ token
//!                                  │ no
//!                                  ▼
//!                         wake the task and wait ◀── one result for all ─────┐
//!                                  │                                         │
//!           task ◀─────────────────┘                                         │
//!            │  one request at a time: retried with backoff, within a limit ─┘
//!            ├─ renews the token before it expires, for as long as it is used
//!            └─ renews it at once when it is rejected ◀── invalidate(), invalidate_and_wait() ── layer
//! ```
//!
//! The task owns the token request, so a cancelled caller does not cancel it for others.
//!
//! # A token request
//!
//! ```text
//!  task ─ fetch() ─▶ TokenSource: a TokenEndpointSource, or one of the application
//!                      │
//!                      ├─ token endpoint: configured, or discovered by the issuer ◀── moved ──┐
//!                      │                                                                      │
//!                      ├─ Grant                  grant_type, …        ┐                       │
//!                      ├─ settings               scope, resource, …   ├ TokenRequest          │
//!                      ├─ ClientAuthentication   Authorization, …     ┘                       │
//!                      │                                                                      │
//!                      └─ POST ─▶ response ── 200 ──▶ TokenResponse ──▶ AccessToken           │
//!                                    │                                                        │
//!                                    └─ error, without the secrets of the request ─ once ─────┘
//! ```
//!
//! [`ClientAuthentication`] is a client secret ([`ClientCredentials`]), an assertion that a
//! [`SigningKey`] signs ([`PrivateKeyJwt`]), one of an [`AssertionSource`] such as a file
//! ([`ClientAssertion`]), or the TLS certificate ([`TlsClientAuth`]). Client credentials are the
//! default [`Grant`], and [`JwtBearerGrant`] is an assertion as the grant. An application may
//! implement all three traits, for example for an assertion that a key management service signs. It
//! may also replace or wrap the [`TokenSource`], for example for a store that replicas share.
//! [`FileToken`] is the source of a token in a file. [`TokenManagerBuilder::request_timeout`] limits
//! the time of all of it. A failed request is retried by the task, as a new request.
//!
//! # A rejected token
//!
//! A token that a resource server rejects is *invalidated*: other calls go on using it, because
//! other resource servers may accept it, until it has a successor or expires. The rejected call
//! waits a short time for the successor ([`TokenManager::invalidate_and_wait`]). If there is none
//! in that time, the caller gets the response of the resource server, never an error of the token
//! endpoint.
//!
//! ```text
//!  rejected ─▶ has a successor? ──yes────────────────────────────────────▶ retry with it
//!                 │ no
//!                 ▼
//!             a replacement in the last 10 s? ──yes─────────────────────▶ response
//!                 │ no
//!                 ▼
//!             the task renews it now ── request cannot be retried ──────▶ response
//!                 │
//!                 ├─ a successor within 5 s ────────────────────────────▶ retry with it
//!                 └─ none: the attempt failed or timed out ─────────────▶ response
//! ```
//!
//! # A token for a resource
//!
//! [`TokenManager::for_resource`] reads the metadata of the resource before it discovers the token
//! endpoint: they have to list the configured issuer.
//!
//! A token that lacks a scope stays in use. The scopes that the resource server requires are tried
//! with one token request, within [limits][step_up_scopes]. The token that it brings serves all
//! calls.
//!
//! [step_up_scopes]: TokenManagerBuilder::step_up_scopes
//!
//! ```text
//!  insufficient_scope ─▶ may these scopes be added? ──no──────────────────▶ response
//!                 │ yes
//!                 ▼
//!             requested already? ──yes─▶ another current token? ─ no ────▶ response
//!                 │ no                        └─ yes ────────────────────▶ retry with it
//!                 ▼
//!             refused in the last 5 min, or any refusal in 10 s? ──yes───▶ response
//!                 │ no
//!                 ▼
//!             the task requests a token with them ── no retry possible ──▶ response
//!                 │
//!                 ├─ a token within 5 s ─────────────────────────────────▶ retry with it
//!                 └─ none: the current token and its renewal are as before ▶ response
//! ```
//!
//! # A token on behalf of a caller
//!
//! A service that calls another one for its caller exchanges the caller's token
//! ([`TokenExchange`], [RFC 8693](https://www.rfc-editor.org/rfc/rfc8693)). It needs no task: the
//! call that finds no token has it exchanged, and all calls with the same token wait for that.
//!
//! ```text
//!  InboundToken ─▶ access_token() ─▶ exchanged before, and both valid? ──yes──▶ token
//!                                       │ no
//!                                       ▼
//!                                    an exchange of it is under way? ──yes──▶ wait for its result
//!                                       │ no
//!                                       ▼
//!                                    one token request, with the subject token as the grant
//! ```

// `renewal::schedule` decides when a request is sent, without I/O and without a clock;
// `token_endpoint` decides where it is sent; `endpoint_source` sends it.
mod assertion;
mod assertion_audience;
mod assertion_file;
mod assertion_source;
mod authentication;
mod azure;
mod box_future;
mod builder;
mod challenge;
mod client_assertion;
mod clone_body;
mod credentials;
mod endpoint_settings;
mod endpoint_source;
mod environment;
mod file_token;
mod future;
mod github_actions;
mod google_service_account;
mod grant;
mod jwt_bearer;
mod layer;
mod lifetime;
mod parameters;
mod presets;
mod private_key_jwt;
mod renewal;
#[cfg(feature = "reqwest")]
mod reqwest_body;
#[cfg(feature = "reqwest-middleware")]
mod reqwest_middleware;
mod resource_metadata;
mod response_members;
mod response_reader;
mod scope_upgrade;
mod service;
mod settings;
mod shared_discovery;
mod signing_key;
mod state;
mod targets;
mod tls_client_auth;
mod token;
mod token_endpoint;
mod token_exchange;
mod token_manager;
mod token_managers;
mod token_request;
mod token_response;
mod token_source;
mod unauthorized;
mod unverified_claims;

pub use self::assertion_audience::AssertionAudience;
pub use self::assertion_file::AssertionFile;
pub use self::assertion_source::AssertionSource;
pub use self::authentication::{ClientAuthentication, NoAuthentication};
pub use self::box_future::BoxFuture;
pub use self::builder::TokenManagerBuilder;
pub use self::client_assertion::ClientAssertion;
pub use self::clone_body::{CloneAnyBody, CloneBody, CloneEmptyBody, CloneNoBody};
pub use self::credentials::ClientCredentials;
pub use self::endpoint_settings::TokenEndpointSettings;
pub use self::endpoint_source::TokenEndpointSource;
pub use self::file_token::FileToken;
pub use self::future::BearerTokenFuture;
pub use self::github_actions::GitHubActionsAssertion;
pub use self::grant::Grant;
pub use self::jwt_bearer::JwtBearerGrant;
pub use self::layer::BearerTokenLayer;
pub use self::private_key_jwt::PrivateKeyJwt;
pub use self::renewal::Renewer;
#[cfg(feature = "reqwest")]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub use self::reqwest_body::CloneBufferedBody;
pub use self::service::BearerTokenService;
pub use self::settings::ClientSettings;
pub use self::signing_key::SigningKey;
pub use self::tls_client_auth::TlsClientAuth;
pub use self::token::AccessToken;
pub use self::token_exchange::{TokenExchange, TokenExchangeBuilder, TokenTypeIdentifier};
pub use self::token_manager::TokenManager;
pub use self::token_managers::{TokenManagers, TokenManagersBuilder};
pub use self::token_request::TokenRequest;
pub use self::token_response::TokenResponse;
pub use self::token_source::TokenSource;
pub use self::unauthorized::Unauthorized;
#[doc(no_inline)]
pub use crate::jwt::Algorithm;
