//! The credentials of a request: a bearer token in exactly one `Authorization` field.
//!
//! [RFC 6750 §2.1](https://www.rfc-editor.org/rfc/rfc6750#section-2.1).

use http::request::Parts;
use http::{HeaderMap, HeaderName, Method, Request, Uri, Version, header};
use percent_encoding::percent_decode_str;

use super::RejectionKind;

/// The proof of possession of RFC 9449 §4.1.
const DPOP: HeaderName = HeaderName::from_static("dpop");

/// The head of a request, borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'r> {
    method: &'r Method,
    uri: &'r Uri,
    version: Version,
    headers: &'r HeaderMap,
}

impl<'r> Head<'r> {
    pub(super) fn from_request<B>(request: &'r Request<B>) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            version: request.version(),
            headers: request.headers(),
        }
    }

    pub(super) fn from_parts(parts: &'r Parts) -> Self {
        Self {
            method: &parts.method,
            uri: &parts.uri,
            version: parts.version,
            headers: &parts.headers,
        }
    }

    /// Whether the query has an access token.
    pub(super) fn has_access_token(self) -> bool {
        has_access_token(self.uri)
    }

    /// What a request without a bearer token has instead, for the log.
    pub(super) fn instead_of_a_token(self) -> &'static str {
        if self.headers.contains_key(header::AUTHORIZATION) {
            "an Authorization field of another scheme"
        } else {
            "no Authorization field"
        }
    }

    /// Whether a request is a gRPC call: `POST` over HTTP/2 with the content type of gRPC.
    ///
    /// gRPC-Web is excluded, because its clients in browsers need an HTTP status.
    pub(super) fn is_grpc(self) -> bool {
        const GRPC: &[u8] = b"application/grpc";
        let is_grpc = |value: &[u8]| {
            value
                .split_at_checked(GRPC.len())
                .is_some_and(|(essence, rest)| {
                    essence.eq_ignore_ascii_case(GRPC)
                        && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
                })
        };
        self.version == Version::HTTP_2
            && self.method == Method::POST
            && self
                .headers
                .get(header::CONTENT_TYPE)
                .is_some_and(|value| is_grpc(value.as_bytes()))
    }
}

/// The credentials of a request: a bearer token (RFC 6750).
#[derive(Clone, Copy)]
pub(super) struct Credentials<'r> {
    token: &'r [u8],
}

impl<'r> Credentials<'r> {
    /// Credentials that came without a request.
    pub(super) fn from_token(token: &'r str) -> Result<Self, RejectionKind> {
        if token.is_empty() {
            return Err(RejectionKind::MissingToken);
        }
        let token = token.as_bytes();
        Ok(Self { token })
    }

    /// Extracts the bearer token of a request.
    ///
    /// A token in the query or in a form is not accepted (RFC 9700 §4.3.2). One in the query
    /// besides the header is an error, because RFC 6750 §2 forbids two methods in one request. The
    /// body is not read, so a token in a form is ignored.
    pub(super) fn from_head(head: Head<'r>) -> Result<Self, RejectionKind> {
        let (mut field, mut has_proof) = (None, false);
        for (name, value) in head.headers {
            if *name == header::AUTHORIZATION {
                if field.replace(value).is_some() {
                    return Err(RejectionKind::InvalidRequest);
                }
            } else {
                has_proof |= *name == DPOP;
            }
        }
        let field = field.ok_or(RejectionKind::MissingToken)?.as_bytes();
        // RFC 9110 §11.1: the scheme is case-insensitive.
        let Some((scheme, rest)) = field.split_at_checked(6) else {
            return Err(RejectionKind::MissingToken);
        };
        if !scheme.eq_ignore_ascii_case(b"bearer") {
            return Err(RejectionKind::MissingToken);
        }
        // RFC 9449 §4.3: a proof next to a Bearer token is a client error or a downgrade attack.
        if has_proof {
            return Err(RejectionKind::InvalidRequest);
        }
        let Some((b' ', token)) = rest.split_first() else {
            return Err(RejectionKind::InvalidRequest);
        };
        if token.is_empty() || head.has_access_token() {
            return Err(RejectionKind::InvalidRequest);
        }
        Ok(Self { token })
    }

    /// The token, undecoded.
    pub(super) fn token(&self) -> &'r [u8] {
        self.token
    }
}

