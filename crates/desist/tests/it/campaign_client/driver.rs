//! The client in a process of its own, and what is expected of every answer.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{CLIENTS, Server};

/// How Campaign starts the text of most refusals.
pub(super) const GENERAL: &str = "RST-360011 An error has occurred - please contact your administrator.\n";
/// A key that has the form of one, and nobody's.
pub(super) const GONE: &str = "@AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// More pages than any list of these tests has, so that links that lead in a circle are found.
const PAGES_MAX: usize = 100;
/// Fields of the business's own, one of each type.
pub(super) const FIELDS: &str = r#"
[[campaign.fields]]
name = "cusHobby"
type = "string"
length = 20
searchable = true
[[campaign.fields]]
name = "cusSize"
type = "enumeration"
values = ["small", "large"]
searchable = true
[[campaign.fields]]
name = "cusVisits"
type = "number"
[[campaign.fields]]
name = "cusMember"
type = "boolean"
[[campaign.fields]]
name = "cusSince"
type = "date"
searchable = true
"#;

/// The client, in a process of its own.
pub(super) struct Client {
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What `init` gets: organization, API key, token.
    pub(super) credentials: [String; 3],
    /// URL up to and with the organization's `campaign`.
    pub(super) campaign: String,
}

impl Drop for Client {
    fn drop(&mut self) {
        // It ends with its input; a promise that it left alone would end it badly.
        drop(self.input.take());
        let status = self.process.wait().expect("it ends");
        assert!(status.success() || std::thread::panicking(), "the client's process: {status}");
    }
}

impl Client {
    /// The client of a server's first admin.
    pub(super) fn of(server: &Server) -> Self {
        let mut process = Command::new("node")
            .arg(CLIENTS.join("campaign.mjs"))
            .arg(&server.private)
            // It writes warnings to where the answers go.
            .env("LOG_LEVEL", "error")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is missing; run scripts/test");
        let (input, output) = (process.stdin.take(), BufReader::new(process.stdout.take().expect("stdout is piped")));
        let credentials = ["acme".to_owned(), server.api_key.clone(), server.token.clone()];
        Self { process, input, output, credentials, campaign: format!("{}/acme/campaign", server.private) }
    }

    /// What the caller of a method sees.
    pub(super) fn call_as(&mut self, credentials: &[String; 3], method: &str, arguments: &Value) -> Value {
        let call = json!({ "as": credentials, "method": method, "arguments": arguments });
        writeln!(self.input.as_mut().expect("it runs"), "{call}").expect("it reads");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{method}: {error}: {line:?}"))
    }
    pub(super) fn call(&mut self, method: &str, arguments: &Value) -> Value {
        self.call_as(&self.credentials.clone(), method, arguments)
    }

    /// The body of a call that goes well.
    pub(super) fn body(&mut self, status: u16, method: &str, arguments: &Value) -> Value {
        self.answer(status, method, arguments)["body"].take()
    }
    pub(super) fn answer(&mut self, status: u16, method: &str, arguments: &Value) -> Value {
        let seen = self.call(method, arguments);
        let what = format!("{method} {arguments}: {seen}");
        let statuses = json!([seen["status"], seen["ok"], seen["statusText"], seen["type"]]);
        assert_eq!(statuses, json!([status, true, reason(status), "application/json;charset=utf-8"]), "{what}");
        // Without the right Content-Type the client leaves it undefined.
        assert!(seen.get("body").is_some(), "{what}");
        if seen["plain"] == false {
            let text: Value = serde_json::from_str(seen["text"].as_str().expect("a text")).expect("JSON");
            assert!(seen["body"] == text && seen["obj"] == text, "{what}");
        }
        seen
    }

    /// The body of the answer to a call that the client turns into an error: its code is the method's, and its message
    /// has the body in it.
    pub(super) fn refused_as(&mut self, credentials: &[String; 3], method: &str, arguments: &Value, status: u16, code: &str) -> Value {
        let seen = self.call_as(credentials, method, arguments);
        let what = format!("{method} {arguments}: {seen}");
        assert_eq!((&seen["name"], &seen["code"]), (&json!("CampaignStandardSDKError"), &json!(code)), "{what}");
        let message = seen["message"].as_str().expect("a text");
        let start = format!("[CampaignStandardSDK:{code}] {status} - {} (", reason(status));
        let body = message.strip_prefix(&start).and_then(|rest| rest.strip_suffix(')'));
        serde_json::from_str(body.unwrap_or_else(|| panic!("{start}: {what}"))).expect("JSON")
    }
    pub(super) fn refused(&mut self, method: &str, arguments: &Value, status: u16, code: &str) -> Value {
        self.refused_as(&self.credentials.clone(), method, arguments, status, code)
    }
    pub(super) fn refused_for(&mut self, method: &str, arguments: &Value, status: u16, code: &str, says: &Value) {
        assert_eq!(&self.refused(method, arguments, status, code), says, "{method} {arguments}");
    }

