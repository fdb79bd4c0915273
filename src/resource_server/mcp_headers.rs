//! The headers by which a client of the Model Context Protocol repeats what its body says.

use http::Method;
use http::request::Parts;

/// The first version whose transports compare the headers with the body.
const FIRST_COMPARED: &str = "2026-07-28";

/// The methods whose name is in `Mcp-Name`. For any other method the header is not compared.
const NAMED: [&str; 3] = ["tools/call", "prompts/get", "resources/read"];

/// How a name starts that is not written as it is: `=?base64?…?=`.
const ENCODED: &str = "=?";

/// What `Mcp-Method` and `Mcp-Name` say of an MCP request.
///
/// For a rule of [`RequireLayer::by`](crate::RequireLayer::by): all tools of a server have one URL,
/// and no layer reads the body. From protocol version 2026-07-28 on, clients repeat method and name
/// in these headers, and a transport refuses a request whose headers differ from its body.
///
/// Three rules make it safe:
///
/// - The service behind the layer is a transport that compares them, such as `rmcp` from version 3
///   on. Behind any other, a caller writes into the headers what it likes.
/// - List the tools that need less. Require for every other name what all tools need. Never list
///   those that need more: a name that the list does not have would need nothing.
/// - `None` needs what all tools need. Clients of older protocols send no such headers.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), tower_oauth::BoxError> {
/// use http::{Request, request::Parts};
/// use tower_oauth::RequireLayer;
/// use tower_oauth::resource_server::{McpHeaders, Requirement};
///
/// let all = Requirement::scopes(["reports.read", "orders.read"]);
/// let orders = Requirement::scopes(["orders.read"]);
/// let layer = RequireLayer::by(move |head: &Parts| match McpHeaders::from_head(head) {
///     Some(mcp) if mcp.method() == "tools/list" => Requirement::authenticated(),
///     Some(mcp) if mcp.tool() == Some("orders") => orders.clone(),
///     _ => all.clone(),
/// });
///
/// # use tower::{Layer as _, ServiceExt as _, service_fn};
/// # let inner = service_fn(async |_: Request<()>| {
/// #     Ok::<_, std::convert::Infallible>(http::Response::new(()))
/// # });
/// # let caller = tower_oauth::AuthContext::builder().scopes(["orders.read"]).build();
/// let request = |tool: &str| {
///     Request::post("/mcp")
///         .header("mcp-protocol-version", "2026-07-28")
///         .header("mcp-method", "tools/call")
///         .header("mcp-name", tool)
/// #       .extension(caller.clone())
///         .body(())
/// };
/// // The caller has the scope `orders.read`.
/// assert_eq!(layer.layer(inner).oneshot(request("orders")?).await?.status(), 200);
/// assert_eq!(layer.layer(inner).oneshot(request("reports")?).await?.status(), 403);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct McpHeaders<'a> {
    method: &'a str,
    name: Option<&'a str>,
}

impl<'a> McpHeaders<'a> {
    /// Reads the headers, or returns `None` if they must not be relied on.
    ///
    /// `Some` requires that
    ///
    /// - the request is a POST: others have no body to compare with;
    /// - `MCP-Protocol-Version` is a date, 2026-07-28 or later. A transport ignores the other two
    ///   headers with an older version, or with none;
    /// - `Mcp-Method` is present, and `Mcp-Name` as well for a method that has a name;
    /// - none of the three occurs twice, or is other than printable ASCII;
    /// - the name is written as it is, not as `=?base64?…?=`, which is a second spelling.
    ///
    /// ```
    /// use http::Request;
    /// use tower_oauth::resource_server::McpHeaders;
    ///
    /// let call = |version: &str| {
    ///     let request = Request::post("/mcp").header("mcp-protocol-version", version);
    ///     request.header("mcp-method", "tools/call").header("mcp-name", "report").body(())
    /// };
    /// let (head, ()) = call("2026-07-28")?.into_parts();
    /// let mcp = McpHeaders::from_head(&head).expect("compared with the body");
    /// assert_eq!((mcp.method(), mcp.name()), ("tools/call", Some("report")));
    ///
    /// let (head, ()) = call("2025-11-25")?.into_parts();
    /// assert_eq!(McpHeaders::from_head(&head), None);
    /// # Ok::<(), http::Error>(())
    /// ```
    #[must_use]
    pub fn from_head(head: &'a Parts) -> Option<Self> {
        let version = at_most_one(head, "mcp-protocol-version")??;
        let method = at_most_one(head, "mcp-method")??;
        let name = at_most_one(head, "mcp-name")?;
        let is_named = NAMED.contains(&method);
        let is_relied_on = head.method == Method::POST
            && is_date(version)
            && version >= FIRST_COMPARED
            && (name.is_some() || !is_named)
            && !name.is_some_and(|name| name.starts_with(ENCODED));
        is_relied_on.then(|| Self {
            method,
            name: name.filter(|_| is_named),
        })
    }

