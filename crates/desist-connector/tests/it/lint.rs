//! What a manifest must be: each rule broken once, with the place that is named.

use desist_connector::limits::{
    BATCH_ITEMS_MAX, CONCURRENCY_MAX, EXPRESSION_BYTES_MAX, HOSTS_MAX, MANIFEST_BYTES_MAX, NAME_BYTES_MAX, OPS_MAX, PROBLEMS_MAX,
    RATE_CALLS_MAX, RATE_WINDOW_SECONDS_MAX, RATES_MAX, SETTINGS_MAX, SHOWN_CHARS_MAX, TITLE_BYTES_MAX, VARIANTS_MAX,
};
use desist_connector::{Manifest, Problem};

use super::world::manifest;

/// Uses most of the format.
const GOOD: &str = r#"
[connector]
id = "example"
version = 1
title = "Example"
docs = "https://example.org/api"
hosts = ["{{settings.instance}}.example.com", "login.example.com"]

[settings.instance]
type = "string"
required = true
pattern = "[a-z]+"
[settings.client]
type = "string"
required = true
[settings.secret]
type = "secret"
required = true
[settings.lists]
type = "list"
required = true
[settings.country]
type = "string"
[settings.mode]
type = "enum"
values = ["a", "b"]
default = "a"

[auth]
kind = "oauth2_client"
token_url = "https://login.example.com/token"
client_id = "{{settings.client}}"
client_secret = "{{settings.secret}}"

[limits]
batch_items = 100
rate = ["300/1m", "500/1d"]
honour_headers = ["x-rate-limit-reset"]
linger = "60s"

[ids.email]
variants = ["trim|lower|sha256|hex"]
emit = { hash = "{{value}}" }

[lookup]
method = "GET"
path = "/find"
query = { q = "Email IN {{ids.email|soql_list}}", country = "{{settings.country|default('US')}}" }
match = "/records/*"
emit = { key = "/Id" }
absent_when = "/total == 0"
cache = "10m"

[[op]]
on = "opt_out"
purposes = ["sale"]
writes = "flags.ccpaOptOut"
fixed = ["mode"]
effect = "flag"
ceiling = "verified"
unit = "row"
for_each = "settings.lists"
method = "POST"
path = "/lists/{{each}}/update"
headers = { X-Mode = "{{settings.mode}}" }
item = { id = "{{lookup.key}}", flags = { ccpaOptOut = true } }
body = { mode = "{{settings.mode}}", rows = "{{items}}" }
[op.result]
dialect = "index"
ok = "/rows/*/ok == true"
reason = "/rows/*/code"
[op.errors]
code_at = "/error/code"
retry_code = ["LOCKED", 17]

[verify]
method = "GET"
path = "/people/{{lookup.key}}"
clean_when = "/ccpaOptOut == true"

[probe]
method = "GET"
path = "/me"
"#;

fn problems(text: &str) -> Vec<Problem> {
    Manifest::parse(text, "test.toml").err().unwrap_or_default()
}

#[test]
fn a_good_manifest_is_taken_whole() {
    let manifest = manifest(GOOD);
    assert_eq!((manifest.id(), manifest.ops().count(), manifest.has_lookup()), ("example", 1, true));
    assert_eq!(manifest.pace().rates, [(300, 60), (500, 86_400)]);
    assert_eq!((manifest.pace().linger_seconds, manifest.pace().lookup_cache_seconds), (60, 600));
}

