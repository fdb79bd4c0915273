//! Where tokens are asked for: a given address, or the one that the issuer's metadata names.

use crate::clock::UnixTime;
use crate::error::Error;
use crate::metadata;
use crate::oauth::{Endpoint, Issuer};
use crate::transport::{Limits, Transport};

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
    known: Option<Endpoint>,
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
}

impl TokenEndpoint {
    pub(super) fn discovered(issuer: Issuer, guess: Endpoint) -> Self {
        Self::Discovered(Discovery { issuer, guess, known: None })
    }

    /// The address of the next token request.
    pub(super) async fn place(&mut self, lookup: Lookup<'_>) -> Result<Place, Error> {
        match self {
            Self::Fixed(url) => Ok(Place { url: url.clone(), is_guessed: false }),
            Self::Discovered(discovery) => discovery.place(lookup).await,
        }
    }

    /// Notes that a token came from there.
    pub(super) fn proved(&mut self, place: Place) {
        if let Self::Discovered(discovery) = self {
            // A guess that was wrong is looked up again.
            discovery.known = Some(place.url);
        }
    }
}

impl Discovery {
    async fn place(&mut self, lookup: Lookup<'_>) -> Result<Place, Error> {
        if let Some(url) = &self.known {
            return Ok(Place { url: url.clone(), is_guessed: false });
        }
        let Lookup { transport, allow_loopback_http, now, limits } = lookup;
        match metadata::discover(transport, &self.issuer, allow_loopback_http, now, limits).await {
            Ok(metadata) => {
                Ok(Place { url: metadata.token_endpoint(allow_loopback_http)?, is_guessed: false })
            }
            Err(error) if metadata::is_absent(&error) => {
                Ok(Place { url: self.guess.clone(), is_guessed: true })
            }
            Err(error) => Err(error),
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
