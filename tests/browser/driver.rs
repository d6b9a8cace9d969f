//! An example, a chromedriver and a Chromium that end with their test, and as much of the WebDriver
//! protocol (<https://www.w3.org/TR/webdriver2/>) as the tests need.

use std::{
    env::{self, consts::EXE_SUFFIX},
    fs,
    path::{Path, PathBuf},
    process::{self, Command},
    rc::Rc,
    sync::{
        Once,
        atomic::{AtomicU32, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use ureq::{Agent, http::Method};

use crate::process::Process;

const PATIENCE: Duration = Duration::from_secs(20);

/// How a WebDriver answer names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Features that change what an example can do: it is built with those that the test was built with.
const FEATURES: [(&str, bool); 7] = [
    ("axum", cfg!(feature = "axum")),
    ("memory", cfg!(feature = "memory")),
    ("metrics", cfg!(feature = "metrics")),
    ("redis", cfg!(feature = "redis")),
    ("postgres", cfg!(feature = "postgres")),
    ("mysql", cfg!(feature = "mysql")),
    ("sqlite", cfg!(feature = "sqlite")),
];

/// An example that runs, for as long as it or a browser that looks at it is there.
#[derive(Clone)]
pub(crate) struct Example(Rc<Running>);

struct Running {
    address: String,
    _process: Process,
}

impl Example {
    /// Starts a demo with this `SESSION_URL`.
    pub(crate) fn demo(demo: &str, session_url: &str) -> Self {
        Self::start(demo, &[("SESSION_URL", session_url)])
    }

    /// Starts a demo in which a login is fresh for `seconds`.
    pub(crate) fn demo_fresh_for(demo: &str, seconds: &str) -> Self {
        let variables = [("SESSION_URL", "memory:"), ("DEMO_FRESH", seconds)];
        Self::start(demo, &variables)
    }

    pub(crate) fn websocket() -> Self {
        Self::start("websocket", &[])
    }

    fn start(name: &str, variables: &[(&str, &str)]) -> Self {
        let mut example = Command::new(program(name));
        example
            .env("DEMO_ADDR", "127.0.0.1:0")
            .envs(variables.iter().copied())
            .env_remove("SESSION_SECRET");
        let (process, address) = Process::start(&mut example, |line| {
            line.strip_prefix("Open ").map(str::to_owned)
        });
        Self(Rc::new(Running {
            address,
            _process: process,
        }))
    }
}

/// A headless Chromium with nothing in it, and the example that it looks at. Every method panics with
/// what the driver says if it cannot do its work.
pub(crate) struct Browser {
    agent: Agent,
    /// The address of the driver.
    driver: String,
    /// The address of the WebDriver session.
    session: String,
    flags: Vec<String>,
    example: Example,
    _driver: Process,
    // Goes last, when nobody writes to it any more.
    _profile: TempDir,
}

impl Browser {
    /// A browser with a demo of its own, whose sessions are in a cookie.
    pub(crate) fn start(demo: &str) -> Self {
        Self::on(&Example::demo(demo, "signed:"), &[])
    }

    /// Another browser, started with these flags, that looks at `example`.
    pub(crate) fn on(example: &Example, flags: &[&str]) -> Self {
        let profile = TempDir::new();
        let mut driver = Command::new("chromedriver");
        driver
            .arg("--port=0")
            .env("TMPDIR", &profile.0)
            .env("XDG_CONFIG_HOME", &profile.0);
        let (driver, port) = Process::start(&mut driver, |line| {
            let (_, port) = line.split_once("successfully on port ")?;
            Some(port.trim_end_matches('.').to_owned())
        });

        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE * 3))
            .build()
            .into();
        let driver_address = format!("http://127.0.0.1:{port}");
        let mut browser = Self {
            agent,
            session: driver_address.clone(),
            driver: driver_address,
            flags: chromium_flags(&profile.0, flags),
            example: example.clone(),
            _driver: driver,
            _profile: profile,
        };
        browser.wait_until("chromedriver is ready", || {
            let status = browser.command(Method::GET, "/status", &Value::Null);
            status.is_ok_and(|status| status["ready"] == true)
        });
        browser.launch();
        browser
    }

    fn launch(&mut self) {
        self.session.clone_from(&self.driver);
        let options = json!({ "args": self.flags });
        let capabilities = json!({
            "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } }
        });
        let session = self.post("/session", &capabilities);
        let id = session["sessionId"].as_str().unwrap();
        self.session = format!("{}/session/{id}", self.driver);
    }

    /// Closes Chromium and starts it again with the same profile.
    pub(crate) fn restart(&mut self) {
        self.command(Method::DELETE, "", &Value::Null).unwrap();
        self.launch();
    }

    /// Opens a page of the example.
    pub(crate) fn open(&self, path: &str) {
        let url = format!("{}{path}", self.example.0.address);
        self.post("/url", &json!({ "url": url }));
    }

    /// The tab that is in front.
    pub(crate) fn tab(&self) -> Value {
        self.command(Method::GET, "/window", &Value::Null).unwrap()
    }

    /// A tab that is not `tab`, once there is one.
    pub(crate) fn other_tab(&self, tab: &Value) -> Value {
        let other = || {
            let tabs = self.command(Method::GET, "/window/handles", &Value::Null);
            let tabs = tabs.unwrap();
            tabs.as_array()
                .unwrap()
                .iter()
                .find(|it| *it != tab)
                .cloned()
        };
        self.wait_until("there is another tab", || other().is_some());
        other().unwrap()
    }

    /// Brings another tab to the front: a new one, or one that was there.
    pub(crate) fn switch_to(&self, tab: Option<Value>) {
        let tab = tab.unwrap_or_else(|| {
            let new = self.post("/window/new", &json!({ "type": "tab" }));
            new["handle"].clone()
        });
        self.post("/window", &json!({ "handle": tab }));
    }

    pub(crate) fn reload(&self) {
        self.leave(|| self.post("/refresh", &json!({})));
    }

    pub(crate) fn back(&self) {
        self.leave(|| self.post("/back", &json!({})));
    }

    /// Types into the field of that name.
    pub(crate) fn fill(&self, name: &str, text: &str) {
        let field = self.find("css selector", &format!("input[name='{name}']"));
        self.post(&format!("/element/{field}/value"), &json!({ "text": text }));
    }

    /// Presses the button that says `label`, or is labelled so for a screen reader.
    pub(crate) fn press(&self, label: &str) {
        self.leave(|| self.click(label));
    }

    /// As [`press`](Self::press), where it leads to no other page.
    pub(crate) fn click(&self, label: &str) -> Value {
        let path = format!("//button[normalize-space()='{label}' or @aria-label='{label}']");
        let button = self.find("xpath", &path);
        self.post(&format!("/element/{button}/click"), &json!({}))
    }

    /// The path of the page that is shown.
    pub(crate) fn path(&self) -> String {
        let path = self.script("return location.pathname");
        path.as_str().unwrap().to_owned()
    }

    /// Runs JavaScript in the page and gives what it returns.
    pub(crate) fn script(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    pub(crate) fn cookie(&self, name: &str) -> Value {
        self.command(Method::GET, &format!("/cookie/{name}"), &Value::Null)
            .unwrap()
    }

    /// Puts a cookie in place of another of its name.
    pub(crate) fn set_cookie(&self, cookie: &Value) {
        self.post("/cookie", &json!({ "cookie": cookie }));
    }

    /// What the DevTools protocol answers to a command.
    #[expect(clippy::needless_pass_by_value, reason = "always a literal")]
    pub(crate) fn devtools(&self, command: &str, params: Value) -> Value {
        let body = json!({ "cmd": command, "params": params });
        self.post("/goog/cdp/execute", &body)
    }

    /// Shows pages as a screen of this size does, in a `light` or `dark` colour scheme.
    pub(crate) fn look(&self, width: u32, height: u32, scheme: &str) {
        let screen = json!({
            "width": width,
            "height": height,
            "deviceScaleFactor": 1,
            "mobile": width < 500,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", screen);
        let scheme = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.devtools(
            "Emulation.setEmulatedMedia",
            json!({ "features": [scheme] }),
        );
    }

    /// Runs JavaScript that calls its last argument with what it returns.
    pub(crate) fn script_later(&self, script: &str) -> Value {
        self.post("/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// A picture of what the window shows: PNG, in base64.
    pub(crate) fn picture(&self) -> String {
        let picture = self.command(Method::GET, "/screenshot", &Value::Null);
        picture.unwrap().as_str().unwrap().to_owned()
    }

    /// Presses a key of the keyboard.
    pub(crate) fn key(&self, key: &str) {
        let actions = json!([
            { "type": "keyDown", "value": key },
            { "type": "keyUp", "value": key },
        ]);
        let keyboard = json!({ "type": "key", "id": "keyboard", "actions": actions });
        self.post("/actions", &json!({ "actions": [keyboard] }));
    }

    /// Does what leads to another page, and waits for that: a driver may come back before the page
    /// that was there has gone.
    fn leave(&self, act: impl FnOnce() -> Value) {
        // When its page began tells one document from another.
        let page = self.script("return performance.timeOrigin");
        act();
        self.wait_until("there is another page", || {
            let script = "return document.readyState === 'complete' && performance.timeOrigin";
            let body = json!({ "script": script, "args": [] });
            let now = self.command(Method::POST, "/execute/sync", &body);
            now.is_ok_and(|now| now.is_number() && now != page)
        });
    }

    fn find(&self, using: &str, value: &str) -> String {
        let element = self.post("/element", &json!({ "using": using, "value": value }));
        element[ELEMENT].as_str().unwrap().to_owned()
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.command(Method::POST, path, body)
            .unwrap_or_else(|error| panic!("{path} {body}: {error}"))
    }

    fn command(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.session);
        let response = match method {
            Method::GET => self.agent.get(url).call(),
            Method::DELETE => self.agent.delete(url).call(),
            _ => self.agent.post(url).send(body.to_string()),
        };
        let mut response = response.map_err(|error| error.to_string())?;
        let text = response.body_mut().read_to_string();
        let text = text.map_err(|error| error.to_string())?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if response.status().is_success() {
            Ok(answer["value"].take())
        } else {
            Err(answer["value"]["message"].to_string())
        }
    }

    pub(crate) fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let start = Instant::now();
        while !is_so() {
            assert!(start.elapsed() < PATIENCE, "waited for long until {what}");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Browser {
    /// Chromium is the driver's child, so the driver ends it.
    fn drop(&mut self) {
        let _ = self.command(Method::DELETE, "", &Value::Null);
    }
}

fn chromium_flags(profile: &Path, more: &[&str]) -> Vec<String> {
    let flags = "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run \
                 --disable-background-networking --disable-component-update --disable-sync \
                 --disable-dev-shm-usage --window-size=1280,900";
    let profile = format!("--user-data-dir={}", profile.display());
    flags
        .split_whitespace()
        .chain(more.iter().copied())
        .map(str::to_owned)
        .chain([profile])
        .collect()
}

/// An example as it is now: `cargo test --test browser` alone builds none.
fn program(name: &str) -> PathBuf {
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet"]);
        cargo.args(["--example", "demo", "--example", "websocket"]);
        if cfg!(feature = "axum") {
            cargo.args(["--example", "demo_axum"]);
        }
        for (feature, _) in FEATURES.iter().filter(|(_, is_on)| *is_on) {
            cargo.args(["--features", feature]);
        }
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "{cargo:?}");
    });
    // This is target/<profile>/deps/browser-<hash>.
    let this = env::current_exe().unwrap();
    let profile = this.ancestors().nth(2).unwrap();
    profile.join(format!("examples/{name}{EXE_SUFFIX}"))
}

struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("session-manager-browser-{}-{count}", process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Chromium's last process may write for a moment after its driver is gone.
        for _ in 0..100 {
            match fs::remove_dir_all(&self.0) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    thread::sleep(Duration::from_millis(20));
                }
                _ => return,
            }
        }
    }
}
