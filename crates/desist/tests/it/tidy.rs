//! What no compiler checks: the direction of dependencies, their reasons, words and sizes in the
//! sources, and that the documents name what exists.
//!
//! Each check is a function from texts to findings. The first half of the file runs them on the
//! project; the last test breaks each rule once and sees that it is found.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Which crates of the workspace a crate may use. An arrow that is not here is an invariant.
const ARROWS: &[(&str, &[&str])] = &[
    ("desist-core", &[]),
    ("desist-proof", &[]),
    ("desist-store", &["desist-core", "desist-proof"]),
    ("desist-batch", &["desist-core"]),
    ("desist-connector", &["desist-core"]),
    ("desist-engine", &["desist-core", "desist-proof", "desist-store"]),
    ("desist", &["desist-core", "desist-proof", "desist-store", "desist-batch", "desist-connector", "desist-engine"]),
];
/// What does I/O, and so is in no crate of [`PURE`], not even behind another dependency.
const IMPURE: &[&str] = &["tokio", "mio", "async-std", "rusqlite", "postgres", "tokio-postgres", "reqwest", "ureq", "hyper", "axum"];
/// What asks for randomness: no dependency that a crate of [`PURE`] names itself.
const RANDOM: &[&str] = &["rand", "getrandom", "fastrand"];
/// The crates without I/O, async, clock or randomness.
const PURE: &[&str] = &["desist-core", "desist-proof", "desist-batch", "desist-connector"];
/// What belongs to the edges: SQL to the store, HTTP and the command line to the binary.
const EDGES: &[(&str, &[&str])] = &[
    ("desist-engine", &["rusqlite", "axum", "hyper", "clap", "reqwest", "ureq"]),
    ("desist-store", &["axum", "hyper", "clap", "reqwest", "ureq", "getrandom", "rand"]),
    ("desist", &["rusqlite"]),
];
/// Lints that the whole workspace allows. Each one hides something everywhere.
const ALLOWS_MAX: usize = 8;
/// Files that have to call the kernel without a safe wrapper.
const UNSAFE_FILES: &[&str] = &["crates/desist-engine/src/index/huge.rs"];
/// Lines in a source file, tests within it included. The longest that is one subject (the contract
/// of the store) has 880; a longer file is two subjects.
const FILE_LINES_MAX: usize = 1000;
/// Files that are longer, and why they are still one subject.
const LONG_FILES: &[(&str, &str)] = &[];
/// Characters of a line that are not in a text literal. Signatures of the rules reach 210; a text for
/// people is one literal on one line, so that it can be searched for.
const LINE_CHARS_MAX: usize = 220;

/// This file has to write down what it forbids.
const THIS: &str = "crates/desist/tests/it/tidy.rs";

#[test]
fn dependencies_point_one_way() {
    report("move the code, or change the layers: ARROWS in this file and the arrows in ARCHITECTURE.md", &arrows(&metadata()));
}

#[test]
fn the_pure_crates_stay_pure() {
    report("pass it in as an argument, or do it in desist-engine or desist", &layers(&metadata()));
}

#[test]
fn every_dependency_has_a_reason() {
    report(
        "add or remove the row between the `dependencies` marks of ARCHITECTURE.md",
        &dependency_table(&metadata(), &read("ARCHITECTURE.md")),
    );
}

#[test]
fn every_licence_is_allowed_and_no_banned_crate_is_used() {
    report("choose another dependency, or argue for the change of deny.toml", &licences(&metadata(), &read("deny.toml")));
}

#[test]
fn few_lints_are_allowed_and_each_says_why() {
    report("fix the code, or put `#[expect(..., reason = ...)]` at the one place", &allows(&read("Cargo.toml")));
}

#[test]
fn no_unfinished_and_no_disabled_code() {
    report("finish it or delete it; what is not done yet belongs into README.md", &each(words));
}

#[test]
fn unsafe_code_is_where_it_is_listed() {
    report("find a safe way; or add the file to UNSAFE_FILES with a SAFETY comment at each block", &each(unsafe_code));
}

#[test]
fn files_are_short_enough_to_read() {
    report("split the file by subject; tests can go to a file of their own", &each(file_length));
}