/// What stands in [`GOOD`], what stands there instead, the path and a part of the message or hint.
const BROKEN: &[(&str, &str, &str, &str)] = &[
    // Shape.
    ("title = \"Example\"", "titel = \"Example\"", "connector.titel", "did you mean \"title\"?"),
    ("title = \"Example\"", "", "connector.title", "is missing"),
    ("version = 1", "version = 0", "connector.version", "out of range"),
    ("version = 1", "version = \"1\"", "connector.version", "wrong type"),
    ("version = 1", "version = 99999999999", "connector.version", "out of range"),
    ("docs = \"https", "transport = \"smtp\"\ndocs = \"https", "connector.transport", "use one of http, sql, file, s3, sftp, manual"),
    ("[ids.email]", "[ids.e_mail]", "ids.e_mail", "did you mean \"email\"?"),
    ("ok = \"/rows", "okay = \"/rows", "op.0.result.okay", "unknown key"),
    ("dialect = \"index\"", "dialect = \"indx\"", "op.0.result.dialect", "did you mean \"index\"?"),
    ("emit = { key = \"/Id\" }", "emit = 7", "lookup.emit", "wrong type"),
    ("ccpaOptOut = true }", "ccpaOptOut = 2026-11-22 }", "op.0.item.flags.ccpaOptOut", "is a date"),
    ("ccpaOptOut = true }", "ccpaOptOut = inf }", "op.0.item.flags.ccpaOptOut", "JSON does not have"),
    ("method = \"POST\"", "method = \"post\"", "op.0.method", "did you mean \"POST\"?"),
    // The connector.
    ("id = \"example\"", "id = \"Example\"", "connector.id", "use 1 to 64 of a-z"),
    ("title = \"Example\"", "title = \" \"", "connector.title", "empty or too long"),
    ("docs = \"https://", "docs = \"http://", "connector.docs", "https URL"),
    // Hosts.
    ("\"login.example.com\"]", "\"login.example.com/x\"]", "connector.hosts.1", "is not a host"),
    ("\"login.example.com\"]", "\"user@login.example.com\"]", "connector.hosts.1", "is not a host"),
    ("\"login.example.com\"]", "\"login.example.com:0443\"]", "connector.hosts.1", "is not a host"),
    ("\"login.example.com\"]", "\"login.example.com\", \"login.example.com\"]", "connector.hosts.2", "stands twice"),
    ("\"{{settings.instance}}.example.com\"", "\"a{{settings.instance}}.example.com\"", "connector.hosts.0", "not a whole label"),
    ("\"{{settings.instance}}.example.com\"", "\"{{settings.instance}}\"", "connector.hosts.0", "another type"),
    ("\"{{settings.instance}}.example.com\"", "\"{{settings.country}}.example.com\"", "connector.hosts.0", "may be missing"),
    ("\"{{settings.instance}}.example.com\"", "\"{{settings.instanz}}.example.com\"", "connector.hosts.0", "is not declared (did you mean"),
    ("\"{{settings.instance}}.example.com\"", "\"{{settings.instance|lower}}.example.com\"", "connector.hosts.0", "without a pipe"),
    ("\"{{settings.instance}}.example.com\"", "\"{{settings.instance}.example.com\"", "connector.hosts.0", "is not closed"),
    // Settings.
    ("[settings.mode]", "[settings.Mode]", "settings.Mode", "is not a name"),
    ("values = [\"a\", \"b\"]", "", "settings.mode.values", "an enum lists its values"),
    ("pattern = \"[a-z]+\"", "pattern = \"[a-z\"", "settings.instance.pattern", "regular expression"),
    ("pattern = \"[a-z]+\"", "pattern = \"a)|(b\"", "settings.instance.pattern", "regular expression"),
    ("type = \"secret\"\nrequired = true", "type = \"secret\"\ndefault = \"x\"", "settings.secret.default", "a secret has no default"),
    ("default = \"a\"", "default = \"c\"", "settings.mode.default", "is not one of a, b"),
    ("default = \"a\"", "default = \"a\"\nrequired = true", "settings.mode.default", "required and has a default"),
    ("[settings.mode]", "[settings.unused]\ntype = \"int\"\n[settings.mode]", "settings.unused", "is used nowhere"),
    // Auth.
    ("client_id = \"{{settings.client}}\"\n", "", "auth.client_id", "is missing"),
    ("client_id = \"{{settings.client}}\"", "client_id = \"x\"\ntoken = \"{{settings.client}}\"", "auth.token", "does not belong"),
    ("client_secret = \"{{settings.secret}}\"", "client_secret = \"hunter2\"", "auth.client_secret", "a secret stands in the manifest"),
    ("client_secret = \"{{settings.secret}}\"", "client_secret = \"{{settings.client}}\"", "auth.client_secret", "a secret belongs here"),
    ("client_secret = \"{{settings.secret}}\"", "client_secret = \"{{job}}\"", "auth.client_secret", "only settings"),
    ("https://login.example.com/token", "https://evil.example.com/token", "auth.token_url", "declared host"),
    ("https://login.example.com/token", "http://login.example.com/token", "auth.token_url", "https URL"),
    // Limits.
    ("\"500/1d\"", "\"500 a day\"", "limits.rate.1", "is not a rate"),
    ("\"500/1d\"", "\"0/1d\"", "limits.rate.1", "is not a rate"),
    ("\"500/1d\"", "\"500/32d\"", "limits.rate.1", "is not a rate"),
    ("\"500/1d\"", "\"100000001/1d\"", "limits.rate.1", "is not a rate"),
    ("linger = \"60s\"", "linger = \"91d\"", "limits.linger", "is not a time"),
    ("linger = \"60s\"", "linger = \"60\"", "limits.linger", "is not a time"),
    ("honour_headers = [\"x-rate-limit-reset\"]", "honour_headers = [\"a:b\"]", "limits.honour_headers.0", "name of a header"),
    ("batch_items = 100", "batch_items = 10001", "limits.batch_items", "from 1 to 10000"),
    ("batch_items = 100", "batch_bytes = 16777217", "limits.batch_bytes", "from 1 to 16777216"),
    ("batch_items = 100", "ids_per_item = 257", "limits.ids_per_item", "from 1 to 256"),
    // Identifiers.
    ("trim|lower|sha256|hex", "trim|lowr|sha256|hex", "ids.email.variants.0", "did you mean \"lower\"?"),
    ("trim|lower|sha256|hex", "trim|lower|sha256", "ids.email.variants.0", "add |hex or |base64"),
    ("trim|lower|sha256|hex", "trim|hex", "ids.email.variants.0", "`hex` does not take a text"),
    ("[\"trim|lower|sha256|hex\"]", "[\"trim\", \"trim\"]", "ids.email.variants.1", "stands twice"),
    ("emit = { hash = \"{{value}}\" }", "emit = { hash = \"x\" }", "ids.email.emit", "has no {{value}}"),
    ("emit = { hash = \"{{value}}\" }", "hashed = { hash = \"x\" }", "ids.email.hashed", "has no {{value}}"),
    ("[ids.email]", "[ids.maid]\n[ids.email]", "ids.maid", "is used nowhere"),
    // Templates.
    ("rows = \"{{items}}\"", "rows = \"{{item}}\"", "op.0.body", "has no value here"),
    ("rows = \"{{items}}\"", "rows = \"{{itms}}\"", "op.0.body.rows", "did you mean \"items\"?"),
    ("rows = \"{{items}}\"", "rows = \"x {{items}}\"", "op.0.body.rows", "the whole value"),
    ("rows = \"{{items}}\"", "rows = \"{{items\"", "op.0.body.rows", "is not closed"),
    ("rows = \"{{items}}\"", "rows = \"items}}\"", "op.0.body.rows", "closes nothing"),
    ("rows = \"{{items}}\"", "\"{{each}}\" = \"{{items}}\"", "op.0.body.{{each}}", "cannot be a placeholder"),
    ("id = \"{{lookup.key}}\"", "id = \"{{lookup.kee}}\"", "op.0.item", "does not keep"),
    ("id = \"{{lookup.key}}\"", "id = \"{{id.email}}\"", "op.0.item", "needs unit = \"id\""),
    ("id = \"{{lookup.key}}\"", "id = \"{{ids}}\"", "op.0.item", "needs unit = \"person\""),
    ("mode = \"{{settings.mode}}\", rows", "mode = \"{{settings.secret}}\", rows", "op.0.body", "a secret stands outside a header"),
    ("mode = \"{{settings.mode}}\", rows", "mode = \"{{settings.country}}\", rows", "op.0.body", "may be missing"),
    ("mode = \"{{settings.mode}}\", rows", "mode = \"{{settings.mode|sha256}}\", rows", "op.0.body", "ends as bytes"),
    ("mode = \"{{settings.mode}}\", rows", "mode = \"{{at}}\", rows", "op.0.body", "where one person is meant"),
    ("flags = { ccpaOptOut = true }", "flags = { ccpaOptOut = \"{{at}}\" }", "op.0.item", "ends as a time"),
    ("path = \"/lists/{{each}}/update\"", "path = \"lists/{{each}}\"", "op.0.path", "is not a path"),
    ("path = \"/lists/{{each}}/update\"", "path = \"/lists/../{{each}}\"", "op.0.path", "is not a path"),
    ("path = \"/lists/{{each}}/update\"", "path = \"/lists/%2e%2e/{{each}}\"", "op.0.path", "is not a path"),
    ("path = \"/lists/{{each}}/update\"", "path = \"/lists//{{each}}\"", "op.0.path", "is not a path"),
    ("path = \"/lists/{{each}}/update\"", "path = \"/lists/{{each}}?a=b\"", "op.0.path", "is not a path"),
    ("path = \"/lists/{{each}}/update\"", "path = \"/{{settings.lists}}/{{each}}\"", "op.0.path", "a list cannot stand in text"),
    ("headers = { X-Mode", "headers = { Host = \"evil\", X-Mode", "op.0.headers.Host", "that can be set"),
    ("headers = { X-Mode", "headers = { Authorization = \"x\", X-Mode", "op.0.headers.Authorization", "that can be set"),
    ("headers = { X-Mode", "headers = { \"X Y\" = \"x\", X-Mode", "op.0.headers.X Y", "that can be set"),
    ("headers = { X-Mode", "headers = { x-mode = \"x\", X-Mode", "op.0.headers.x-mode", "stands twice"),
    ("X-Mode = \"{{settings.mode}}\"", "X-Mode = \"a\\r\\nb\"", "op.0.headers.X-Mode", "no header has"),
    ("path = \"/find\"", "path = \"/find\"\nhost = \"evil.example.com\"", "lookup.host", "not one of `hosts`"),
    ("path = \"/me\"", "path = \"/me/{{lookup}}\"", "probe.path", "has no value here"),
    ("path = \"/me\"", "path = \"/me\"\nbody = {}", "probe.body", "a GET has no body"),
    ("{{ids.email|soql_list}}", "{{ids.email}}", "lookup.query.q", "a list cannot stand in text"),
    ("Email IN {{ids.email|soql_list}}", "Email = {{id.email}}", "lookup.query.q", "mixes text with somebody's value"),
    ("Email IN {{ids.email|soql_list}}", "all", "lookup", "about whom it asks"),
    (
        "country = \"{{settings.country|default('US')}}\"",
        "a = \"{{id.email}}\", country = \"{{settings.country|default('US')}}\"",
        "lookup",
        "in two ways",
    ),
    ("{{settings.country|default('US')}}", "{{settings.mode|default('US')}}", "lookup.query.country", "optional text setting"),
    ("method = \"GET\"\npath = \"/find\"", "method = \"DELETE\"\npath = \"/find\"", "lookup.method", "only reads"),
    ("method = \"GET\"\npath = \"/people", "method = \"PATCH\"\npath = \"/people", "verify.method", "only reads"),
    ("emit = { key = \"/Id\" }", "emit = { key = \"/Ids/*\" }", "lookup.emit", "a record has one key"),
    ("match = \"/records/*\"", "match = \"records\"", "lookup.match", "begins with a slash"),
    ("absent_when = \"/total == 0\"", "absent_when = \"/total = 0\"", "lookup.absent_when", "one of ==, !=, in, exists"),
    // Ops.
    ("on = \"opt_out\"", "on = \"opt_in\"", "op", "there is no op for opt_out"),
    ("purposes = [\"sale\"]", "purposes = []", "op.0.purposes", "is empty"),
    ("purposes = [\"sale\"]", "purposes = [\"Sale\"]", "op.0.purposes.0", "is not a purpose"),
    ("purposes = [\"sale\"]", "purposes = [\"sale\", \"sale\"]", "op.0.purposes.1", "stands twice"),
    ("purposes = [\"sale\"]", "purposes = [\"*\"]", "op.0.purposes.0", "only a notice or a table"),
    ("method = \"POST\"", "", "op.0.method", "is missing"),
    ("method = \"POST\"", "method = \"GET\"", "op.0.method", "tells nobody anything"),
    ("item = { id = \"{{lookup.key}}\", flags = { ccpaOptOut = true } }\n", "", "op.0.body", "has no value here"),
    ("rows = \"{{items}}\"", "rows = []", "op.0.item", "is never sent"),
    ("id = \"{{lookup.key}}\", flags", "flags", "op.0", "does not say who is meant"),
    ("for_each = \"settings.lists\"", "for_each = \"lists\"", "op.0.for_each", "is not a setting"),
    ("for_each = \"settings.lists\"", "for_each = \"settings.mode\"", "op.0.for_each", "is not a required list"),
    ("for_each = \"settings.lists\"", "group_by = \"country\"", "op.0.group_by", "cannot be grouped by that"),
    ("on = \"opt_out\"\npurposes = [\"sale\"]", "on = \"opt_in\"\npurposes = [\"sale\"]", "op", "there is no op for opt_out"),
    ("[op.result]\n", "[op.resulte]\n", "op.0.resulte", "did you mean \"result\"?"),
    // What an op writes.
    ("writes = \"flags.ccpaOptOut\"", "writes = []", "op.0.writes", "is empty"),
    ("writes = \"flags.ccpaOptOut\"", "writes = \"doNotSell\"", "op.0.writes", "is not a member of item or body"),
    ("writes = \"flags.ccpaOptOut\"", "writes = \"doNotSell\"", "op.0.item", "also sends \"flags.ccpaOptOut\""),
    ("fixed = [\"mode\"]", "", "op.0.body", "also sends \"mode\""),
    ("fixed = [\"mode\"]", "fixed = [\"mode\", \"other\"]", "op.0.fixed.1", "not a constant that is sent"),
    ("ccpaOptOut = true } }", "ccpaOptOut = true }, vip = false }", "op.0.item", "also sends \"vip\""),
    ("ccpaOptOut = true } }", "ccpaOptOut = true }, HasOptedOutOfEmail = true }", "op.0.item", "email_marketing"),
    ("ccpaOptOut = true } }", "ccpaOptOut = true, black-List = true } }", "op.0.item", "\"blacklist\""),
    ("fixed = [\"mode\"]", "fixed = [\"mode\", \"gdprConsent\"]", "op.0.fixed.1", "not a constant"),
    ("ccpaOptOut = true } }", "ccpaOptOut = true }, gdpr_consent = false }", "op.0.item", "\"gdpr\""),
    ("mode = \"{{settings.mode}}\", rows", "mode = \"unsubscribe\", rows", "op.0.body", "\"subscri\""),
    ("\"/lists/{{each}}/update\"", "\"/lists/{{each}}/Un-subscribe\"", "op.0.path", "\"subscri\""),
    ("headers = { X-Mode", "query = { newsletter = \"off\" }\nheaders = { X-Mode", "op.0.query", "\"newsletter\""),
    ("headers = { X-Mode", "query = { action = \"unsubscribe\" }\nheaders = { X-Mode", "op.0.query", "\"subscri\""),
    ("headers = { X-Mode", "query = { extra = \"1\" }\nheaders = { X-Mode", "op.0.query", "also sends \"query.extra\""),
    ("ccpaOptOut = true } }", "ccpaOptOut = true }, subscriptions = [] }", "op.0.item", "\"subscri\""),
    ("ccpaOptOut = true } }", "ccpaOptOut = true }, tags = {} }", "op.0.item", "also sends \"tags\""),
    ("rows = \"{{items}}\" }", "rows = \"{{items}}\", channels = [] }", "op.0.body", "also sends \"channels\""),
    ("ccpaOptOut = true } }", "ccpaOptOut = true, Opt_Out_Email = true } }", "op.0.item", "\"optoutemail\""),
    ("ccpaOptOut = true } }", "ccpaOptOut = true, emailOptedOut = true } }", "op.0.item", "\"emailoptedout\""),
    ("ccpaOptOut = true } }", "ccpaOptOut = true, mail_opt_out = true } }", "op.0.item", "\"mailoptout\""),
    ("ccpaOptOut = true } }", "ccpaOptOut = true, OptOutSMS = true } }", "op.0.item", "\"optoutsms\""),
    ("ccpaOptOut = true } }", "ccpaOptOut = true, is_unsub = true } }", "op.0.item", "\"unsub\""),
    ("\"/lists/{{each}}/update\"", "\"/lists/{{each}}/profile-suppression-bulk\"", "op.0.path", "\"profilesuppression\""),
    ("\"/lists/{{each}}/update\"", "\"/lists/{{each}}/un%73ub\"", "op.0.path", "\"unsub\""),
    ("emit = { hash = \"{{value}}\" }", "emit = { hash = \"{{value}}\", list = \"newsletter\" }", "ids.email.emit", "\"newsletter\""),
    ("emit = { hash = \"{{value}}\" }", "hashed = { subscribed = false, id = \"{{value}}\" }", "ids.email.hashed", "\"subscri\""),
    ("emit = { hash = \"{{value}}\" }", "name = \"unsubscribed\"", "ids.email.name", "\"subscri\""),
    ("headers = { X-Mode", "headers = { X-Action = \"unsubscribe\", X-Mode", "op.0.headers", "\"subscri\""),
    ("path = \"/find\"", "path = \"/newsletter/remove\"", "lookup.path", "\"newsletter\""),
    ("default('US')", "default('unsubscribe')", "lookup.query", "\"subscri\""),
    ("path = \"/people/{{lookup.key}}\"", "path = \"/people/{{lookup.key}}/unsubscribe\"", "verify.path", "\"subscri\""),
    ("path = \"/me\"", "path = \"/me\"\nbody = { emailConsent = false }", "probe.body", "\"emailconsent\""),
    ("values = [\"a\", \"b\"]\ndefault = \"a\"", "values = [\"a\", \"unsub\"]\ndefault = \"a\"", "settings.mode.values", "\"unsub\""),
    ("values = [\"a\", \"b\"]\ndefault = \"a\"", "values = [\"unsub\"]\ndefault = \"unsub\"", "settings.mode.default", "\"unsub\""),
    ("[probe]", "[dry_run]\nbody_set = { blacklist = true }\n[probe]", "dry_run.body_set.blacklist", "\"blacklist\""),
    ("method = \"GET\"\npath = \"/me\"", "method = \"PATCH\"\npath = \"/me\"", "probe.method", "only reads"),
    // What says something else than the method and the path.
    ("headers = { X-Mode", "headers = { X-HTTP-Method-Override = \"PATCH\", X-Mode", "op.0.headers.x-http-method-override", "changes"),
    ("headers = { X-Mode", "headers = { X_Method_Override = \"PATCH\", X-Mode", "op.0.headers.x_method_override", "changes"),
    ("headers = { X-Mode", "headers = { X-Original-URL = \"/x\", X-Mode", "op.0.headers.x-original-url", "changes"),
    ("headers = { X-Mode", "query = { _method = \"PATCH\" }\nheaders = { X-Mode", "op.0.query._method", "changes"),
    ("path = \"/me\"", "path = \"/me\"\nquery = { _HttpMethod = \"PATCH\" }", "probe.query._HttpMethod", "changes"),
    ("rows = \"{{items}}\" }", "rows = \"{{items}}\", _method = \"PUT\" }", "op.0.body", "changes"),
    // Deletion.
    ("rows = \"{{items}}\" }", "rows = \"{{items}}\", RequestType = \"Delete\" }", "op.0.body", "\"delete\""),
    ("\"/lists/{{each}}/update\"", "\"/users/delete\"", "op.0.path", "\"delete\""),
    ("\"/lists/{{each}}/update\"", "\"/gone/for%67et\"", "op.0.path", "\"forget\""),
    ("ccpaOptOut = true } }", "ccpaOptOut = true, purgeAll = true } }", "op.0.item", "\"purge\""),
    ("headers = { X-Mode", "query = { do = \"erase\" }\nheaders = { X-Mode", "op.0.query", "\"erase\""),
    ("headers = { X-Mode", "headers = { X-Kind = \"deletion\", X-Mode", "op.0.headers", "\"deletion\""),
    ("values = [\"a\", \"b\"]", "values = [\"a\", \"delete\"]", "settings.mode.values", "\"delete\""),
    ("method = \"GET\"\npath = \"/find\"", "method = \"POST\"\npath = \"/users/delete\"", "lookup.path", "\"delete\""),
    ("method = \"POST\"", "method = \"DELETE\"", "op.0.method", "from which list"),
    // How answers are read.
    ("ok = \"/rows/*/ok == true\"", "", "op.0.result.ok", "is missing"),
    ("ok = \"/rows/*/ok == true\"", "ok = \"/ok == true\"", "op.0.result.ok", "has no * for the rows"),
    ("reason = \"/rows/*/code\"", "reason = \"/other/*/code\"", "op.0.result.reason", "walks other rows"),
    ("reason = \"/rows/*/code\"", "absent = \"/other/*/code == 1\"", "op.0.result.absent", "walks other rows"),
    ("reason = \"/rows/*/code\"", "failed = \"/n\"", "op.0.result.failed", "does not belong to this dialect"),
    ("reason = \"/rows/*/code\"", "absent_status = [404]", "op.0.result.absent_status", "speaks for all items"),
    ("reason = \"/rows/*/code\"", "ok_status = [200, 302]", "op.0.result.ok_status", "not good"),
    ("reason = \"/rows/*/code\"", "ok_status = [99]", "op.0.result.ok_status", "no status"),
    ("dialect = \"index\"\nok = \"/rows/*/ok == true\"\nreason = \"/rows/*/code\"", "dialect = \"blind\"", "op.0.ceiling", "blind API"),
    ("retry_code = [\"LOCKED\", 17]", "retry_status = [200]", "op.0.errors.retry_status", "good answer"),
    ("code_at = \"/error/code\"", "code_at = \"error\"", "op.0.errors.code_at", "begins with a slash"),
    ("clean_when = \"/ccpaOptOut == true\"", "clean_when = \"/ccpaOptOut == \"", "verify.clean_when", "is missing"),
    ("[probe]", "[dry_run]\n[probe]", "dry_run", "sets nothing"),
    ("[probe]", "[dry_run]\nbody_set = { a = \"{{at}}\" }\n[probe]", "dry_run.body_set.a", "has no value here"),
];