    /// The method of the request, such as `tools/call` or `tools/list`.
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.method
    }

    /// The name in `Mcp-Name`, for `tools/call`, `prompts/get` and `resources/read`.
    ///
    /// It is that of the tool, of the prompt, or the URI of the resource. With any other method it
    /// is `None`, because no transport compares the header there.
    #[must_use]
    pub fn name(&self) -> Option<&'a str> {
        self.name
    }

    /// The name of the tool, if the method is `tools/call`.
    #[must_use]
    pub fn tool(&self) -> Option<&'a str> {
        self.name.filter(|_| self.method == "tools/call")
    }
}

/// The value of a header; `None` if there are several, or it is no printable ASCII.
fn at_most_one<'a>(head: &'a Parts, name: &str) -> Option<Option<&'a str>> {
    let mut values = head.headers.get_all(name).iter();
    let Some(first) = values.next() else {
        return Some(None);
    };
    let text = first.to_str().ok()?;
    values.next().is_none().then_some(Some(text))
}

/// Whether a version has the form of a date, so that versions are in the order of their bytes.
fn is_date(version: &str) -> bool {
    version.len() == FIRST_COMPARED.len()
        && version
            .bytes()
            .zip(FIRST_COMPARED.bytes())
            .all(|(byte, form)| match form {
                b'-' => byte == b'-',
                _ => byte.is_ascii_digit(),
            })
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};
    use proptest::prelude::*;
    use tower::{Layer as _, ServiceExt as _, service_fn};

    use super::*;
    use crate::resource_server::Requirement;
    use crate::{AuthContext, RequireLayer};

    const VERSION: &str = "mcp-protocol-version";

    /// The head of a request with these headers.
    fn head(method: Method, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::new(());
        *request.method_mut() = method;
        for (name, value) in headers {
            let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
            let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
            request.headers_mut().append(name, value);
        }
        request.into_parts().0
    }

    #[test]
    fn headers_that_the_transport_compares_are_relied_on() {
        for (version, method, name, expected, tool) in [
            (
                "2026-07-28",
                "tools/call",
                Some("report"),
                Some("report"),
                Some("report"),
            ),
            (
                "2026-07-29",
                "tools/call",
                Some("report"),
                Some("report"),
                Some("report"),
            ),
            (
                "2027-01-01",
                "tools/call",
                Some("a b"),
                Some("a b"),
                Some("a b"),
            ),
            ("2026-07-28", "tools/call", Some(""), Some(""), Some("")),
            (
                "2026-07-28",
                "prompts/get",
                Some("report"),
                Some("report"),
                None,
            ),
            (
                "2026-07-28",
                "resources/read",
                Some("file:///a"),
                Some("file:///a"),
                None,
            ),
            ("2026-07-28", "tools/list", None, None, None),
            ("2026-07-28", "anything", None, None, None),
            // Not compared there.
            ("2026-07-28", "tools/list", Some("report"), None, None),
            ("2026-07-28", "tools/Call", Some("report"), None, None),
        ] {
            let mut headers = vec![(VERSION, version), ("mcp-method", method)];
            headers.extend(name.map(|name| ("mcp-name", name)));
            let head = head(Method::POST, &headers);
            let mcp = McpHeaders::from_head(&head).unwrap();
            assert_eq!(mcp.method(), method);
            assert_eq!(mcp.name(), expected, "{headers:?}");
            assert_eq!(mcp.tool(), tool, "{headers:?}");
        }
    }

    #[test]
    fn headers_that_the_transport_may_ignore_are_not_relied_on() {
        let version = (VERSION, "2026-07-28");
        let (method, name) = (("mcp-method", "tools/call"), ("mcp-name", "whoami"));
        let of = |version| vec![(VERSION, version), method, name];
        for (case, headers) in [
            ("nothing", vec![]),
            ("no version", vec![method, name]),
            ("no method", vec![version, name]),
            ("no name of a tool", vec![version, method]),
            (
                "no name of a prompt",
                vec![version, ("mcp-method", "prompts/get")],
            ),
            (
                "no name of a resource",
                vec![version, ("mcp-method", "resources/read")],
            ),
            ("two versions", vec![version, version, method, name]),
            (
                "two methods",
                vec![version, method, ("mcp-method", "ping"), name],
            ),
            ("the same method twice", vec![version, method, method, name]),
            (
                "two names",
                vec![version, method, name, ("mcp-name", "report")],
            ),
            (
                "two names of no tool",
                vec![version, ("mcp-method", "ping"), name, name],
            ),
            ("an older version", of("2025-11-25")),
            ("the day before", of("2026-07-27")),
            ("an empty version", of("")),
            ("a name for a version", of("draft")),
            ("a number", of("9")),
            ("a longer version", of("2026-07-28-rc1")),
            ("a shorter version", of("2026-8-1")),
            ("two versions in one", of("2026-07-28, 2025-11-25")),
            ("other separators", of("2026/07/28")),
            ("a letter in the year", of("202x-07-28")),
            ("a version that is not ASCII", of("2026-07-2ä")),
            (
                "an encoded name",
                vec![version, method, ("mcp-name", "=?base64?cmVwb3J0?=")],
            ),
            (
                "an encoded name in capitals",
                vec![version, method, ("mcp-name", "=?BASE64?cmVwb3J0?=")],
            ),
            (
                "an encoded name of no tool",
                vec![version, ("mcp-method", "ping"), ("mcp-name", "=?base64??=")],
            ),
            (
                "a name that is not ASCII",
                vec![version, method, ("mcp-name", "wh\u{f6}ami")],
            ),
            (
                "a method that is not ASCII",
                vec![version, ("mcp-method", "t\u{f6}ols/call"), name],
            ),
        ] {
            let head = head(Method::POST, &headers);
            assert_eq!(McpHeaders::from_head(&head), None, "{case}");
        }
    }

    #[test]
    fn a_request_without_a_body_has_no_headers_that_were_compared() {
        let headers = [(VERSION, "2026-07-28"), ("mcp-method", "tools/list")];
        for method in [
            Method::GET,
            Method::DELETE,
            Method::HEAD,
            Method::OPTIONS,
            Method::PUT,
        ] {
            let head = head(method, &headers);
            assert_eq!(McpHeaders::from_head(&head), None, "{head:?}");
        }
        assert!(McpHeaders::from_head(&head(Method::POST, &headers)).is_some());
    }

    /// MCP, "Scope Challenge Handling": a server accounts for scopes that include others.
    #[tokio::test]
    async fn a_scope_that_includes_another_one_meets_the_requirement_of_a_tool() {
        let all = Requirement::scopes(["reports.read", "orders.admin"]);
        let orders = Requirement::any_scope(["orders.read", "orders.admin"]);
        let layer = RequireLayer::by(move |head: &Parts| match McpHeaders::from_head(head) {
            Some(mcp) if mcp.tool() == Some("orders") => orders.clone(),
            _ => all.clone(),
        });
        let service = layer.layer(service_fn(async |_: Request<()>| {
            Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
        }));
        for (scope, tool, status) in [
            ("orders.read", "orders", 200),
            ("orders.admin", "orders", 200),
            ("reports.read", "orders", 403),
            ("orders.admin", "reports", 403),
        ] {
            let headers = [
                (VERSION, "2026-07-28"),
                ("mcp-method", "tools/call"),
                ("mcp-name", tool),
            ];
            let mut head = head(Method::POST, &headers);
            let caller = AuthContext::builder().scopes([scope]).build();
            head.extensions.insert(caller);
            let request = Request::from_parts(head, ());
            let response = service.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), status, "{scope} {tool}");
            if (tool, status) == ("orders", 403) {
                let challenge = response.headers()["www-authenticate"].to_str().unwrap();
                assert!(challenge.contains(r#"scope="orders.read orders.admin""#));
            }
        }
    }

    proptest! {
        /// `rmcp` compares if the first version is at least 2026-07-28, byte by byte.
        #[test]
        fn a_version_that_is_relied_on_is_one_that_the_transport_compares(
            version in "[0-9]{4}-[0-9]{2}-[0-9]{2}|[ -~]{0,12}|202[5-7]-0[67]-2[0-9]",
        ) {
            let headers = [(VERSION, version.as_str()), ("mcp-method", "tools/list")];
            let head = head(Method::POST, &headers);
            if McpHeaders::from_head(&head).is_some() {
                prop_assert!(version.as_str() >= FIRST_COMPARED);
            } else {
                prop_assert!(!is_date(&version) || version.as_str() < FIRST_COMPARED);
            }
        }
    }
}