#[test]
fn lines_are_short_enough_to_read() {
    report("break the line, or give a part of it a name", &each(line_length));
}

#[test]
fn every_limit_says_why() {
    report("write a doc comment above the constant: what it bounds and where the number comes from", &each(limits));
}

#[test]
fn nothing_of_a_machine_is_in_the_project() {
    report("use a relative path; leave hosts of package registries to the tools' own settings", &each(machine));
}

#[test]
fn the_licence_is_there() {
    let licence = std::fs::read_to_string(root().join("LICENSE")).unwrap_or_default();
    report(
        "put the text of the Apache License 2.0 into LICENSE, and `license.workspace = true` into each Cargo.toml",
        &own_licence(&metadata(), &licence),
    );
}

#[test]
fn the_readme_begins_with_the_two_commands() {
    report("the first two code blocks of README.md are all set-up that a fresh machine needs", &readme(&read("README.md")));
}

#[test]
fn the_documents_name_what_exists() {
    let sources = tracked();
    let mut found = Vec::new();
    for (path, text) in sources.iter().filter(|(path, _)| has_extension(path, "md")) {
        found.extend(named_in_document(path, text, &sources, &|path| root().join(path).exists()));
    }
    report("name the test, file or page that is meant, or write it", &found);
}

/// Fails with what to do and where.
fn report(what_to_do: &str, found: &[String]) {
    assert!(found.is_empty(), "{what_to_do}:\n  {}", found.join("\n  "));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

/// The packages of the build, with their dependencies, as cargo sees them.
fn metadata() -> Value {
    // Packages for other systems need not be on this machine.
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", &platform])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// Every text file that is, or is about to be, under version control: path and text.
fn tracked() -> Vec<(String, String)> {
    let listed = Command::new("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]).current_dir(root()).output();
    let mut paths: Vec<String> = match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect()
        }
        // A copy without its history.
        _ => walk(&root(), ""),
    };
    paths.sort();
    paths.dedup();
    // What is not UTF-8 is no text; what is not there was deleted since.
    paths.into_iter().filter_map(|path| std::fs::read_to_string(root().join(&path)).ok().map(|text| (path, text))).collect()
}

fn walk(dir: &Path, prefix: &str) -> Vec<String> {
    const SKIPPED: &[&str] = &["target", ".git", "node_modules", "desist-data", "corpus", "artifacts"];
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && !SKIPPED.contains(&name.as_str()) => paths.extend(walk(&entry.path(), &format!("{path}/"))),
            Ok(kind) if kind.is_file() => paths.push(path),
            _ => {}
        }
    }
    paths
}

/// The findings of a check on every file but this one.
fn each(check: impl Fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let files = tracked();
    assert!(files.iter().any(|(path, _)| path == THIS), "the list of files does not even have this one");
    files.iter().filter(|(path, _)| path != THIS).flat_map(|(path, text)| check(path, text)).collect()
}

/// The crates of the workspace.
fn members(metadata: &Value) -> impl Iterator<Item = &Value> {
    let members = list(&metadata["workspace_members"]);
    list(&metadata["packages"]).iter().filter(move |package| members.contains(&package["id"]))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn arrows(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    for package in members(metadata) {
        let name = text(&package["name"]);
        let Some((_, allowed)) = ARROWS.iter().find(|(known, _)| *known == name) else {
            found.push(format!("{name} has no place among the layers"));
            continue;
        };
        for dependency in list(&package["dependencies"]) {
            let to = text(&dependency["name"]);
            if ARROWS.iter().any(|(known, _)| *known == to) && !allowed.contains(&to) {
                found.push(format!("{name} depends on {to}"));
            }
        }
    }
    found
}

fn layers(metadata: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"]["nodes"]).iter().map(|node| (text(&node["id"]), node)).collect();
    let names: BTreeMap<&str, &str> =
        list(&metadata["packages"]).iter().map(|package| (text(&package["id"]), text(&package["name"]))).collect();
    for package in members(metadata) {
        let name = text(&package["name"]);
        let direct = list(&package["dependencies"])
            .iter()
            .filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| text(&dependency["name"]));
        let edge = EDGES.iter().filter(|(layer, _)| *layer == name).flat_map(|(_, banned)| *banned);
        let random = RANDOM.iter().filter(|_| PURE.contains(&name));
        let banned: BTreeSet<&str> = edge.chain(random).copied().collect();
        found.extend(direct.filter(|dependency| banned.contains(dependency)).map(|dependency| format!("{name} depends on {dependency}")));
        if !PURE.contains(&name) {
            continue;
        }
        let (mut reached, mut waiting) = (BTreeSet::new(), vec![text(&package["id"])]);
        while let Some(id) = waiting.pop() {
            if !reached.insert(id) {
                continue;
            }
            for dependency in nodes.get(id).map_or(&[][..], |node| list(&node["deps"])) {
                if list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev") {
                    waiting.push(text(&dependency["pkg"]));
                }
            }
        }
        let reached = reached.iter().filter_map(|id| names.get(id)).filter(|reached| IMPURE.contains(reached));
        found.extend(reached.map(|reached| format!("{name} reaches {reached}")));
    }
    found
}

