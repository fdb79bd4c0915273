//! Where tokens are asked for: a given address, or the one that the issuer's metadata names.
//!
//! A discovered address is looked up again after an hour, and after a token request that failed in
//! a way which may mean that the endpoint has moved. If the metadata cannot be had then, the last
//! known address is used: an outage of the metadata is none of the token endpoint. Metadata that
//! name another issuer, or no address that can be used, are an error, and nothing is sent.

use std::time::{Duration, Instant};

use http::StatusCode;
use tokio::time::timeout;

use crate::clock::UnixTime;
use crate::error::{Error, ErrorKind, Operation};
use crate::oauth::{Endpoint, Issuer};
use crate::timer::now;
use crate::transport::{Limits, Transport};
use crate::{metadata, trace};

/// How long a discovered address is used without asking the metadata again.
const LOOK_UP_EVERY: Duration = Duration::from_secs(3600);

/// Requests for metadata that failed token requests cause are so far apart.
const DOUBTS_APART: Duration = Duration::from_secs(10);

/// Metadata that could not be had are left alone for this long, while an address is known.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(60);

/// The longest that metadata are left alone, however long their `Retry-After`.
const LONGEST_REST: Duration = Duration::from_secs(300);

/// Where tokens are asked for.
#[derive(Clone, Debug)]
pub(super) enum TokenEndpoint {
    Fixed(Endpoint),
    Discovered(Discovery),
}

/// A token endpoint that the metadata name.
#[derive(Clone, Debug)]
pub(super) struct Discovery {
    pub(super) issuer: Issuer,
    /// `{issuer}/token`, for an issuer that publishes no metadata.
    guess: Endpoint,
    known: Option<Known>,
}

/// An address that the metadata named, or a guess that proved right.
#[derive(Clone, Debug)]
struct Known {
    url: Endpoint,
    is_guessed: bool,
    /// When the metadata are asked again.
    look_up_at: Instant,
    /// A failed token request has them asked no sooner than this.
    no_doubt_before: Instant,
}

/// What a request for metadata takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lookup<'a> {
    pub(super) transport: &'a dyn Transport,
    pub(super) allow_loopback_http: bool,
    pub(super) now: UnixTime,
    pub(super) limits: Limits,
}

/// The address for one token request.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) url: Endpoint,
    is_guessed: bool,
    /// Whether the metadata were not asked for it just now.
    is_remembered: bool,
    /// What was known before the request.
    known: Option<Known>,
}

impl TokenEndpoint {
    pub(super) fn discovered(issuer: Issuer, guess: Endpoint) -> Self {
        Self::Discovered(Discovery {
            issuer,
            guess,
            known: None,
        })
    }

    /// The address of the next token request.
    ///
    /// Unless its outcome is [settled](Self::settle), the request counts as failed: it may be
    /// dropped wherever it waits.
    pub(super) async fn place(&mut self, lookup: Lookup<'_>) -> Result<Place, Error> {
        match self {
            Self::Fixed(url) => Ok(Place {
                url: url.clone(),
                is_guessed: false,
                is_remembered: false,
                known: None,
            }),
            Self::Discovered(discovery) => {
                let place = discovery.place(lookup).await?;
                if let Some(known) = &mut discovery.known {
                    known.doubt();
                }
                Ok(place)
            }
        }
    }

    /// Notes the outcome of a request to `place`. Returns whether the endpoint may have moved and
    /// is to be looked up again now.
    pub(super) fn settle<T>(&mut self, place: &Place, outcome: &Result<T, Error>) -> bool {
        let Self::Discovered(discovery) = self else {
            return false;
        };
        if outcome.as_ref().err().is_some_and(may_have_moved) {
            return place.is_remembered && !discovery.known.as_ref().is_some_and(Known::is_trusted);
        }
        // A guess that was wrong is not known: it is looked up again.
        discovery.known = place
            .known
            .clone()
            .or_else(|| Some(Known::new(place.url.clone(), true)));
        false
    }
}