    /// What the client's helper for links gets; any form of a link will do.
    pub(super) fn follow(&mut self, link: &str) -> Value {
        self.body(200, "getDataFromRelativeUrl", &json!([link]))
    }
    pub(super) fn count(&mut self, collection: &Value) -> u64 {
        let count = self.follow(text(&collection["count"]["href"]));
        assert_eq!(count.as_object().expect("an object").len(), 1, "{count}");
        count["count"].as_u64().expect("a number")
    }

    /// All pages from a first one on, turned by links in one of the forms that they can be given in.
    pub(super) fn pages(&mut self, first: Value, form: Form) -> Vec<Vec<Value>> {
        let mut pages = Vec::new();
        let mut page = first;
        loop {
            assert_page(&page, pages.is_empty());
            assert!(pages.is_empty() || page["content"] != json!([]), "an empty page after others: {page}");
            pages.push(page["content"].as_array().expect("a list").clone());
            assert!(pages.len() <= PAGES_MAX, "no last page: {page}");
            let Some(next) = page.get("next") else { return pages };
            let next = self.in_form(text(&next["href"]), form);
            page = self.follow(&next);
        }
    }
    pub(super) fn in_form(&self, href: &str, form: Form) -> String {
        let below = href.strip_prefix(&self.campaign).unwrap_or_else(|| panic!("absolute: {href}"));
        assert!(below.starts_with('/') && !below[1..].contains("//"), "{href}");
        match form {
            Form::Absolute => href.to_owned(),
            Form::WithOrganization => format!("/acme/campaign{below}"),
            Form::BelowCampaign => below.to_owned(),
            Form::NoSlash => below[1..].to_owned(),
        }
    }
}

/// How a link is given to the client.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    Absolute,
    WithOrganization,
    BelowCampaign,
    NoSlash,
}

pub(super) const FORMS: [Form; 4] = [Form::Absolute, Form::WithOrganization, Form::BelowCampaign, Form::NoSlash];

pub(super) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        _ => panic!("no test expects {status}"),
    }
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("a text: {value}"))
}

pub(super) fn names(value: &Value) -> Vec<&str> {
    value.as_object().unwrap_or_else(|| panic!("an object: {value}")).keys().map(String::as_str).collect()
}

/// One member of each record.
pub(super) fn column<'a>(records: impl IntoIterator<Item = &'a Value>, member: &str) -> Vec<String> {
    records.into_iter().map(|record| text(&record[member]).to_owned()).collect()
}

pub(super) fn sorted(mut values: Vec<String>) -> Vec<String> {
    values.sort();
    values
}

/// The members of a page: `next` if more follows, the number if nothing does and nothing came before.
pub(super) fn assert_page(page: &Value, is_first: bool) {
    let has_next = page.get("next").is_some();
    let expected =
        if has_next { &["content", "count", "next", "serverSidePagination"][..] } else { &["content", "count", "serverSidePagination"] };
    assert_eq!(names(page), expected, "{page}");
    assert_eq!(page["serverSidePagination"], true);
    let all_here = is_first && !has_next;
    assert_eq!(names(&page["count"]), if all_here { &["href", "value"][..] } else { &["href"] }, "{page}");
    if all_here {
        assert_eq!(page["count"]["value"], page["content"].as_array().expect("a list").len(), "{page}");
    }
    if has_next {
        assert_eq!(names(&page["next"]), ["href"]);
    }
}

/// A server with this `desist.toml`.
pub(super) fn configured(toml: &str) -> (tempfile::TempDir, Server) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("desist.toml"), toml).unwrap();
    let server = Server::start_in(directory.path(), &[]);
    (directory, server)
}

pub(super) fn entries(server: &Server) -> String {
    let metrics = server.send("GET", "/metrics", b"", &[]).text;
    metrics.lines().find(|line| line.starts_with("desist_log_entries ")).expect("a metric").to_owned()
}

pub(super) fn no_such_resource() -> Value {
    json!(format!("{GENERAL}There is no such resource."))
}

pub(super) fn not_found(resource: &str, pkey: &str) -> Value {
    json!(format!("Unable to find document with path '/{resource}/{pkey}'"))
}

pub(super) fn not_valid(resource: &str, name: &str) -> Value {
    json!(format!("{GENERAL}'{name}' property is not valid for the '{resource}' resource."))
}

pub(super) fn unreadable(pkey: &str) -> Value {
    json!(format!("Unable to decrypt PKey. (PKey={pkey})"))
}
