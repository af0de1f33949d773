//! `desist connector`: checks, shows and starts manifests. No server and no store.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use desist_connector::declared::{Declared, Op, SettingKind};
use desist_connector::limits::MANIFEST_BYTES_MAX;
use desist_connector::{Manifest, Problem, SHIPPED, Shipped};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{CliError, Finding, OutputArgs, print_json, say};

/// `desist connector`
#[derive(Debug, Args)]
pub struct ConnectorArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Say what is wrong with manifests, and where.
    #[command(
        after_help = "Exit code 0: nothing is wrong, 1: something is, 2: a file cannot be read.\nThe format is described in docs/connector-spec.md.\n\nExamples:\n  desist connector lint my-crm.toml\n  desist connector lint connectors/*.toml --json"
    )]
    Lint {
        /// Manifests.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Say what a connector does: hosts, settings, calls, and the most that they prove.
    #[command(
        after_help = "Exit code 0: shown, 1: the manifest has problems, 2: there is no such connector or file.\n\nExamples:\n  desist connector show adobe-campaign-standard\n  desist connector show my-crm.toml --json"
    )]
    Show {
        /// The id of a shipped connector, or a manifest.
        #[arg(value_name = "ID_OR_FILE")]
        which: String,
        #[command(flatten)]
        output: OutputArgs,
    },
    /// Write a manifest to start from.
    #[command(
        after_help = "Writes ID.toml into the current directory. The file passes `desist connector lint` as it is; put your destination's calls into it.\n\nExample:\n  desist connector new my-crm"
    )]
    New {
        /// Its id: 1 to 64 of a-z 0-9 and hyphens.
        id: String,
    },
}

const STARTER: &str = r#"#:schema ./manifest.schema.json
# How __ID__ is told that somebody opted out. The format is described in docs/connector-spec.md.

[connector]
id = "__ID__"
version = 1
title = "__ID__"
# Calls go to these hosts alone.
hosts = ["api.example.com"]

# What an operator fills in.
[settings.token]
type = "secret"
required = true
doc = "The API token"

[auth]
kind = "bearer"
token = "{{settings.token}}"

[limits]
batch_items = 1
rate = ["60/1m"]

# The identifiers that it takes, and how it spells them.
[ids.email]
variants = ["trim|lower"]

[[op]]
on = "opt_out"
purposes = ["sale", "sharing"]
# The member that says so. Any other constant of the body is named in `fixed`.
writes = "do_not_sell"
effect = "flag"
# The most that a good answer proves: accepted, applied, or verified with a [verify] table.
ceiling = "applied"
unit = "id"
method = "PATCH"
path = "/v1/contacts/{{id.email}}"
body = { do_not_sell = true }

[op.result]
dialect = "status"
absent_status = [404]
"#;

/// What is said of one file.
#[derive(Serialize)]
struct Report {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    problems: Vec<Problem>,
}

pub fn run(args: &ConnectorArgs) -> Result<Finding, CliError> {
    match &args.what {
        What::Lint { files, output } => lint(files, *output),
        What::Show { which, output } => show(which, *output),
        What::New { id } => new(id),
    }
}

/// The text of a manifest; what is far too long for one is not read to its end.
fn read(path: &Path) -> Result<String, CliError> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(CliError::io(path.display()))?;
    file.take(MANIFEST_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(CliError::io(path.display()))?;
    // Cut off inside a character it is too long, and said to be so.
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(error) if error.as_bytes().len() > MANIFEST_BYTES_MAX => Ok(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        Err(_) => Err(CliError::said(format!("{}: is not UTF-8; a manifest is a text file", path.display()))),
    }
}

fn lint(files: &[PathBuf], output: OutputArgs) -> Result<Finding, CliError> {
    let (mut reports, mut unreadable) = (Vec::new(), Vec::new());
    for path in files {
        let file = path.display().to_string();
        match read(path).map(|text| Manifest::parse(&text, &file)) {
            Ok(Ok(manifest)) => reports.push(Report { file, id: Some(manifest.id().to_owned()), problems: Vec::new() }),
            Ok(Err(problems)) => reports.push(Report { file, id: None, problems }),
            Err(error) => unreadable.push(error.to_string()),
        }
    }
    let found = reports.iter().any(|report| !report.problems.is_empty());
    if output.json {
        print_json(&serde_json::json!({ "files": reports, "unreadable": unreadable }))?;
    } else {
        for report in &reports {
            for problem in &report.problems {
                say(&problem.to_string());
            }
            if let Some(id) = &report.id {
                say(&format!("{}: ok: {id}", report.file));
            }
        }
    }
    if !unreadable.is_empty() {
        return Err(CliError::said(unreadable.join("\n")));
    }
    Ok(if found { Finding::No } else { Finding::Yes })
}