/// Dependency, crate, and whether only the crate's tests use it.
type Use = (String, String, bool);

fn dependency_table(metadata: &Value, architecture: &str) -> Vec<String> {
    let mut used = BTreeSet::<Use>::new();
    for package in members(metadata) {
        let name = text(&package["name"]).trim_start_matches("desist-");
        for dependency in list(&package["dependencies"]).iter().filter(|dependency| dependency["path"].is_null()) {
            used.insert((text(&dependency["name"]).to_owned(), name.to_owned(), dependency["kind"] == "dev"));
        }
    }
    // A test dependency that the crate itself uses too needs one reason.
    let unneeded: Vec<_> =
        used.iter().filter(|(name, user, dev)| *dev && used.contains(&(name.clone(), user.clone(), false))).cloned().collect();
    used.retain(|one| !unneeded.contains(one));
    let table = architecture
        .split_once("<!-- dependencies -->")
        .and_then(|(_, rest)| rest.split_once("<!-- end -->"))
        .map_or("", |(table, _)| table);
    let (mut told, mut found) = (BTreeSet::<Use>::new(), Vec::new());
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, users, testers, reason] = cells[..] else {
            found.push(format!("not a row of four cells: {row}"));
            continue;
        };
        let name = name.trim_matches('`');
        if reason.len() < 10 {
            found.push(format!("{name} has no reason"));
        }
        for (cell, dev) in [(users, false), (testers, true)] {
            told.extend(cell.split(',').map(str::trim).filter(|user| !user.is_empty()).map(|user| (name.to_owned(), user.to_owned(), dev)));
        }
    }
    let show = |(name, user, dev): &Use| format!("{name} in {}{user}", if *dev { "the tests of " } else { "" });
    found.extend(used.difference(&told).map(|one| format!("not in the table: {}", show(one))));
    found.extend(told.difference(&used).map(|one| format!("in the table, not in a Cargo.toml: {}", show(one))));
    found
}

fn licences(metadata: &Value, deny: &str) -> Vec<String> {
    let deny: toml::Table = deny.parse().expect("deny.toml is TOML");
    let strings = |section: &str, key: &str| -> BTreeSet<String> {
        let values = deny.get(section).and_then(|section| section.get(key)).and_then(toml::Value::as_array);
        let name = |value: &toml::Value| value.as_str().or_else(|| value.get("crate")?.as_str()).map(str::to_owned);
        values.into_iter().flatten().filter_map(name).collect()
    };
    let (allowed, banned) = (strings("licenses", "allow"), strings("bans", "deny"));
    let resolved: BTreeSet<&str> = list(&metadata["resolve"]["nodes"]).iter().map(|node| text(&node["id"])).collect();
    let mut found = Vec::new();
    for package in list(&metadata["packages"]).iter().filter(|package| resolved.contains(text(&package["id"]))) {
        let (name, licence) = (text(&package["name"]), text(&package["license"]));
        if banned.contains(name) {
            found.push(format!("{name} is banned"));
        }
        if !is_allowed(licence, &allowed) {
            found.push(format!("{name} has the licence {licence:?}"));
        }
    }
    found
}