/// Returns the token if it consists of visible ASCII characters (VCHAR of RFC 5234).
///
/// Checked before the token is parsed, so that a malformed header is always `invalid_request`,
/// independent of the token. The token parser checks the alphabet of b64token: a padded token is
/// an invalid token, not a malformed request.
pub(super) fn check_visible_ascii(token: &[u8]) -> Result<&[u8], RejectionKind> {
    // VCHAR is `!` to `~`. There is no early exit, so that the loop is vectorized.
    let invisible = token.iter().fold(0, |invisible, byte| {
        invisible | u8::from(byte.wrapping_sub(b'!') > b'~' - b'!')
    });
    if invisible == 0 {
        Ok(token)
    } else {
        Err(RejectionKind::InvalidRequest)
    }
}

/// Whether the query has the parameter `access_token` (RFC 6750 §2.3).
///
/// Every request is checked, so nothing is allocated. `+` is not decoded, because the name has no
/// space.
fn has_access_token(uri: &Uri) -> bool {
    let is_access_token = |pair: &str| {
        let name = pair.split_once('=').map_or(pair, |(name, _)| name);
        percent_decode_str(name).eq(*b"access_token")
    };
    uri.query()
        .is_some_and(|query| query.split('&').any(is_access_token))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn extract(headers: &HeaderMap, uri: &Uri) -> Result<Vec<u8>, RejectionKind> {
        let mut request = Request::new(());
        *request.headers_mut() = headers.clone();
        *request.uri_mut() = uri.clone();
        Credentials::from_head(Head::from_request(&request))
            .map(|credentials| credentials.token().to_vec())
    }

    fn token_from(fields: &[&str]) -> Result<String, RejectionKind> {
        let mut headers = HeaderMap::new();
        for field in fields {
            headers.append(
                header::AUTHORIZATION,
                HeaderValue::from_bytes(field.as_bytes()).unwrap(),
            );
        }
        extract(&headers, &Uri::from_static("/a?b=c"))
            .and_then(|token| check_visible_ascii(&token).map(<[u8]>::to_vec))
            .map(|token| String::from_utf8(token).unwrap())
    }

    #[test]
    fn the_scheme_is_case_insensitive() {
        for field in [
            "Bearer a.b-c_d~e+f/g==",
            "bearer a.b-c_d~e+f/g==",
            "BEARER a.b-c_d~e+f/g==",
        ] {
            assert_eq!(token_from(&[field]).unwrap(), "a.b-c_d~e+f/g==");
        }
    }

    #[test]
    fn missing_and_other_credentials_differ_from_malformed_ones() {
        for fields in [&[][..], &["Basic YTpi"], &["DPoP abc"], &[""], &["Bear er"]] {
            assert_eq!(
                token_from(fields),
                Err(RejectionKind::MissingToken),
                "{fields:?}"
            );
        }
        for fields in [
            &["Bearer a", "Bearer a"][..],
            &["Bearer a", "Basic YTpi"],
            &["Bearer a, Bearer b"],
            &["Bearer a,Bearer b"],
            &["Bearer"],
            &["Bearer "],
            &["Bearer  a"],
            &["Bearer\ta"],
            &["Bearer a "],
            &["Bearer a b"],
            &["Bearera"],
            &["Bearer é"],
        ] {
            assert_eq!(
                token_from(fields),
                Err(RejectionKind::InvalidRequest),
                "{fields:?}"
            );
        }
    }

    #[test]
    fn a_second_token_in_the_query_is_rejected() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        let twice = Uri::from_static("/?x=1&access_token=a");
        assert_eq!(
            extract(&headers, &twice),
            Err(RejectionKind::InvalidRequest)
        );
        assert_eq!(
            extract(&HeaderMap::new(), &twice),
            Err(RejectionKind::MissingToken)
        );
        for query in [
            "access%5Ftoken=a",
            "access%5ftoken",
            "b=c&%61ccess_toke%6E=",
            "a=%&access_token=a=b",
        ] {
            let disguised: Uri = format!("/?{query}").parse().unwrap();
            assert_eq!(
                extract(&headers, &disguised),
                Err(RejectionKind::InvalidRequest),
                "{query}"
            );
        }
        for query in [
            "my_access_token=a",
            "access_tokens=a",
            "access+token=a",
            "x=access_token",
            "access%255Ftoken=a",
            "access_toke%6=a",
            "access_token%=a",
            "access_toke%+e=a",
            "",
        ] {
            let innocent: Uri = format!("/?{query}").parse().unwrap();
            assert_eq!(extract(&headers, &innocent), Ok(b"a".to_vec()), "{query}");
        }
    }

    #[test]
    fn a_dpop_proof_beside_a_bearer_token_is_rejected() {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, HeaderValue::from_static("Bearer a"));
        headers.insert("dpop", HeaderValue::from_static("x.y.z"));
        assert_eq!(
            extract(&headers, &Uri::from_static("/")),
            Err(RejectionKind::InvalidRequest)
        );
    }
}