#[test]
fn every_rule_of_a_manifest_can_be_broken() {
    let mut kept = Vec::new();
    for (good, broken, path, part) in BROKEN {
        assert!(GOOD.contains(good), "not in the good one: {good}");
        let found = problems(&GOOD.replacen(good, broken, 1));
        let Some(problem) = found.iter().find(|problem| problem.path == *path && problem.to_string().contains(part)) else {
            let listed = found.iter().map(|problem| format!("\n    {problem}")).collect::<Vec<_>>().concat();
            kept.push(format!("\n{broken:?} should be refused at {path} for {part:?}:{listed}"));
            continue;
        };
        assert!(problem.line > 0 && problem.column > 0 && !problem.hint.is_empty(), "{problem}");
        assert!(problem.to_string().starts_with(&format!("test.toml:{}:{}: {path}: ", problem.line, problem.column)), "{problem}");
    }
    assert!(kept.is_empty(), "{}", kept.concat());
}

#[test]
fn a_problem_names_its_line_and_column() {
    for (good, broken, line, column) in [
        ("version = 1", "version = \"1\"", 4, 11),
        ("title = \"Example\"", "titel = \"Example\"", 5, 1),
        ("clean_when = \"/ccpaOptOut == true\"", "clean_when = \"/ccpaOptOut = true\"", 79, 27),
        ("trim|lower|sha256|hex", "trim|lowr|sha256|hex", 42, 19),
        ("rows = \"{{items}}\"", "rows = \"{{itms}}\"", 67, 48),
        ("[settings.mode]", "[settings.unused]\ntype = \"int\"\n[settings.mode]", 24, 11),
        ("method = \"GET\"\npath = \"/me\"", "method = \"GET\"", 81, 1),
    ] {
        let found = problems(&GOOD.replacen(good, broken, 1));
        let places: Vec<_> = found.iter().map(|problem| (problem.line, problem.column)).collect();
        assert!(places.contains(&(line, column)), "{broken}: {places:?} {found:?}");
    }
}

