//! The versions of App ID.

use std::fmt;

/// The version of App ID's OAuth endpoints and of their tokens.
///
/// ```
/// use tower_oauth::Endpoint;
/// use tower_oauth::app_id::{Binding, Version};
///
/// let url = Endpoint::new("https://eu-gb.appid.cloud.ibm.com/oauth/v3/39a37f57-a227")?;
/// let binding = Binding::builder().oauth_server_url(url).build()?;
/// assert_eq!(binding.version(), Version::V3);
/// assert_eq!(Version::V4.number(), 4);
/// # Ok::<(), tower_oauth::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Version {
    /// The tokens of 2017 to 2019: `aud` is a string, `iss` a bare host.
    V3,
    /// The tokens since 2019.
    V4,
}

impl Version {
    /// The number: 3 or 4.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::V3 => 3,
            Self::V4 => 4,
        }
    }

    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "3" => Some(Self::V3),
            "4" => Some(Self::V4),
            _ => None,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}