/// Whether an SPDX expression can be met with the licences allowed: `AND` binds closer than `OR`, and
/// the old slash is an `OR`.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    fn any(words: &mut std::iter::Peekable<std::slice::Iter<'_, &str>>, allowed: &BTreeSet<String>) -> bool {
        let mut met = all(words, allowed);
        while words.next_if(|word| **word == "OR").is_some() {
            met |= all(words, allowed);
        }
        met
    }
    fn all(words: &mut std::iter::Peekable<std::slice::Iter<'_, &str>>, allowed: &BTreeSet<String>) -> bool {
        let mut met = one(words, allowed);
        while words.next_if(|word| **word == "AND").is_some() {
            met &= one(words, allowed);
        }
        met
    }
    fn one(words: &mut std::iter::Peekable<std::slice::Iter<'_, &str>>, allowed: &BTreeSet<String>) -> bool {
        match words.next() {
            Some(&"(") => {
                let met = any(words, allowed);
                words.next_if(|word| **word == ")").is_some() && met
            }
            Some(licence) => {
                // With an exception it is another licence.
                let exception = words.next_if(|word| **word == "WITH").and_then(|_| words.next());
                exception.map_or_else(|| allowed.contains(*licence), |exception| allowed.contains(&format!("{licence} WITH {exception}")))
            }
            None => false,
        }
    }
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<_> = spaced.split_whitespace().collect();
    let mut words = words.iter().peekable();
    any(&mut words, allowed) && words.next().is_none()
}

fn allows(manifest: &str) -> Vec<String> {
    let lints = manifest
        .lines()
        .skip_while(|line| !line.starts_with("[workspace.lints"))
        .take_while(|line| !line.starts_with('[') || line.starts_with("[workspace.lints"));
    let allows: Vec<_> = lints.filter(|line| !line.trim_start().starts_with('#') && line.contains("\"allow\"")).collect();
    let mut found = Vec::new();
    if allows.len() > ALLOWS_MAX {
        found.push(format!("{} lints are allowed in the workspace, at most {ALLOWS_MAX} may be", allows.len()));
    }
    found.extend(
        allows
            .iter()
            .filter(|line| line.split_once('#').is_none_or(|(_, why)| why.trim().len() < 10))
            .map(|line| format!("no reason: {line}")),
    );
    found
}

fn words(path: &str, text: &str) -> Vec<String> {
    let rust = ["todo!", "unimplemented!", "dbg!", "FIXME", "TODO", "XXX", "#[ignore", "#[should_panic"];
    let script =
        ["FIXME", "TODO", "XXX", "test.skip(", "it.skip(", "describe.skip(", "test.only(", "it.only(", "pytest.mark.skip", "unittest.skip"];
    let banned: &[&str] = match Path::new(path).extension().and_then(|extension| extension.to_str()) {
        Some("rs") => &rust,
        Some("js" | "mjs" | "ts" | "py" | "sh" | "toml" | "yml" | "yaml" | "sql") => &script,
        None if path.starts_with("scripts/") || path.starts_with(".ci/") => &script,
        _ => &[],
    };
    lines(path, text, |line| banned.iter().find(|word| line.contains(**word)).map(|word| format!("has {word}")))
}

fn unsafe_code(path: &str, text: &str) -> Vec<String> {
    if !has_extension(path, "rs") || UNSAFE_FILES.contains(&path) {
        return Vec::new();
    }
    lines(path, text, |line| {
        let code = code(line);
        let mut names = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        (code.contains("unsafe_code") || names.any(|name| name == "unsafe")).then(|| "has unsafe code".to_owned())
    })
}

fn file_length(path: &str, text: &str) -> Vec<String> {
    let listed = LONG_FILES.iter().any(|(long, why)| *long == path && !why.is_empty());
    let count = text.lines().count();
    let is_source = has_extension(path, "rs") && path.starts_with("crates/") && path.contains("/src/");
    if is_source && !listed && count > FILE_LINES_MAX {
        vec![format!("{path} has {count} lines, at most {FILE_LINES_MAX} are allowed")]
    } else {
        Vec::new()
    }
}