#[test]
fn all_problems_are_said_at_once() {
    let text = GOOD.replace("id = \"example\"", "id = \"E\"").replace("linger = \"60s\"", "linger = \"1y\"").replace("/me", "me");
    let paths: Vec<_> = problems(&text).into_iter().map(|problem| problem.path).collect();
    assert_eq!(paths, ["connector.id", "limits.linger", "probe.path"]);
    let text = GOOD.replace("version = 1", "version = true").replace("[probe]", "[prob]").replace("title =", "titel =");
    let paths: Vec<_> = problems(&text).into_iter().map(|problem| problem.path).collect();
    for path in ["connector.version", "connector.titel", "connector.title", "prob"] {
        assert!(paths.iter().any(|known| known == path), "{path} is not in {paths:?}");
    }
    let syntax = problems("[connector]\nid = \nversion = = 1\n");
    assert!(syntax.len() >= 2 && syntax.iter().all(|problem| problem.message.starts_with("not valid TOML")), "{syntax:?}");
}

/// An op of a purpose of the business's own may write what an opt-out of sale may not.
#[test]
fn mail_belongs_to_the_purposes_of_mail() {
    let mail = GOOD.replace("ccpaOptOut = true }", "HasOptedOutOfEmail = true }").replace("flags.ccpaOptOut", "flags.HasOptedOutOfEmail");
    assert!(!problems(&mail).is_empty());
    assert_eq!(problems(&mail.replace("purposes = [\"sale\"]", "purposes = [\"email_marketing\"]")), []);
    assert!(!problems(&mail.replace("purposes = [\"sale\"]", "purposes = [\"email_marketing\", \"sale\"]")).is_empty());
    assert!(!problems(&mail.replace("purposes = [\"sale\"]", "purposes = [\"targeted_advertising\"]")).is_empty());
}