impl Discovery {
    async fn place(&mut self, lookup: Lookup<'_>) -> Result<Place, Error> {
        if let Some(known) = self.known.as_ref().filter(|known| known.is_trusted()) {
            return Ok(known.place(true));
        }
        let error = match self.look_up(lookup).await {
            Ok(url) => {
                let no_doubt_before = self.known.as_ref().map(|known| known.no_doubt_before);
                let mut known = Known::new(url, false);
                known.no_doubt_before = no_doubt_before.unwrap_or(known.no_doubt_before);
                return Ok(self.known.insert(known).place(false));
            }
            Err(Unknown::Wrong(error)) => return Err(error),
            Err(Unknown::Absent(error)) => error,
        };
        let is_absent = metadata::is_absent(&error);
        match &mut self.known {
            Some(known) => {
                let rest = error
                    .retry_after()
                    .unwrap_or_default()
                    .clamp(LOOK_UP_AGAIN, LONGEST_REST);
                known.no_doubt_before = now() + rest;
                known.look_up_at = now() + rest;
                if is_absent && known.is_guessed {
                    // Nothing else was expected.
                    known.look_up_at = now() + LOOK_UP_EVERY;
                } else {
                    trace::warn!(
                        target: "tower_oauth::client",
                        issuer = %self.issuer,
                        error = %error.with_sources(),
                        "the metadata could not be read again: tokens are asked for where they were"
                    );
                }
                Ok(known.place(false))
            }
            None if is_absent => Ok(Place {
                url: self.guess.clone(),
                is_guessed: true,
                is_remembered: false,
                known: None,
            }),
            None => Err(error),
        }
    }

    async fn look_up(&self, lookup: Lookup<'_>) -> Result<Endpoint, Unknown> {
        let Lookup {
            transport,
            allow_loopback_http,
            now,
            mut limits,
        } = lookup;
        if self.known.is_some() {
            // The token request gets the rest of the time.
            limits.total = limits.total.mul_f64(0.4);
        }
        let named = metadata::discover(transport, &self.issuer, allow_loopback_http, now, limits);
        // Over all the places where they may be.
        let named = timeout(limits.total, named)
            .await
            .unwrap_or_else(|_elapsed| Err(Error::new(Operation::Discovery, ErrorKind::Timeout)));
        match named {
            Ok(metadata) => metadata
                .token_endpoint(allow_loopback_http)
                .map_err(Unknown::Wrong),
            Err(error) if error.kind() == ErrorKind::IssuerMismatch => Err(Unknown::Wrong(error)),
            Err(error) => Err(Unknown::Absent(error)),
        }
    }
}

/// Why the metadata name no address.
enum Unknown {
    /// They could not be had.
    Absent(Error),
    /// They are not the issuer's, or what they name cannot be used.
    Wrong(Error),
}

impl Known {
    fn new(url: Endpoint, is_guessed: bool) -> Self {
        let now = now();
        Self {
            url,
            is_guessed,
            look_up_at: now + LOOK_UP_EVERY,
            no_doubt_before: now,
        }
    }

    fn is_trusted(&self) -> bool {
        now() < self.look_up_at
    }

    fn place(&self, is_remembered: bool) -> Place {
        Place {
            url: self.url.clone(),
            is_guessed: self.is_guessed,
            is_remembered,
            known: Some(self.clone()),
        }
    }

    /// Has the metadata asked before the next request, unless that was done a moment ago.
    fn doubt(&mut self) {
        let at = self.no_doubt_before.max(now());
        if at < self.look_up_at {
            self.look_up_at = at;
            self.no_doubt_before = at + DOUBTS_APART;
        }
    }
}

impl Place {
    /// The error of a token request to this address.
    pub(super) fn explain(&self, error: Error) -> Error {
        if self.is_guessed {
            error.with_detail("the URL is guessed, because the issuer publishes no metadata")
        } else {
            error
        }
    }
}

/// Whether a token request failed in a way which may mean that nothing answers token requests at
/// this address any more. A refusal in the words of OAuth comes from a token endpoint.
fn may_have_moved(error: &Error) -> bool {
    let is_absent = |status| {
        matches!(
            status,
            StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED
                | StatusCode::GONE
                | StatusCode::MISDIRECTED_REQUEST
        )
    };
    match error.kind() {
        // Some frameworks put an `error` into the body of any 404.
        ErrorKind::Refused => error.status().is_some_and(is_absent),
        ErrorKind::Status(status) => status != StatusCode::TOO_MANY_REQUESTS,
        _ => true,
    }
}