fn line_length(path: &str, text: &str) -> Vec<String> {
    if !has_extension(path, "rs") || !path.contains("/src/") || path.ends_with("/tests.rs") {
        return Vec::new();
    }
    lines(path, text, |line| {
        let chars = code(line).chars().count();
        (chars > LINE_CHARS_MAX).then(|| format!("has {chars} characters beside its texts, at most {LINE_CHARS_MAX} are allowed"))
    })
}

/// A line of Rust without its comment and without what stands in its text literals.
fn code(line: &str) -> String {
    let (mut code, mut chars, mut in_text) = (String::new(), line.chars().peekable(), false);
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '\'' if !in_text && chars.peek() == Some(&'"') => drop(chars.next()),
            '"' => in_text = !in_text,
            '/' if !in_text && chars.peek() == Some(&'/') => break,
            c if !in_text => code.push(c),
            _ => {}
        }
    }
    code
}

fn limits(path: &str, text: &str) -> Vec<String> {
    if !has_extension(path, "rs") || !path.contains("/src/") {
        return Vec::new();
    }
    let (mut found, mut documented) = (Vec::new(), false);
    for (place, line) in text.lines().enumerate() {
        let line = line.trim_start();
        let name =
            line.trim_start_matches("pub(crate) ").trim_start_matches("pub ").strip_prefix("const ").and_then(|rest| rest.split_once(':'));
        if let Some((name, _)) = name
            && name.ends_with("_MAX")
            && !documented
        {
            found.push(format!("{path}:{}: {name} has no doc comment", place + 1));
        }
        documented = line.starts_with("///") || (documented && line.starts_with("#["));
    }
    found
}

fn machine(path: &str, text: &str) -> Vec<String> {
    // Written in halves, so that this file does not name them either.
    const HOSTS: &[&str] = &[
        concat!("crates", ".io"),
        concat!("npm", "js.org"),
        concat!("npm", "js.com"),
        concat!("py", "pi.org"),
        concat!("python", "hosted.org"),
        concat!("proxy.golang", ".org"),
        concat!("ruby", "gems.org"),
    ];
    const SETTINGS: &[&str] = &["index-url", "replace-with", "[source.", "_authToken"];
    const PATHS: &[&str] = &["/root/", "/home/", "/Users/", "C:\\\\"];
    // The name that Cargo.lock has on every machine.
    const PUBLIC: &str = concat!("source = \"registry+https://github.com/rust-lang/crates", ".io-index\"");
    lines(path, text, |line| {
        if path.ends_with("Cargo.lock") && line.starts_with("source = ") {
            return (line != PUBLIC && !line.contains("git+https://github.com/"))
                .then(|| "has a source that is not the public one".to_owned());
        }
        let mut banned = HOSTS.iter().chain(SETTINGS).chain(PATHS);
        banned.find(|word| line.contains(**word)).map(|word| format!("has {word}"))
    })
}

/// Runs a check on each line.
fn lines(path: &str, text: &str, check: impl Fn(&str) -> Option<String>) -> Vec<String> {
    text.lines().enumerate().filter_map(|(place, line)| check(line).map(|what| format!("{path}:{}: {what}", place + 1))).collect()
}

fn own_licence(metadata: &Value, licence: &str) -> Vec<String> {
    let wrong = members(metadata).filter(|package| package["license"] != "Apache-2.0");
    let mut found: Vec<_> = wrong.map(|package| format!("{} does not say `Apache-2.0`", text(&package["name"]))).collect();
    if !licence.contains("Apache License") || !licence.contains("Version 2.0") {
        found.push("LICENSE is not the text of the Apache License 2.0".to_owned());
    }
    found
}

fn readme(readme: &str) -> Vec<String> {
    let mut blocks = readme.split("```").skip(1).step_by(2);
    let expected = ["cargo run --release -p desist -- demo", "scripts/test"];
    let missing =
        expected.into_iter().enumerate().filter(|(_, command)| !blocks.next().unwrap_or_default().lines().any(|line| line == *command));
    missing.map(|(place, command)| format!("code block {} has no line `{command}`", place + 1)).collect()
}