/// A removal says from which list; all else that deletes has the effect that an operator approves.
#[test]
fn what_deletes_says_so() {
    let with = |effect: &str, path: &str, more: &str| {
        let text = format!(
            "[connector]\nid = \"a\"\nversion = 1\ntitle = \"a\"\nhosts = [\"a.example\"]\n[settings.lists]\ntype = \"list\"\nrequired = true\n\
             [ids.email]\n[[op]]\non = \"opt_out\"\npurposes = [\"sale\"]\nwrites = \"list\"\neffect = \"{effect}\"\nceiling = \"accepted\"\n\
             method = \"DELETE\"\npath = \"{path}\"\nheaders = {{ x-lists = \"1\" }}\nunit = \"id\"\n{more}\n[op.result]\ndialect = \"status\"\n"
        );
        let text = if more.is_empty() { text.replace("[settings.lists]\ntype = \"list\"\nrequired = true\n", "") } else { text };
        problems(&text).into_iter().map(|problem| problem.path).collect::<Vec<_>>()
    };
    let each = "for_each = \"settings.lists\"";
    for (effect, path, more, expected) in [
        ("delete", "/people/{{id.email}}", "", vec![]),
        ("delete", "/people/{{id.email}}/erase", "", vec![]),
        ("remove", "/people/{{id.email}}", "", vec!["op.0.method"]),
        ("suppress", "/lists/7/{{id.email}}", "", vec!["op.0.method"]),
        ("remove", "/lists/7/{{id.email}}", "", vec![]),
        ("remove", "/v25.0/{{each}}/{{id.email}}", each, vec![]),
        ("remove", "/lists/7/{{id.email}}/erase", "", vec!["op.0.path"]),
        ("remove", "/data/deletion-optout/lists/{{id.email}}", "", vec![]),
    ] {
        assert_eq!(with(effect, path, more), expected, "{effect} {path}");
    }
}

