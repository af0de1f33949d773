//! Words that an opt-out of sale may not say: fields of mail, of calls and of other laws, and deletion, which needs the
//! operator's approval. Every text that the manifest sends is looked at, in whichever request it stands.

use std::collections::BTreeMap;

use desist_core::identifier::Kind;
use desist_core::purpose::BUILT_IN;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{At, Compiler, at};
use crate::declared::{self, Effect, Method};
use crate::manifest::{IdRule, Lookup, Op, Probe, Request, Setup, Verify};
use crate::problem::shown;
use crate::template::{Node, Part, Text};

/// Words of fields about mail, calls and subscriptions, in lower case without signs. They belong to other choices of the person.
const SUBSCRIPTION_WORDS: &[&str] = &[
    "subscri",
    "unsub",
    "optinemail",
    "emailoptin",
    "optinsms",
    "smsoptin",
    "blacklist",
    "denylist",
    "emailoptout",
    "emailoptedout",
    "mailoptout",
    "optoutemail",
    "optedoutofemail",
    "optoutofemail",
    "optedoutoffax",
    "smsoptout",
    "optoutsms",
    "newsletter",
    "mailinglist",
    "marketingemail",
    "emailmarketing",
    "emailconsent",
    "donotemail",
    "donotcall",
    "donotmail",
    "donotcontact",
    "profilesuppression",
];

/// Words of fields that other laws own.
const REGIME_WORDS: &[&str] = &["gdpr", "lgpd", "pipeda", "casl", "coppa", "hipaa"];

/// Words of calls that delete.
const DELETION_WORDS: &[&str] = &["delete", "deletion", "erase", "erasure", "forget", "purge"];
/// Words of a path that says from which list somebody is taken.
const LIST_WORDS: &[&str] = &["list", "audience", "segment", "group", "cohort"];

/// Names of headers, parameters and members that change what the method, the path or the host says, without signs.
const OVERRIDES: &[&str] = &[
    "httpmethod",
    "xhttpmethod",
    "httpmethodoverride",
    "xhttpmethodoverride",
    "methodoverride",
    "xmethodoverride",
    "xoriginalmethod",
    "xoriginalurl",
    "xoriginaluri",
    "xrewriteurl",
    "xforwardedhost",
    "forwarded",
];

