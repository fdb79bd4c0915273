//! A real browser: headless Chromium, driven through chromedriver on loopback.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fantoccini::actions::{InputSource as _, KeyAction, KeyActions};
use fantoccini::elements::Element;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use http::Method;
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use url::Url;

/// Keys, as WebDriver names them.
pub const ENTER: char = '\u{e007}';
const TAB: char = '\u{e004}';

/// A browser session.
#[derive(Clone, Debug)]
pub struct Browser(pub Client);

/// Runs a test in a browser and closes the browser afterwards. Without a browser it prints
/// "skipped", or panics if `REQUIRE_BROWSER` is set, as in CI.
pub async fn with_browser<F: Future<Output = ()> + Send + 'static>(
    scripts: bool,
    test: impl FnOnce(Browser) -> F,
) {
    let Some(mut driver) = Driver::start().await else {
        return;
    };
    let client = driver.connect(scripts).await;
    let outcome = tokio::spawn(test(Browser(client.clone()))).await;
    client.close().await.unwrap();
    driver.process.kill().await.unwrap();
    if let Err(failed) = outcome {
        std::panic::resume_unwind(failed.into_panic());
    }
}

struct Driver {
    process: Child,
    port: String,
    chromium: PathBuf,
}

impl Driver {
    async fn start() -> Option<Self> {
        let chromium = on_path("chromium").or_else(|| on_path("google-chrome"));
        let (Some(chromium), Some(driver)) = (chromium, on_path("chromedriver")) else {
            assert!(
                std::env::var_os("REQUIRE_BROWSER").is_none(),
                "chromium or chromedriver is missing"
            );
            // Bypasses the output capture of passing tests.
            let _ = writeln!(
                std::io::stderr(),
                "skipped: chromium or chromedriver is missing"
            );
            return None;
        };
        let mut process = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let started = async {
            loop {
                let line = lines
                    .next_line()
                    .await
                    .unwrap()
                    .expect("chromedriver prints its port");
                if let Some((_, port)) = line.split_once("successfully on port ") {
                    return port.trim_end_matches('.').to_owned();
                }
            }
        };
        let port = tokio::time::timeout(Duration::from_secs(30), started)
            .await
            .expect("chromedriver starts in time");
        // Keep reading: a full pipe would block chromedriver.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Some(Self {
            process,
            port,
            chromium,
        })
    }

    async fn connect(&self, scripts: bool) -> Client {
        let mut preferences = json!({});
        if !scripts {
            preferences["profile.managed_default_content_settings.javascript"] = json!(2);
        }
        let options = json!({
            "binary": self.chromium,
            "prefs": preferences,
            "args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
                "--disable-dev-shm-usage",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--hide-scrollbars",
            ],
        });
        let Value::Object(capabilities) = json!({ "goog:chromeOptions": options }) else {
            unreachable!()
        };
        ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{}", self.port))
            .await
            .unwrap()
    }
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

impl Browser {
    pub async fn open(&self, url: &str) {
        self.0.goto(url).await.unwrap();
    }

    /// Waits for an element.
    pub async fn find(&self, locator: Locator<'_>) -> Element {
        self.0
            .wait()
            .at_most(Duration::from_secs(10))
            .for_element(locator)
            .await
            .unwrap()
    }

    pub async fn css(&self, selector: &str) -> Element {
        self.find(Locator::Css(selector)).await
    }

    /// Clicks the link, button or summary with this text.
    pub async fn click(&self, text: &str) {
        let path = format!(
            "//*[self::a or self::button or self::summary][normalize-space()='{text}' \
             or normalize-space(text())='{text}' or .//span[normalize-space()='{text}']]"
        );
        self.find(Locator::XPath(&path))
            .await
            .click()
            .await
            .unwrap();
    }

    /// Presses a key.
    pub async fn press(&self, key: char) {
        let pressed = KeyActions::new("keyboard".to_owned())
            .then(KeyAction::Down { value: key })
            .then(KeyAction::Up { value: key });
        self.0.perform_actions(pressed).await.unwrap();
    }

    /// Moves the focus to this element with the Tab key. Each element on the way must show that it
    /// has the focus.
    pub async fn tab_to(&self, selector: &str) -> Element {
        let target = self.css(selector).await;
        for _ in 0..40 {
            self.press(TAB).await;
            let focused = self.0.active_element().await.unwrap();
            assert_ne!(
                focused.css_value("outline-style").await.unwrap(),
                "none",
                "on the way to {selector}"
            );
            if focused.element_id() == target.element_id() {
                return focused;
            }
        }
        panic!("the keyboard does not reach {selector}");
    }

    /// Waits for this path: a click may return before the next page is loaded.
    pub async fn wait_for_path(&self, path: &str) {
        let there = async {
            while self.path().await != path {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(10), there).await;
        assert!(in_time.is_ok(), "{} and not {path}", self.path().await);
    }

    pub async fn path(&self) -> String {
        self.0.current_url().await.unwrap().path().to_owned()
    }

    /// A command of the DevTools protocol.
    pub async fn devtools(&self, command: &'static str, parameters: Value) -> Value {
        self.0
            .issue_cmd(DevTools {
                command,
                parameters,
            })
            .await
            .unwrap()
    }

    /// Sets the viewport width and the color scheme.
    pub async fn set_viewport(&self, width: u32, scheme: &str) {
        let metrics =
            json!({ "width": width, "height": 800, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", metrics)
            .await;
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", features).await;
    }

    /// Takes a PNG screenshot of the whole page.
    pub async fn screenshot(&self) -> Vec<u8> {
        // A page that was never drawn has no screenshot.
        let drawn = "requestAnimationFrame(() => requestAnimationFrame(arguments[0]))";
        self.0.execute_async(drawn, Vec::new()).await.unwrap();
        let whole = json!({ "format": "png", "captureBeyondViewport": true });
        let taken = self.devtools("Page.captureScreenshot", whole).await;
        STANDARD.decode(taken["data"].as_str().unwrap()).unwrap()
    }
}

#[derive(Debug)]
struct DevTools {
    command: &'static str,
    parameters: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, url::ParseError> {
        base.join(&format!(
            "session/{}/goog/cdp/execute",
            session.unwrap_or_default()
        ))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        (
            Method::POST,
            Some(json!({ "cmd": self.command, "params": self.parameters }).to_string()),
        )
    }
}