/// Each dialect with and without what proves its ceiling.
#[test]
fn no_manifest_claims_more_than_its_api_proves() {
    let with = |ceiling: &str, result: &str, more: &str| {
        let text = format!(
            "[connector]\nid = \"a\"\nversion = 1\ntitle = \"a\"\nhosts = [\"a.example\"]\n[ids.email]\n[[op]]\non = \"opt_out\"\npurposes = [\"sale\"]\n\
             writes = \"list\"\neffect = \"remove\"\nceiling = \"{ceiling}\"\nmethod = \"DELETE\"\npath = \"/lists/a/{{{{id.email}}}}\"\nunit = \"id\"\n\
             [op.result]\n{result}\n{more}\n"
        );
        problems(&text).into_iter().map(|problem| format!("{}: {}", problem.path, problem.message)).collect::<Vec<_>>().join("; ")
    };
    let poll = "[op.poll]\npath = \"/jobs/{{job}}\"\ndone = \"/done == true\"\nevery = \"1m\"\ngive_up = \"1h\"";
    let verify = "[verify]\nmethod = \"GET\"\npath = \"/a/{{id.email}}\"\nclean_when = \"/out == true\"";
    for (ceiling, result, more, expected) in [
        ("accepted", "dialect = \"blind\"", "", ""),
        ("applied", "dialect = \"blind\"", "", "op.0.ceiling: is above what a blind API proves"),
        ("verified", "dialect = \"blind\"", verify, "op.0.ceiling: is above what a blind API proves"),
        ("applied", "dialect = \"status\"", "", ""),
        ("verified", "dialect = \"status\"", "", "op.0.ceiling: nobody reads back what was told"),
        ("verified", "dialect = \"status\"", verify, ""),
        ("accepted", "dialect = \"job\"\nkey = \"/id\"", "", ""),
        ("applied", "dialect = \"job\"\nkey = \"/id\"", "", "op.0.ceiling: nobody asks what became of the job"),
        ("applied", "dialect = \"job\"\nkey = \"/id\"", poll, ""),
        ("accepted", "dialect = \"job\"\nkey = \"/id\"", poll, "op.0.ceiling: is below what a finished job proves"),
        ("applied", "dialect = \"status\"", poll, "op.0.poll: there is no job to ask about"),
        ("applied", "dialect = \"job\"\nkey = \"/id\"", &poll.replace("{{job}}", "all"), "op.0.poll: does not say which job it asks about"),
        ("applied", "dialect = \"job\"\nkey = \"/id\"", &poll.replace("\"1m\"", "\"2h\""), "op.0.poll.every: is longer than give_up"),
        ("accepted", "dialect = \"body-flag\"\nok = \"/ok == true\"", "", ""),
        ("accepted", "dialect = \"list-by-key\"\nfailed = \"/f/*\"\nkey = \"/n\"\nkey_base = 0", "", ""),
        (
            "accepted",
            "dialect = \"list_by_key\"\nfailed = \"/f/*\"\nkey = \"/n\"\nkey_base = 2",
            "",
            "op.0.result.key_base: is out of range",
        ),
        ("accepted", "dialect = \"list_by_key\"\nfailed = \"/f/*\"\nkey = \"/n\"", "", "op.0.result.key: can be read in no way, or in two"),
        (
            "accepted",
            "dialect = \"list_by_key\"\nfailed = \"/f\"\nkey = \"/n\"\nkey_base = 0",
            "",
            "op.0.result.failed: is not a list of rows",
        ),
        ("accepted", "dialect = \"count\"", "", "op.0.result.failed: is missing"),
    ] {
        assert_eq!(with(ceiling, result, more), expected, "{ceiling} {result} {more}");
    }
}

