//! Headless Chromium, used as a person uses a browser. See `tests/clients/browser.mjs` for its methods.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::support::CLIENTS;

/// A browser; it ends when dropped.
pub struct Browser {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends with its input.
        drop(self.input.take());
        let status = self.process.wait().expect("it ends");
        assert!(status.success() || std::thread::panicking(), "the browser's process: {status}");
    }
}

impl Browser {
    pub fn start() -> Self {
        let mut process = Command::new("node")
            .arg(CLIENTS.join("browser.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is missing; run scripts/test");
        let (input, output) = (process.stdin.take(), BufReader::new(process.stdout.take().expect("stdout is piped")));
        Self { process, input, output }
    }

    /// Calls a method.
    pub fn call(&mut self, method: &str, arguments: &Value) -> Value {
        let mut line = String::new();
        let call = json!({ "method": method, "arguments": arguments });
        // Why it ended, if it did, is on its stderr.
        writeln!(self.input.as_mut().expect("it runs"), "{call}").expect("the browser runs; if it does not, run scripts/test");
        self.output.read_line(&mut line).expect("it answers");
        let mut answer: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{method}: {error}: {line:?}; if the browser did not start, run scripts/test"));
        answer.get_mut("value").unwrap_or_else(|| panic!("{method}: {line}")).take()
    }

    /// Opens a page as wide as a telephone, where there is the least room.
    pub fn open(&mut self, url: &str) {
        self.call("open", &json!([url, { "width": 375 }]));
    }
    pub fn fill(&mut self, selector: &str, text: &str) {
        self.call("fill", &json!([selector, text]));
    }
    pub fn choose(&mut self, selector: &str, file: &std::path::Path) {
        self.call("choose", &json!([selector, file]));
    }
    pub fn press(&mut self, selector: &str) {
        self.call("press", &json!([selector]));
    }
    pub fn text(&mut self, selector: &str) -> String {
        self.call("text", &json!([selector])).as_str().expect("a text").to_owned()
    }
    /// Waits until a JavaScript expression is true.
    pub fn until(&mut self, expression: &str) {
        self.call("until", &json!([expression]));
    }
    pub fn run(&mut self, expression: &str) -> Value {
        self.call("run", &json!([expression]))
    }

    /// Nothing was asked for but the page itself, nothing was complained about, and no line is cut off at the side.
    pub fn assert_quiet(&mut self, url: &str) {
        assert_eq!(self.call("seen", &json!([])), json!({ "requests": [url], "complaints": [] }));
        assert_eq!(self.run("document.documentElement.scrollWidth"), 375, "{url}");
    }
}