/// Tests (`FILE.rs::NAME`, FILE below `crates/`), sources (`desist-.../FILE.rs`) and links to pages.
fn named_in_document(path: &str, document: &str, sources: &[(String, String)], exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let source = |path: &str| sources.iter().find(|(known, _)| *known == format!("crates/{path}")).map(|(_, text)| text.as_str());
    let outside_blocks = document.split("```").step_by(2).collect::<String>();
    let mut found = Vec::new();
    for span in outside_blocks.split('`').skip(1).step_by(2) {
        if let Some((file, name)) = span.split_once(".rs::") {
            let file = format!("{file}.rs");
            match source(&file) {
                None => found.push(format!("{path}: there is no crates/{file}")),
                Some(text) if !text.contains(&format!("fn {name}(")) => found.push(format!("{path}: crates/{file} has no test {name}")),
                Some(_) => {}
            }
        } else if span.starts_with("desist") && span.contains('/') && has_extension(span, "rs") && source(span).is_none() {
            found.push(format!("{path}: there is no crates/{span}"));
        }
    }
    let folder = path.rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    for link in outside_blocks.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
        let page = link.split('#').next().unwrap_or_default();
        if !page.is_empty() && !page.contains(':') && !exists(&format!("{folder}{page}")) {
            found.push(format!("{path}: the link to {page} leads nowhere"));
        }
    }
    found
}