/// What `[verify]` reads back is the opt-out, so it proves nothing of an opt-in.
#[test]
fn an_opt_in_is_never_verified() {
    let start = GOOD.find("[[op]]").expect("an op");
    let end = GOOD.find("[verify]").expect("an end");
    let opt_in = GOOD[start..end].replace("on = \"opt_out\"", "on = \"opt_in\"");
    let both = |op: &str| problems(&GOOD.replace("[verify]", &format!("{op}[verify]")));
    assert_eq!(both(&opt_in.replace("\"verified\"", "\"applied\"")), []);
    let found = both(&opt_in);
    assert!(matches!(&found[..], [problem] if problem.path == "op.1.ceiling" && problem.message.contains("read back")), "{found:?}");
}

/// With other transports an op is its rows.
#[test]
fn a_file_has_rows_and_no_requests() {
    let text = "[connector]\nid = \"a\"\nversion = 1\ntitle = \"a\"\ntransport = \"sftp\"\n[ids.email]\n[[op]]\non = \"opt_out\"\npurposes = [\"*\"]\n\
                writes = [\"state\", \"purposes\"]\neffect = \"table\"\nceiling = \"accepted\"\nunit = \"id\"\n\
                item = { email = \"{{id.email}}\", state = \"{{status}}\", purposes = \"{{purposes}}\" }\n";
    let without_settings = text;
    let missing: Vec<_> = problems(text).into_iter().map(|problem| (problem.path, problem.message)).collect();
    assert_eq!(missing.len(), 9, "{missing:?}");
    assert!(missing.contains(&("settings.host_key".to_owned(), "is missing".to_owned())), "{missing:?}");
    let setting = |(name, kind): &(&str, &str)| match *kind {
        "enum" => format!("[settings.{name}]\ntype = \"enum\"\nvalues = [\"a\"]\nrequired = true\n"),
        kind => format!("[settings.{name}]\ntype = \"{kind}\"\nrequired = true\n"),
    };
    let files = [("format", "enum"), ("values", "enum"), ("snapshot_every", "string")];
    let own = |transport: &str| match transport {
        "sql" => vec![("url", "secret"), ("table", "string")],
        "file" => [&files[..], &[("directory", "path"), ("keep_days", "int")]].concat(),
        "s3" => {
            let texts = ["endpoint", "bucket", "region", "access_key"].map(|name| (name, "string"));
            [&files[..], &texts, &[("secret_key", "secret")]].concat()
        }
        "sftp" => {
            let texts = ["host", "host_key", "username"].map(|name| (name, "string"));
            [&files[..], &texts, &[("port", "int"), ("password", "secret"), ("directory", "path"), ("keep_days", "int")]].concat()
        }
        _ => Vec::new(),
    };
    let with_settings = |transport: &str| {
        let settings: String = own(transport).iter().map(setting).collect();
        without_settings.replace("\"sftp\"", &format!("\"{transport}\"")).replace("[ids.email]", &format!("{settings}[ids.email]"))
    };
    let text = &with_settings("sftp");
    assert_eq!(problems(text), []);
    let other_type = text.replace("[settings.port]\ntype = \"int\"", "[settings.port]\ntype = \"string\"");
    assert_eq!(problems(&other_type)[0].path, "settings.port");
    let may_be_missing = text.replace("[settings.port]\ntype = \"int\"\nrequired = true", "[settings.port]\ntype = \"int\"");
    assert_eq!(problems(&may_be_missing)[0].path, "settings.port");
    for (transport, ceiling, is_taken) in [
        ("sftp", "applied", false),
        ("file", "verified", false),
        ("s3", "applied", false),
        ("manual", "applied", false),
        ("manual", "accepted", true),
        ("sql", "applied", true),
        ("sql", "verified", true),
    ] {
        let claims = with_settings(transport).replace("\"accepted\"", &format!("\"{ceiling}\""));
        let found: Vec<_> = problems(&claims).into_iter().map(|problem| problem.path).collect();
        assert_eq!(found.is_empty(), is_taken, "{transport} {ceiling}: {found:?}");
        assert!(is_taken || found == ["op.0.ceiling"], "{found:?}");
    }
    let with_path = text.replace("unit = ", "path = \"/a\"\nunit = ");
    assert_eq!(problems(&with_path)[0].path, "op.0.path");
    let without_item = text.split("item =").next().expect("a start");
    assert!(problems(without_item).iter().any(|problem| problem.path == "op.0.item"));
}

