//! A browser of one test, driven by `WebDriver`.

use std::{path::PathBuf, process::Command, time::Duration};

use rovi_common::{
    local::{self, ServerProcess},
    testing::eventually,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_mins(1);
/// The key under which `WebDriver` names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
const AXE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../web/node_modules/axe-core/axe.min.js"
);
const ACCESSIBLE: &str = "
    const done = arguments[arguments.length - 1];
    const lines = (rule) => rule.nodes.map((node) => `${rule.id}: ${rule.help}: ${node.html}`);
    axe.run({resultTypes: ['violations']}).then(
        (found) => done(found.violations.flatMap(lines)),
        (error) => done([String(error)]),
    )";
const ARGUMENTS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

/// A browser with one window; it ends with the value.
pub(crate) struct Browser {
    session: String,
    hub: String,
    http: reqwest::Client,
    _driver: ServerProcess,
    _folder: TempDir,
}

impl Browser {
    /// Opens a window on the pages of a hub.
    pub(crate) async fn open(hub: String) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = local::free_port().unwrap();
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={port}"));
        let log = folder.path().join("chromedriver.log");
        let driver = ServerProcess::spawn("chromedriver", command, &log)
            .expect("chromedriver is there: scripts/install_packages.sh installs it");
        let profile = folder.path().join("profile");
        let profile = format!("--user-data-dir={}", profile.display());
        let mut browser = Self {
            session: format!("http://127.0.0.1:{port}"),
            hub,
            http: system_tests::http_client(),
            _driver: driver,
            _folder: folder,
        };
        let mut arguments = ARGUMENTS.map(str::to_owned).to_vec();
        arguments.push(profile);
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": arguments},
        }}});
        let made = eventually(PATIENCE, || browser.call("/session", &wanted)).await;
        let id = made["sessionId"].as_str().unwrap();
        browser.session = format!("{}/session/{id}", browser.session);
        browser.size(1440, 900).await;
        browser
    }

    async fn call(&self, path: &str, body: &Value) -> Result<Value, String> {
        let url = format!("{}{path}", self.session);
        let answer = self
            .http
            .post(url)
            .json(body)
            .timeout(PATIENCE)
            .send()
            .await;
        answer_of(answer).await
    }

    /// Opens a page of the hub.
    pub(crate) async fn go(&self, path: &str) {
        let url = format!("{}{path}", self.hub);
        self.call("/url", &json!({ "url": url })).await.unwrap();
    }

    /// Runs a script in the page and returns what it returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let body = json!({"script": script, "args": []});
        let done = self.call("/execute/sync", &body).await;
        done.unwrap_or_else(|error| panic!("{script}: {error}"))
    }

    /// Waits until an expression is true in the page.
    pub(crate) async fn sees(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        eventually(PATIENCE, || async {
            let body = json!({"script": script, "args": []});
            match self.call("/execute/sync", &body).await {
                Ok(Value::Bool(true)) => Ok(()),
                Ok(_) | Err(_) => Err(format!("not {expression}; the page: {}", self.text().await)),
            }
        })
        .await;
    }

    /// Waits until the page has a text.
    pub(crate) async fn reads(&self, text: &str) {
        self.sees(&format!(
            "document.body.innerText.includes({})",
            json!(text)
        ))
        .await;
    }

    async fn text(&self) -> String {
        let text = json!({"script": "return document.body.innerText", "args": []});
        let text = self.call("/execute/sync", &text).await;
        text.map_or_else(|error| error, |text| text.to_string())
    }

    /// Clicks an element as a user does.
    pub(crate) async fn click(&self, selector: &str) {
        let element = self.element(selector).await;
        let path = format!("/element/{element}/click");
        let done = self.call(&path, &json!({})).await;
        done.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    /// Presses the button that has a text.
    pub(crate) async fn press(&self, text: &str) {
        let button = format!(
            "[...document.querySelectorAll('button')].find((one) => one.textContent === {})",
            json!(text)
        );
        self.sees(&button).await;
        self.run(&format!("{button}.click()")).await;
    }

    /// Types into an element; into an input for files, their paths.
    pub(crate) async fn types(&self, selector: &str, text: &str) {
        let element = self.element(selector).await;
        let path = format!("/element/{element}/value");
        let done = self.call(&path, &json!({ "text": text })).await;
        done.unwrap_or_else(|error| panic!("{selector}: {error}"));
    }

    async fn element(&self, selector: &str) -> String {
        let by = json!({"using": "css selector", "value": selector});
        let found = eventually(PATIENCE, || self.call("/element", &by)).await;
        found[ELEMENT].as_str().unwrap().to_owned()
    }

    /// Gives the page a size.
    pub(crate) async fn size(&self, width: u32, height: u32) {
        let params =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        let body = json!({"cmd": "Emulation.setDeviceMetricsOverride", "params": params});
        self.call("/goog/cdp/execute", &body).await.unwrap();
    }

    /// Chooses the theme that the system asks pages for.
    pub(crate) async fn theme(&self, theme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": theme}]);
        let body = json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}});
        self.call("/goog/cdp/execute", &body).await.unwrap();
    }

    /// Keeps a picture of the page, whole from top to bottom.
    pub(crate) async fn keep(&self, name: &str) {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let body = json!({"cmd": "Page.captureScreenshot", "params": params});
        let shot = self.call("/goog/cdp/execute", &body).await.unwrap();
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("pages");
        std::fs::create_dir_all(&folder).unwrap();
        let png = decode_base64(shot["data"].as_str().unwrap());
        std::fs::write(folder.join(format!("{name}.png")), png).unwrap();
    }

    /// Fails where the page broke its policy, or a script of it failed.
    pub(crate) async fn is_clean(&self) {
        let logs = self
            .call("/se/log", &json!({"type": "browser"}))
            .await
            .unwrap();
        let lines = logs.as_array().cloned().unwrap_or_default();
        let bad = lines.iter().filter_map(|line| line["message"].as_str());
        let bad = bad.filter(|text| text.contains("Content Security") || text.contains("Uncaught"));
        assert_eq!(bad.collect::<Vec<_>>(), Vec::<&str>::new());
    }

    /// Fails where axe-core finds what keeps people from using the page, such as those who hear it.
    pub(crate) async fn is_accessible(&self) {
        let axe = std::fs::read_to_string(AXE).expect("axe-core is there: make pages installs it");
        let script = format!("{axe};\n{ACCESSIBLE}");
        let body = json!({"script": script, "args": []});
        let found = self.call("/execute/async", &body).await.unwrap();
        assert_eq!(found, json!([]), "what axe-core finds");
    }

    /// Closes the window; what the driver started ends with it.
    pub(crate) async fn close(self) {
        let answer = self
            .http
            .delete(&self.session)
            .timeout(PATIENCE)
            .send()
            .await;
        answer_of(answer).await.unwrap();
    }
}

async fn answer_of(answer: reqwest::Result<reqwest::Response>) -> Result<Value, String> {
    let answer = answer.map_err(|error| error.to_string())?;
    let is_done = answer.status().is_success();
    let mut body: Value = answer.json().await.map_err(|error| error.to_string())?;
    let value = body["value"].take();
    if is_done {
        Ok(value)
    } else {
        Err(value["message"].to_string())
    }
}

/// Reads base64 of the usual alphabet.
fn decode_base64(text: &str) -> Vec<u8> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let digits: Vec<u8> = text.bytes().filter_map(value).collect();
    let group = |group: &[u8]| {
        let bits = group
            .iter()
            .fold(0_u32, |bits, &digit| bits << 6 | u32::from(digit));
        let bits = bits << (6 * (4 - group.len()));
        bits.to_be_bytes()[1..group.len()].to_vec()
    };
    digits.chunks(4).flat_map(group).collect()
}