impl Compiler<'_> {
    /// The texts that all ops share: what identifiers become, the requests that only ask, what must exist, and settings.
    pub(super) fn shared_words(
        &mut self,
        ids: &BTreeMap<Kind, IdRule>,
        asked: (Option<&Lookup>, Option<&Verify>, Option<&Probe>),
        ops: &[Op],
        setup: &[Setup],
    ) {
        let mut texts: Vec<(At, String)> = Vec::new();
        for (kind, rule) in ids {
            let base = at(&[], ["ids", kind.name()]);
            texts.push((at(&base, ["name"]), rule.name.clone()));
            for (key, node) in [("emit", &rule.emit), ("hashed", &rule.hashed)] {
                texts.extend(node.iter().flat_map(texts_of).map(|text| (at(&base, [key]), text)));
            }
        }
        let mut requests: Vec<(At, &Request)> = Vec::new();
        let (lookup, verify, probe) = asked;
        requests.extend(lookup.map(|lookup| (at(&[], ["lookup"]), &lookup.request)));
        requests.extend(verify.map(|verify| (at(&[], ["verify"]), &verify.request)));
        requests.extend(probe.map(|probe| (at(&[], ["probe"]), &probe.request)));
        for (place, setup) in setup.iter().enumerate() {
            let base = at(&[], ["setup", &place.to_string()]);
            requests.push((at(&base, ["check"]), &setup.check));
            requests.push((at(&base, ["create"]), &setup.create));
        }
        for (place, op) in ops.iter().enumerate() {
            requests.extend(op.poll.as_ref().map(|poll| (at(&[], ["op", &place.to_string(), "poll"]), &poll.request)));
        }
        for (base, request) in &requests {
            texts.extend(texts_of_request(request).into_iter().map(|(key, text)| (at(base, [key]), text)));
        }
        for (name, setting) in &self.declared.settings {
            let base = at(&[], ["settings", name]);
            texts.extend(setting.default.iter().flat_map(strings).map(|text| (at(&base, ["default"]), text)));
            texts.extend(setting.values.iter().flatten().map(|text| (at(&base, ["values"]), text.clone())));
        }
        if let Some(dry_run) = &self.declared.dry_run {
            let base = at(&[], ["dry_run"]);
            for (key, value) in &dry_run.body_set {
                texts.push((at(&base, ["body_set", key]), key.clone()));
                texts.extend(strings(value).into_iter().map(|text| (at(&base, ["body_set", key]), text)));
            }
            for (key, value) in &dry_run.query_set {
                texts.extend([key, value].map(|text| (at(&base, ["query_set", key]), text.clone())));
            }
        }
        let is_for_sale = self.declared.op.iter().any(is_for_sale);
        let may_delete = self.declared.op.iter().any(|op| op.effect == Effect::Delete);
        for (path, text) in texts {
            if let Some(word) = foreign_word(&text).filter(|_| is_for_sale) {
                self.refuse_word(&path, &text, word);
            } else if let Some(word) = deletion_word(&text).filter(|_| !may_delete) {
                self.refuse_deletion(&path, &text, word);
            }
        }
    }

    /// What an op says beside its members: path, query and headers, and what stands in for settings that are missing.
    pub(super) fn op_words(
        &mut self,
        base: &[String],
        op: &declared::Op,
        nodes: [(&'static str, Option<&Node>); 2],
        request: Option<&Request>,
    ) {
        let mut texts: Vec<(&'static str, String)> = request.map(texts_of_request).unwrap_or_default();
        for (key, node) in nodes {
            texts.extend(node.into_iter().flat_map(texts_of).map(|text| (key, text)));
        }
        for (key, text) in texts {
            let path = at(base, [key]);
            if let Some(word) = foreign_word(&text).filter(|_| is_for_sale(op)) {
                self.refuse_word(&path, &text, word);
            } else if let Some(word) = deletion_word(&text).filter(|_| op.effect != Effect::Delete) {
                self.refuse_deletion(&path, &text, word);
            }
        }
        let names_list = op.for_each.is_some() || op.path.as_deref().is_some_and(|path| find(LIST_WORDS, path).is_some());
        let is_allowed = op.effect == Effect::Delete || (op.effect == Effect::Remove && names_list);
        if op.method == Some(Method::Delete) && !is_allowed {
            let hint = "write effect = \"delete\", which an operator has to approve; or effect = \"remove\" with for_each, or with the list in \
                        the path";
            self.add(&at(base, ["method"]), "deletes, and does not say from which list", hint);
        }
    }

    pub(super) fn refuse_word(&mut self, path: &[String], what: &str, word: &str) {
        let message = match what {
            "" => format!("names {word:?}"),
            what => format!("{} names {word:?}", shown(what)),
        };
        let hint = "an opt-out of sale says nothing about mail, calls or another law; write another [[op]] for that, with a purpose of the \
                    business's own such as purposes = [\"email_marketing\"]";
        self.add(path, message, hint);
    }

    fn refuse_deletion(&mut self, path: &[String], what: &str, word: &str) {
        let hint = "a deletion is no opt-out: write an [[op]] with effect = \"delete\", which an operator has to approve";
        self.add(path, format!("{} names {word:?}", shown(what)), hint);
    }

    /// Whatever a server would take for the method, the path or the host instead of what the manifest shows.
    pub(super) fn overrides(&mut self, base: &[String], request: &Request) {
        let hint = "a call is what its method and path say; write those";
        for (key, names) in [("headers", &request.headers), ("query", &request.query)] {
            for name in names.iter().map(|(name, _)| name).filter(|name| is_override(name)) {
                self.add(&at(base, [key, name]), "changes the meaning of the call", hint);
            }
        }
        let leaves = request.body.iter().flat_map(Node::leaves);
        if leaves.into_iter().any(|leaf| is_override(leaf.path.split('.').next().unwrap_or_default())) {
            self.add(&at(base, ["body"]), "changes the meaning of the call", hint);
        }
    }
}

/// Whether a server might take it for the method, the path or the host.
pub(super) fn is_override(name: &str) -> bool {
    name.eq_ignore_ascii_case("_method") || OVERRIDES.contains(&plain(name).as_str())
}

/// Whether an op is about the sale of data and the like, rather than about purposes of the business's own.
pub(super) fn is_for_sale(op: &declared::Op) -> bool {
    let is_built_in = |purpose: &String| purpose == "*" || BUILT_IN.iter().any(|(name, _)| name == purpose);
    op.purposes.is_empty() || op.purposes.iter().any(is_built_in)
}

/// The word of another choice or law in a text.
pub(super) fn foreign_word(text: &str) -> Option<&'static str> {
    find(SUBSCRIPTION_WORDS, text).or_else(|| find(REGIME_WORDS, text))
}

fn deletion_word(text: &str) -> Option<&'static str> {
    // One address takes both requests; what is in the body says which of them it is.
    let text = plain(text).replace("deletionoptout", "");
    find(DELETION_WORDS, &text)
}

fn find(words: &[&'static str], text: &str) -> Option<&'static str> {
    let plain = plain(text);
    words.iter().copied().find(|word| plain.contains(word))
}

/// In lower case and without signs, as a server reads it.
fn plain(text: &str) -> String {
    let text = percent_decode_str(text).decode_utf8_lossy();
    text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

/// The texts in a value: names of members, too.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) => items.iter().flat_map(strings).collect(),
        Value::Object(members) => members.iter().flat_map(|(key, member)| std::iter::once(key.clone()).chain(strings(member))).collect(),
        _ => Vec::new(),
    }
}

/// The texts that a template has of itself: paths of its members, constants, and what stands in for settings that are missing.
fn texts_of(node: &Node) -> Vec<String> {
    let texts = node.leaves().into_iter().flat_map(|leaf| {
        let said = match leaf.node {
            Node::Constant(value) => strings(value),
            Node::Placeholder(placeholder) => placeholder.pipe.defaults().map(str::to_owned).collect(),
            Node::List(_) | Node::Table(_) => Vec::new(),
        };
        std::iter::once(leaf.path).chain(said)
    });
    texts.filter(|text| !text.is_empty()).collect()
}

fn texts_of_text(text: &Text) -> impl Iterator<Item = String> {
    text.0.iter().flat_map(|part| match part {
        Part::Literal(literal) => vec![literal.clone()],
        Part::Placeholder(placeholder) => placeholder.pipe.defaults().map(str::to_owned).collect(),
    })
}

/// The texts of a request, with the keys under which they stand.
fn texts_of_request(request: &Request) -> Vec<(&'static str, String)> {
    let mut texts: Vec<_> = texts_of_text(&request.path).map(|text| ("path", text)).collect();
    for (key, pairs) in [("query", &request.query), ("headers", &request.headers)] {
        for (name, text) in pairs {
            texts.push((key, name.clone()));
            texts.extend(texts_of_text(text).map(|text| (key, text)));
        }
    }
    texts.extend(request.body.iter().flat_map(texts_of).map(|text| ("body", text)));
    texts
}