#[test]
fn what_is_too_much_is_refused() {
    let many = |what: &str, count: usize| (0..count).map(|number| what.replace("{n}", &number.to_string())).collect::<Vec<_>>();
    let op = GOOD[GOOD.find("[[op]]").expect("an op")..GOOD.find("[verify]").expect("an end")].to_owned();
    let settings = |count| {
        let names = many("[settings.s{n}]\ntype = \"int\"\ndefault = 1\n", count).concat();
        let query = many("q{n} = \"{{settings.s{n}}}\"", count).join(", ");
        GOOD.replace("[auth]", &format!("{names}[auth]")).replace("path = \"/me\"", &format!("path = \"/me\"\nquery = {{ {query} }}"))
    };
    let hosts =
        |count| GOOD.replace("\"login.example.com\"]", &format!("\"login.example.com\", {}]", many("\"h{n}.example\"", count).join(", ")));
    let variants = |count: usize| {
        let pipe = |number: usize| format!("\"trim{}|sha256|{}\"", "|trim".repeat(number % 5), if number < 5 { "hex" } else { "base64" });
        GOOD.replace("[\"trim|lower|sha256|hex\"]", &format!("[{}]", (0..count).map(pipe).collect::<Vec<_>>().join(", ")))
    };
    let rates = |count| GOOD.replace("\"300/1m\", \"500/1d\"", &many("\"{n}0/1m\"", count + 1)[1..].join(", "));
    let rate = |calls: u32, seconds: u64| GOOD.replace("\"500/1d\"", &format!("\"{calls}/{seconds}s\""));
    let long = |length: usize| {
        GOOD.replace("clean_when = \"/ccpaOptOut == true\"", &format!("clean_when = \"/{} exists\"", "x".repeat(length - 8)))
    };
    let title = |length: usize| GOOD.replace("title = \"Example\"", &format!("title = \"{}\"", "x".repeat(length)));
    let padded = |length: usize| format!("{GOOD}#{}\n", "x".repeat(length - GOOD.len() - 2));
    for (at_limit, above, part) in [
        (settings(SETTINGS_MAX - 6), settings(SETTINGS_MAX - 5), "there are 65"),
        (hosts(HOSTS_MAX - 2), hosts(HOSTS_MAX - 1), "there are 17"),
        (
            GOOD.replace("[verify]", &format!("{}[verify]", op.repeat(OPS_MAX - 1))),
            GOOD.replace("[verify]", &format!("{}[verify]", op.repeat(OPS_MAX))),
            "there are 33",
        ),
        (
            GOOD.replace("batch_items = 100", &format!("batch_items = {BATCH_ITEMS_MAX}")),
            GOOD.replace("batch_items = 100", &format!("batch_items = {}", BATCH_ITEMS_MAX + 1)),
            "is out of range",
        ),
        (
            GOOD.replace("linger =", &format!("concurrency = {CONCURRENCY_MAX}\nlinger =")),
            GOOD.replace("linger =", &format!("concurrency = {}\nlinger =", CONCURRENCY_MAX + 1)),
            "is out of range",
        ),
        (rates(RATES_MAX), rates(RATES_MAX + 1), "there are 5"),
        (rate(RATE_CALLS_MAX, 1), rate(RATE_CALLS_MAX + 1, 1), "is not a rate"),
        (rate(1, RATE_WINDOW_SECONDS_MAX), rate(1, RATE_WINDOW_SECONDS_MAX + 1), "is not a rate"),
        (variants(VARIANTS_MAX), variants(VARIANTS_MAX + 1), "there are 9"),
        (long(EXPRESSION_BYTES_MAX), long(EXPRESSION_BYTES_MAX + 1), "has more than 1024 bytes"),
        (title(TITLE_BYTES_MAX), title(TITLE_BYTES_MAX + 1), "too long"),
        (
            GOOD.replace("settings.mode", &format!("settings.m{}", "o".repeat(NAME_BYTES_MAX - 1))),
            GOOD.replace("settings.mode", &format!("settings.m{}", "o".repeat(NAME_BYTES_MAX))),
            "is not a name",
        ),
        (padded(MANIFEST_BYTES_MAX), padded(MANIFEST_BYTES_MAX + 1), "has more than 262144 bytes"),
    ] {
        let below = problems(&at_limit);
        assert!(below.is_empty(), "{part}: {}", below.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"));
        let found = problems(&above);
        assert!(found.iter().any(|problem| problem.message.contains(part)), "{part}: {found:?}");
    }
    let unknown: String = many("key{n} = 1\n", PROBLEMS_MAX + 5).concat();
    assert_eq!(problems(&unknown).len(), PROBLEMS_MAX);
    let shown = problems(&GOOD.replace("id = \"example\"", &format!("id = \"{}\"", "E".repeat(500))));
    assert!(shown[0].message.len() < SHOWN_CHARS_MAX + 30, "{}", shown[0]);
}