#[test]
fn every_rule_can_be_broken() {
    let package =
        |name: &str, dependencies: Value| serde_json::json!({ "id": name, "name": name, "license": "MIT", "dependencies": dependencies });
    let dependency = |name: &str| serde_json::json!({ "name": name, "kind": null, "path": null });
    let build = |packages: &[Value]| {
        let ids: Vec<_> = packages.iter().map(|package| package["id"].clone()).collect();
        let edge = |dependency: &Value| serde_json::json!({ "pkg": dependency["name"], "dep_kinds": [{ "kind": dependency["kind"] }] });
        let node = |package: &Value| serde_json::json!({ "id": package["id"], "deps": list(&package["dependencies"]).iter().map(edge).collect::<Vec<_>>() });
        let nodes: Vec<_> = packages.iter().map(node).collect();
        serde_json::json!({ "workspace_members": ids, "packages": packages, "resolve": { "nodes": nodes } })
    };
    let one = |user: &str, uses: &str| build(&[package(user, serde_json::json!([dependency(uses)]))]);
    let deny = "[licenses]\nallow = [\"MIT\"]\n[bans]\ndeny = [{ crate = \"openssl\" }]\n";
    let table = "<!-- dependencies -->\n| `serde` | core | | reads and writes JSON |\n<!-- end -->";
    let named = |document: &str| {
        let sources = [("crates/desist-core/src/a.rs".to_owned(), "fn known() {}".to_owned())];
        named_in_document("docs/page.md", document, &sources, &|path| path == "docs/other.md")
    };
    let long = "x\n".repeat(FILE_LINES_MAX + 1);
    let wide = "x".repeat(LINE_CHARS_MAX + 1);
    let reasons = "[workspace.lints.clippy]\na = \"allow\" # it reads better\n";
    let deeper = build(&[
        package("desist-core", serde_json::json!([dependency("harmless")])),
        package("harmless", serde_json::json!([dependency("tokio")])),
        package("tokio", serde_json::json!([])),
    ]);
    let cases: Vec<(&str, Vec<String>, Vec<String>)> = vec![
        ("an arrow back", arrows(&one("desist-core", "desist-store")), arrows(&one("desist-store", "desist-core"))),
        ("a new crate", arrows(&one("desist-new", "serde")), arrows(&one("desist-core", "serde"))),
        ("an impure crate", layers(&deeper), layers(&one("desist-engine", "tokio"))),
        ("randomness", layers(&one("desist-batch", "getrandom")), layers(&one("desist-engine", "getrandom"))),
        ("SQL outside the store", layers(&one("desist-engine", "rusqlite")), layers(&one("desist-store", "rusqlite"))),
        (
            "a dependency without a row",
            dependency_table(&one("desist-core", "base64"), ""),
            dependency_table(&one("desist-core", "serde"), table),
        ),
        ("a row without a dependency", dependency_table(&one("desist-core", "desist-proof"), table), Vec::new()),
        ("a row without a reason", dependency_table(&one("desist-core", "serde"), &table.replace("reads and writes JSON", "")), Vec::new()),
        (
            "a banned crate",
            licences(&build(&[package("openssl", Value::Null)]), deny),
            licences(&build(&[package("rustls", Value::Null)]), deny),
        ),
        ("a licence", licences(&build(&[package("x", Value::Null)]), &deny.replace("MIT", "ISC")), Vec::new()),
        ("an allow without a reason", allows(&reasons.replace("it reads better", "")), allows(reasons)),
        (
            "nine allows",
            allows(&format!("[workspace.lints.clippy]\n{}", "a = \"allow\" # it reads better\n".repeat(9))),
            allows(&format!("{reasons}[profile]\na = \"allow\"")),
        ),
        ("an unfinished function", words("a.rs", "todo!()"), words("a.rs", "path.split('%').skip(1)")),
        ("a test that is left out", words("a.rs", "#[ignore]"), words("notes.md", "TODO")),
        ("a script's test that is left out", words("tests/page.mjs", "test.skip('x')"), words("tests/page.mjs", "test('x')")),
        ("unsafe code", unsafe_code("a.rs", "let x = unsafe { f() };"), unsafe_code("a.rs", "// unsafe\nlet x = \"unsafe\";")),
        ("unsafe code allowed", unsafe_code("a.rs", "#![allow(unsafe_code)]"), unsafe_code(UNSAFE_FILES[0], "unsafe {}")),
        ("a long file", file_length("crates/a/src/a.rs", &long), file_length("crates/a/tests/a.rs", &long)),
        ("a long line", line_length("crates/a/src/a.rs", &wide), line_length("crates/a/src/a.rs", &format!("say(\"{wide}\"); // {wide}"))),
        (
            "a limit without a reason",
            limits("crates/a/src/a.rs", "pub const A_MAX: u8 = 1;"),
            limits("crates/a/src/a.rs", "/// Why.\n#[cfg(a)]\npub const A_MAX: u8 = 1;"),
        ),
        ("a path of a machine", machine("a.md", "see /root/notes"), machine("a.md", "see docs/notes.md")),
        ("a registry", machine("package-lock.json", concat!("https://registry.npm", "js.org/a")), machine("package.json", "\"a\": \"1\"")),
        (
            "another source",
            machine("Cargo.lock", "source = \"registry+https://elsewhere\""),
            machine("Cargo.lock", concat!("source = \"registry+https://github.com/rust-lang/crates", ".io-index\"")),
        ),
        ("no licence text", own_licence(&Value::Null, ""), own_licence(&Value::Null, "Apache License\nVersion 2.0")),
        ("a crate's licence", own_licence(&build(&[package("x", Value::Null)]), "Apache License Version 2.0"), Vec::new()),
        ("no demo", readme("```\nscripts/test\n```"), readme("```\ncargo run --release -p desist -- demo\n```\n```\nscripts/test\n```")),
        ("no test of that name", named("`desist-core/src/a.rs::other`"), named("`desist-core/src/a.rs::known` `desist-core/src/a.rs`")),
        ("no such file", named("`desist-core/src/b.rs`"), named("```\n`desist-core/src/b.rs`\n```")),
        ("no such page", named("[x](none.md)"), named("[x](other.md#part) [y](https://example.org/z)")),
    ];
    for (what, broken, kept) in cases {
        assert!(!broken.is_empty(), "not found: {what}");
        assert!(kept.is_empty(), "found although all is well: {what}: {kept:?}");
    }
    let allowed = BTreeSet::from(["MIT".to_owned(), "ISC".to_owned()]);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("GPL-3.0 OR MIT AND ISC", true),
        ("(GPL-3.0 OR MIT) AND GPL-2.0", false),
        ("MIT WITH exception", false),
        ("", false),
        ("(MIT", false),
    ] {
        assert_eq!(is_allowed(expression, &allowed), expected, "{expression}");
    }
}