fn show(which: &str, output: OutputArgs) -> Result<Finding, CliError> {
    let shipped = SHIPPED.iter().find(|shipped| shipped.id == which);
    let parsed = match shipped {
        Some(shipped) => Manifest::parse(shipped.text, which),
        None if Path::new(which).exists() => Manifest::parse(&read(Path::new(which))?, which),
        None => {
            let ids = SHIPPED.iter().map(|shipped| shipped.id).collect::<Vec<_>>().join(", ");
            return Err(CliError::said(format!("there is no connector and no file {which}; shipped are {ids}")));
        }
    };
    let manifest = match parsed {
        Ok(manifest) => manifest,
        Err(problems) => {
            if output.json {
                print_json(&Report { file: which.to_owned(), id: None, problems })?;
            } else {
                for problem in &problems {
                    say(&problem.to_string());
                }
            }
            return Ok(Finding::No);
        }
    };
    if output.json {
        let declared = serde_json::to_value(manifest.declared()).map_err(|error| CliError::said(error.to_string()))?;
        let mut members = Map::new();
        members.insert("shipped".to_owned(), Value::Bool(shipped.is_some()));
        members.insert("unverified".to_owned(), Value::Bool(shipped.is_some_and(|shipped| !shipped.verified)));
        members.insert("manifest".to_owned(), without_nothing(declared));
        print_json(&members)?;
    } else {
        say(describe(manifest.declared(), shipped).trim_end());
    }
    Ok(Finding::Yes)
}

/// A value without members that are null or empty: what was not written.
fn without_nothing(value: Value) -> Value {
    let is_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, member)| (key, without_nothing(member)));
            Value::Object(members.filter(|(_, member)| !is_nothing(member)).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nothing).collect()),
        other => other,
    }
}

/// The name that the manifest has for one of its choices.
fn word(choice: impl Serialize) -> String {
    serde_json::to_value(choice).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn describe(declared: &Declared, shipped: Option<&Shipped>) -> String {
    let connector = &declared.connector;
    let mut text = format!("{} ({} version {})\n", connector.title, connector.id, connector.version);
    if shipped.is_some_and(|shipped| !shipped.verified) {
        text.push_str("UNVERIFIED: written from documentation, never run against the destination. Try it on a test account first.\n");
    }
    if let Some(docs) = &connector.docs {
        let _ = writeln!(text, "docs      {docs}");
    }
    let _ = writeln!(
        text,
        "transport {}\nhosts     {}\nauth      {}",
        word(connector.transport),
        connector.hosts.join(", "),
        word(declared.auth.kind)
    );
    let kinds: Vec<_> = declared.ids.keys().cloned().collect();
    let _ = writeln!(text, "takes     {}", kinds.join(", "));
    let limits = &declared.limits;
    let _ =
        writeln!(text, "limits    {} items a call, {} calls at a time", limits.batch_items.unwrap_or(1), limits.concurrency.unwrap_or(1));
    if !limits.rate.is_empty() {
        let _ = writeln!(text, "rate      {}", limits.rate.join(", "));
    }
    for (what, is_there) in [
        ("look-up: people are found by a call of their own", declared.lookup.is_some()),
        ("verify: what was told is read back", declared.verify.is_some()),
        ("probe: credentials can be tried", declared.probe.is_some()),
        ("dry run: calls can be checked without effect", declared.dry_run.is_some()),
    ] {
        if is_there {
            let _ = writeln!(text, "has a {what}");
        }
    }
    for setup in &declared.setup {
        let _ = writeln!(text, "sets up   {}", setup.name);
    }
    for (place, op) in declared.op.iter().enumerate() {
        describe_op(&mut text, place, op);
    }
    if !declared.settings.is_empty() {
        text.push_str("\nsettings\n");
    }
    for (name, setting) in &declared.settings {
        let need = match (&setting.default, setting.required) {
            (Some(default), _) => format!("default {default}"),
            (None, true) => "required".to_owned(),
            (None, false) => "optional".to_owned(),
        };
        let kind = match setting.kind {
            SettingKind::Enum => setting.values.clone().unwrap_or_default().join(" | "),
            kind => word(kind),
        };
        let _ = writeln!(text, "  {name} ({kind}, {need}) {}", setting.doc.as_deref().unwrap_or_default());
    }
    text
}

fn describe_op(text: &mut String, place: usize, op: &Op) {
    let _ = writeln!(text, "\nop {place}: {} of {}", word(op.on), op.purposes.join(", "));
    let _ = writeln!(text, "  effect  {}, writes {}", word(op.effect), op.writes.as_slice().join(", "));
    if let (Some(method), Some(path), Some(result)) = (op.method, &op.path, &op.result) {
        let _ = writeln!(text, "  call    {} {path}, one item is one {}", method.name(), word(op.unit));
        let _ = writeln!(text, "  answer  {}", word(result.dialect));
    }
    let _ = writeln!(text, "  proves  {} at most", word(op.ceiling));
}

fn new(id: &str) -> Result<Finding, CliError> {
    let text = STARTER.replace("__ID__", id);
    if let Err(problems) = Manifest::parse(&text, id) {
        // Nothing but the id is new in it.
        return Err(CliError::said(format!("{id:?} {}", problems.first().map_or_else(String::new, |problem| problem.hint.clone()))));
    }
    let path = PathBuf::from(format!("{id}.toml"));
    let mut file = File::create_new(&path).map_err(CliError::io(path.display()))?;
    file.write_all(text.as_bytes()).map_err(CliError::io(path.display()))?;
    say(&format!("{}: put your destination's calls into it, then run: desist connector lint {}", path.display(), path.display()));
    Ok(Finding::Yes)
}
