use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

use desist_proof::note::{Algorithm, Signer};
use proptest::prelude::*;
use toml::de::{DeTable, DeValue};

use super::{
    docs::{object, schema},
    error::{FIELDS, did_you_mean, header},
    *,
};
use crate::limits::{
    CUSTOM_FIELD_CHARS_MAX, CUSTOM_FIELD_LABEL_BYTES_MAX, CUSTOM_FIELD_NAME_BYTES_MAX, CUSTOM_FIELDS_SEARCHABLE_MAX,
    DESTINATION_ID_BYTES_MAX, DESTINATION_LINGER_MAX, DESTINATION_TIMEOUT_MAX, ENUMERATION_VALUE_BYTES_MAX, ENUMERATION_VALUES_MAX,
    ERROR_VALUE_CHARS_MAX, PERIOD_SECONDS_MAX, PURPOSES_MAX, TRUSTED_PROXIES_MAX, URL_BYTES_MAX, WITNESSES_MAX,
};

/// A file with one good destination, and with more keys for it.
fn webhook(more: &str, settings: &str) -> String {
    format!("[[destinations]]\nid = \"crm\"\nconnector = \"webhook\"\nclass = \"internal\"\n{more}[destinations.settings]\n{settings}")
}

/// The settings of a webhook.
const SETTINGS: &str = "host = \"hooks.example\"\nsecret = { env = \"DESIST_TEST_NOT_SET\" }\n";

/// A broken file of each kind.
const BROKEN: &[(&str, &str)] = &[
    ("not toml", "this is not toml"),
    ("unclosed string", "[business]\nname = \"Acme\n"),
    ("unquoted string", "[campaign]\ncompat = adobe\n"),
    ("unclosed table", "[campaign\ncompat = \"adobe\"\n"),
    ("key without value", "[policy]\napi_opt_in =\n"),
    ("same key twice", "[policy]\napi_opt_in = \"own\"\napi_opt_in = \"refuse\"\n"),
    ("same table twice", "[policy]\n\n[server]\n\n[policy]\n"),
    ("wrong quotes", "[business]\nname = \u{201c}Acme\u{201d}\n"),
    ("colon for equals", "[business]\nname: \"Acme\"\n"),
    ("unknown table", "[polcy]\napi_opt_in = \"own\"\n"),
    ("unknown table, far from any", "[kubernetes]\nreplicas = 3\n"),
    ("unknown key", "\n\n[policy]\napi_optin = \"own\"\n"),
    ("key of another table", "[server]\napi_opt_in = \"own\"\n"),
    ("key before its table", "compat = \"adobe\"\n"),
    ("table inside another", "[server]\n[server.limits]\nrequests_per_minute_per_key = 5\n"),
    ("unknown key of a site", "[[sites]]\nid = \"a\"\nurl = \"https://a.example\"\ntitle = \"A\"\n"),
    ("unknown key in an inline table", "[server]\npublic_tls = { cert = \"c\", keys = \"k\" }\n"),
    ("unknown compat", "[campaign]\ncompat = \"abode\"\n"),
    ("unknown policy", "# who decides\n[policy]\n  api_opt_in = \"always\" # no\n"),
    ("policy of the wrong type", "[policy]\napi_opt_in = true\n"),
    ("table of the wrong type", "policy = \"own\"\n"),
    ("list of tables for a table", "[[policy]]\napi_opt_in = \"own\"\n"),
    ("values in order for a table", "policy = [\"own\"]\n"),
    ("table for a value", "[policy]\napi_opt_in = { own = true }\n"),
    ("list for a value", "[business]\nname = [\"Acme\"]\n"),
    ("date for a value", "[business]\nname = 2026-01-01\n"),
    ("values in order for a site", "sites = [[\"a\", \"https://a.example\"]]\n"),
    ("list for TLS", "[server]\npublic_tls = [\"a.crt\", \"a.key\"]\n"),
    ("list for a path", "[server.public_tls]\ncert = [\"a.crt\"]\nkey = \"a.key\"\n"),
    ("table for a list of tables", "[sites]\nid = \"shop\"\n"),
    ("list of strings for tables", "sites = [\"https://a.example\"]\n"),
    ("empty name", "[business]\nname = \" \"\n"),
    ("number as name", "[business]\nname = 5\n"),
    ("unknown zone", "[business]\ntime_zone = \"America/Los_Angles\"\n"),
    ("zone by abbreviation", "[business]\ntime_zone = \"PDT\"\n"),
    ("site without url", "[[sites]]\nid = \"shop\"\n"),
    ("site without id", "[[sites]]\nurl = \"https://shop.example\"\n"),
    ("site id in capitals", "[[sites]]\nid = \"Shop\"\nurl = \"https://shop.example\"\n"),
    ("site id twice", "[[sites]]\nid = \"a\"\nurl = \"https://a.example\"\n[[sites]]\nid = \"a\"\nurl = \"https://b.example\"\n"),
    ("site without scheme", "[[sites]]\nid = \"a\"\nurl = \"shop.example\"\n"),
    ("site with another scheme", "[[sites]]\nid = \"a\"\nurl = \"ftp://shop.example\"\n"),
    ("site with a query", "[[sites]]\nid = \"a\"\nurl = \"https://shop.example/?a=b\"\n"),
    ("site with a user", "[[sites]]\nid = \"a\"\nurl = \"https://me@shop.example\"\n"),
    ("site with a bad port", "[[sites]]\nid = \"a\"\nurl = \"https://shop.example:99999\"\n"),
    ("site with a bad host", "[[sites]]\nid = \"a\"\nurl = \"https://shop..example\"\n"),
    ("site outside ASCII", "[[sites]]\nid = \"a\"\nurl = \"https://b\u{fc}cher.example\"\n"),
    ("unknown device kind", "[[sites]]\nid = \"a\"\nurl = \"https://a.example\"\ndevice_identifiers = [\"cookie_id\", \"cookies\"]\n"),
    ("device kind twice", "[[sites]]\nid = \"a\"\nurl = \"https://a.example\"\ndevice_identifiers = [\"maid\", \"maid\"]\n"),
    ("purpose without model", "[[purposes]]\nname = \"email_marketing\"\n"),
    ("unknown model", "[[purposes]]\nname = \"email_marketing\"\nmodel = \"optout\"\n"),
    ("purpose in camel case", "[[purposes]]\nname = \"emailMarketing\"\nmodel = \"opt_out\"\n"),
    ("built-in purpose", "[[purposes]]\nname = \"sale\"\nmodel = \"opt_out\"\n"),
    ("purpose twice", "[[purposes]]\nname = \"ads\"\nmodel = \"opt_out\"\n\n[[purposes]]\nname = \"ads\"\nmodel = \"opt_in\"\n"),
    ("witness without key", "[[witnesses]]\nurl = \"https://w.example\"\n"),
    (
        "witness over http",
        "[[witnesses]]\nurl = \"http://w.example\"\nkey = \"witness.example/w1+0ad7d35e+BIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c\"\n",
    ),
    (
        "key of a log",
        "[[witnesses]]\nurl = \"https://w.example\"\nkey = \"log.example+35de1f90+AYE5dw6ofRdfVqNUZsNMfszLjYqRtO43ol32D1uPybOU\"\n",
    ),
    ("no key", "[[witnesses]]\nurl = \"https://w.example\"\nkey = \"w.example+1234\"\n"),
    (
        "witness twice",
        "[[witnesses]]\nurl = \"https://w.example\"\nkey = \"witness.example/w1+0ad7d35e+BIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c\"\n[[witnesses]]\nurl = \"https://v.example\"\nkey = \"witness.example/w1+0ad7d35e+BIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c\"\n",
    ),
    ("alerts without secret", "[alerts]\nurl = \"https://a.example\"\n"),
    ("alerts without url", "[alerts]\nsecret = { env = \"A\" }\n"),
    ("alerts over http", "[alerts]\nurl = \"http://a.example\"\nsecret = { env = \"A\" }\n"),
    ("alerts with a query", "[alerts]\nurl = \"https://a.example/?token=b\"\nsecret = { env = \"A\" }\n"),
    ("inline secret", "[alerts]\nurl = \"https://a.example\"\nsecret = \"whsec_HIDDENHIDDEN\"\n"),
    ("inline secret of another form", "[alerts]\nurl = \"https://a.example\"\nsecret = \"HIDDEN\"\n"),
    ("inline secret in a list", "[alerts]\nsecret = [\"HIDDEN\"]\n"),
    ("inline secret without quotes", "[alerts]\nsecret = HIDDEN\n"),
    ("inline secret with a colon", "[alerts]\nsecret: \"HIDDEN\"\n"),
    ("secret as value", "[alerts]\nurl = \"https://a.example\"\nsecret = { value = \"HIDDEN\" }\n"),
    ("secret as the name of a variable", "[alerts]\nurl = \"https://a.example\"\nsecret = { env = \"HIDDENz\" }\n"),
    ("secret as the name of a file", "[alerts]\nurl = \"https://a.example\"\nsecret = { file = \"whsec_HIDDEN\" }\n"),
    ("secret at two places", "[alerts]\nurl = \"https://a.example\"\nsecret = { env = \"HIDDEN\", file = \"b\" }\n"),
    ("secret nowhere", "[alerts]\nurl = \"https://a.example\"\nsecret = {}\n"),
    ("number as the name of a variable", "[alerts]\nurl = \"https://a.example\"\nsecret = { env = 5 }\n"),
    ("secret under another key", "[alerts]\nurl = \"whsec_HIDDEN\"\nsecret = { env = \"A\" }\n"),
    ("unknown key of alerts", "[alerts]\nsecrets = { env = \"A\" }\n"),
    ("list for alerts", "[[alerts]]\nurl = \"https://a.example\"\n"),
    ("destination without id", "[[destinations]]\nconnector = \"webhook\"\nclass = \"internal\"\n"),
    ("destination without class", "[[destinations]]\nid = \"a\"\nconnector = \"webhook\"\n"),
    ("destination without connector", "[[destinations]]\nid = \"a\"\nclass = \"internal\"\n"),
    ("destination in capitals", "[[destinations]]\nid = \"CRM\"\nconnector = \"webhook\"\nclass = \"internal\"\n"),
    ("unknown class", "[[destinations]]\nid = \"a\"\nconnector = \"webhook\"\nclass = \"thirdparty\"\n"),
    ("unknown connector", "[[destinations]]\nid = \"a\"\nconnector = \"web-hook\"\nclass = \"internal\"\n"),
    ("unknown connector, far from any", "[[destinations]]\nid = \"a\"\nconnector = \"kubernetes\"\nclass = \"internal\"\n"),
    ("connector and manifest", "[[destinations]]\nid = \"a\"\nconnector = \"webhook\"\nmanifest = \"a.toml\"\nclass = \"internal\"\n"),
    ("one table for destinations", "[destinations]\nid = \"a\"\n"),
    ("names for destinations", "destinations = [\"crm\"]\n"),
    ("unknown key of a destination", "[[destinations]]\nid = \"a\"\nconector = \"webhook\"\n"),
    ("token outside the settings", "[[destinations]]\nid = \"a\"\nsecret = \"HIDDEN\"\n"),
    ("address without port", "[server]\npublic = \"0.0.0.0\"\n"),
    ("address by name", "[server]\nprivate = \"localhost:8081\"\n"),
    ("port alone", "[server]\npublic = 8080\n"),
    ("public URL without scheme", "[server]\npublic_url = \"privacy.example\"\n"),
    ("bad CIDR", "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"10.0.0.0/33\"]\n"),
    ("CIDR with host bits", "[server]\ntrusted_proxies = [\n  \"10.0.0.1/8\",\n]\n"),
    ("one CIDR as text", "[server]\ntrusted_proxies = \"10.0.0.0/8\"\n"),
    ("boolean as text", "[server]\ninsecure_private = \"yes\"\n"),
    ("TLS without key", "[server.public_tls]\ncert = \"a.pem\"\n"),
    ("TLS with an empty path", "[server.private_tls]\ncert = \"a.pem\"\nkey = \"\"\n"),
    ("limit zero", "[limits]\nrequests_per_minute_per_key = 0\n"),
    ("limit negative", "[limits]\nrequests_per_minute_per_key = -1\n"),
    ("limit as text", "[limits]\nrequests_per_minute_per_key = \"6000\"\n"),
    ("limit too large", "[limits]\nrequests_per_minute_per_key = 5000000000\n"),
    ("custom field without type", "[[campaign.fields]]\nname = \"cusA\"\n"),
    ("custom field without name", "[[campaign.fields]]\ntype = \"date\"\n"),
    ("unknown type", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"numeric\"\n"),
    ("misspelt type", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"bolean\"\n"),
    ("type as a table", "[[campaign.fields]]\nname = \"cusA\"\ntype = { string = {} }\n"),
    ("second type as a table", "[campaign]\nfields = [{ name = \"cusA\", type = \"date\" }, { name = \"cusB\", type = { date = 5 } }]\n"),
    ("model as a table", "[[purposes]]\nname = \"ads\"\nmodel = { opt_in = {} }\n"),
    ("unknown key of a custom field", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"date\"\nlabels = \"A\"\n"),
    ("custom fields before their table", "[[fields]]\nname = \"cusA\"\ntype = \"date\"\n"),
    ("key of several other tables", "[server]\nname = \"Acme\"\n"),
    ("one table for custom fields", "[campaign.fields]\nname = \"cusA\"\n"),
    ("names for custom fields", "[campaign]\nfields = [\"cusA\"]\n"),
    ("custom field without cus", "[[campaign.fields]]\nname = \"shoeSize\"\ntype = \"number\"\n"),
    ("custom field with cus alone", "[[campaign.fields]]\nname = \"cus\"\ntype = \"number\"\n"),
    ("custom field in lower case", "[[campaign.fields]]\nname = \"customer\"\ntype = \"number\"\n"),
    ("custom field with an underscore", "[[campaign.fields]]\nname = \"cusShoe_size\"\ntype = \"number\"\n"),
    ("custom field outside ASCII", "[[campaign.fields]]\nname = \"cusGr\u{f6}sse\"\ntype = \"number\"\n"),
    (
        "custom field twice",
        "[[campaign.fields]]\nname = \"cusIBAN\"\ntype = \"string\"\n[[campaign.fields]]\nname = \"cusIban\"\ntype = \"date\"\n",
    ),
    ("number as label", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"date\"\nlabel = 5\n"),
    ("length zero", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"string\"\nlength = 0\n"),
    ("length too large", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"string\"\nlength = 256\n"),
    ("length as text", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"string\"\nlength = \"100\"\n"),
    ("length of a number", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"number\"\nlength = 10\n"),
    ("length of a boolean", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"boolean\"\nlength = 10\n"),
    ("length of a date", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"date\"\nlength = 10\n"),
    ("length of an enumeration", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"enumeration\"\nvalues = [\"a\"]\nlength = 10\n"),
    ("values of a string", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"string\"\nvalues = [\"a\"]\n"),
    ("values of a number", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"number\"\nvalues = [\"a\"]\n"),
    ("values of a boolean", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"boolean\"\nvalues = [\"a\"]\n"),
    ("values of a date", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"date\"\nvalues = [\"a\"]\n"),
    ("enumeration without values", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"enumeration\"\n"),
    ("enumeration with no value", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"enumeration\"\nvalues = []\n"),
    ("enumeration with one value as text", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"enumeration\"\nvalues = \"small\"\n"),
    ("enumeration of numbers", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"enumeration\"\nvalues = [\"a\", 2]\n"),
    ("enumeration with an empty value", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"enumeration\"\nvalues = [\"a\", \"\"]\n"),
    ("enumeration with a space", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"enumeration\"\nvalues = [\"very small\"]\n"),
    ("enumeration value twice", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"enumeration\"\nvalues = [\"a\", \"A\", \"a\"]\n"),
    ("searchable number", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"number\"\nsearchable = true\n"),
    ("searchable boolean", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"boolean\"\nsearchable = true\n"),
    ("searchable as text", "[[campaign.fields]]\nname = \"cusA\"\ntype = \"string\"\nsearchable = \"yes\"\n"),
    (
        "second custom field wrong",
        "[[campaign.fields]]\nname = \"cusA\"\ntype = \"date\"\n[[campaign.fields]]\nname = \"cusB\"\ntype = \"date\"\nlength = 9\n",
    ),
    ("unknown searchable name", "[vault]\nsearchable = [\"email\", \"lastname\"]\n"),
    ("unknown searchable name, far from any", "[vault]\nsearchable = [\"mobilePhone\"]\n"),
    (
        "misspelt searchable custom field",
        "[vault]\nsearchable = [\"cusIBN\"]\n[[campaign.fields]]\nname = \"cusIBAN\"\ntype = \"string\"\nsearchable = true\n",
    ),
    ("custom field that is not searchable", "[vault]\nsearchable = [\"cusA\"]\n[[campaign.fields]]\nname = \"cusA\"\ntype = \"string\"\n"),
    ("searchable name twice", "[vault]\nsearchable = [\"email\", \"email\"]\n"),
    ("one searchable name as text", "[vault]\nsearchable = \"email\"\n"),
    ("unknown key of the vault", "[vault]\nserchable = [\"email\"]\n"),
    ("list for the vault", "vault = [\"email\"]\n"),
];

type Writer<'a> = &'a dyn Fn(usize) -> String;

/// `n` pieces in a row.
fn pieces(n: usize, piece: impl Fn(usize) -> String) -> String {
    (0..n).map(piece).collect::<Vec<_>>().concat()
}

fn error_of(text: &str) -> ConfigError {
    Config::parse(text, "desist.toml").expect_err(text)
}

#[test]
fn every_broken_file_says_where_and_what_to_write() {
    let mut listing = String::new();
    for (name, text) in BROKEN {
        let error = error_of(text);
        assert!(error.line > 0 && error.column > 0, "{name}: {error}");
        assert!(error.to_string().lines().count() <= 2, "{name}: {error}");
        assert!(!format!("{error} {error:?}").contains("HIDDEN"), "{name}: {error}");
        writeln!(listing, "{name}\n  {error}").unwrap();
    }
    insta::assert_snapshot!("broken_files", listing);
}

#[test]
fn every_broken_destination_says_where_and_what_to_write() {
    let good = |more: &str| webhook(more, SETTINGS);
    let other = |connector: &str, more: &str, settings: &str| {
        webhook(more, settings).replace("connector = \"webhook\"", &format!("connector = \"{connector}\""))
    };
    let campaign = "organization = \"acme\"\n";
    let cases = [
        ("id twice", good("") + &good("")),
        ("purpose that is not declared", good("purposes = [\"sale\", \"shareing\"]\n")),
        ("purpose twice", good("purposes = [\"sale\", \"sale\"]\n")),
        ("no purpose", good("purposes = []\n")),
        ("one purpose as text", good("purposes = \"sale\"\n")),
        ("purpose without a call", other("adobe-campaign-standard", "purposes = [\"sale\", \"admt\"]\n", campaign)),
        ("more than is proved", good("required = \"applied\"\n")),
        ("more than an unverified connector proves", other("marketo", "required = \"applied\"\n", "")),
        ("unknown level", good("required = \"enforced\"\n")),
        ("patrol without unit", good("patrol = \"7\"\n")),
        ("patrol in weeks", good("patrol = \"1w\"\n")),
        ("patrol as number", good("patrol = 7\n")),
        ("patrol of nothing", good("patrol = \"0s\"\n")),
        ("resend after a year", good("resend_every = \"365d\"\n")),
        ("timeout of a minute", good("timeout = \"1m\"\n")),
        ("linger of a day", good("linger = \"1d\"\n")),
        ("no rate", good("rate = [\"300 a minute\"]\n")),
        ("one rate as text", good("rate = \"300/1m\"\n")),
        ("too many rates", good("rate = [\"1/1s\", \"9/1m\", \"99/1h\", \"999/1d\", \"9999/7d\"]\n")),
        ("rate above the connector's", other("marketo", "rate = [\"5000/20s\"]\n", "")),
        ("concurrency zero", good("concurrency = 0\n")),
        ("concurrency above the connector's", good("concurrency = 5\n")),
        ("no attempt", good("attempts = 0\n")),
        ("too many attempts", good("attempts = 17\n")),
        ("owner of a webhook", good("owner = \"Privacy desk\"\n")),
        ("task of a webhook", good("task = \"Send it.\"\n")),
        ("empty owner", good("owner = \" \"\n")),
        ("unknown approval", good("approve = [\"everything\"]\n")),
        ("no dry run", good("dry_run = true\n")),
        ("missing setting", webhook("", "secret = { env = \"A\" }\n")),
        ("missing secret", webhook("", "host = \"hooks.example\"\n")),
        ("unknown setting", webhook("", "host = \"hooks.example\"\nsecrets = { env = \"A\" }\n")),
        ("inline secret", webhook("", "host = \"hooks.example\"\nsecret = \"HIDDEN\"\n")),
        ("inline secret without quotes", webhook("", "token = HIDDEN\n")),
        ("inline secret in a table", webhook("", "secret = { value = \"HIDDEN\" }\n")),
        ("inline secret in a list of settings", good("").replace("[destinations.settings]\n", "settings = [\"HIDDEN\"]\n")),
        (
            "inline secret in one line",
            good("").split("[destinations.settings]").next().unwrap().to_owned() + "settings = { key = HIDDEN }\n",
        ),
        ("secret as the name of a variable", webhook("", "secret = { env = \"HIDDENz\" }\n")),
        ("secret at two places", webhook("", "secret = { env = \"HIDDEN\", file = \"b\" }\n")),
        ("number as the name of a variable", webhook("", "secret = { env = 5 }\n")),
        ("host as a secret", webhook("", "host = { env = \"A\" }\nsecret = { env = \"A\" }\n")),
        ("bad host", webhook("", "host = \"https://HIDDEN\"\nsecret = { env = \"A\" }\n")),
        ("date as setting", webhook("", "host = 2026-01-01\n")),
        ("number with a point as setting", webhook("", "host = 1.5\n")),
    ];
    let mut listing = String::new();
    for (name, text) in cases {
        let error = error_of(&text);
        assert!(error.line > 0 && error.column > 0, "{name}: {error}");
        assert!(error.to_string().lines().count() <= 2, "{name}: {error}");
        assert!(!format!("{error} {error:?}").contains("HIDDEN"), "{name}: {error}");
        writeln!(listing, "{name}\n  {error}").unwrap();
    }
    insta::assert_snapshot!("broken_destinations", listing);
}

#[test]
fn manifests_are_read_beside_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("desist.toml");
    let load = |manifest: &str, more: &str| {
        fs::write(dir.path().join("own.toml"), manifest).unwrap();
        let settings = if manifest.contains("[settings.host]") { SETTINGS } else { "" };
        let text = webhook(more, settings).replace("connector = \"webhook\"", "manifest = \"own.toml\"");
        fs::write(&path, text).unwrap();
        Config::load(&path).map_err(|error| error.to_string().replace(&dir.path().display().to_string(), ""))
    };
    let webhook = shipped_text("webhook");
    let config = load(webhook, "").unwrap();
    let manifest = config.destinations[0].manifest().unwrap();
    assert_eq!((manifest.id(), config.destinations[0].is_verified()), ("webhook", true));
    // Read or not, the tables say the same.
    assert_eq!(config.destinations[0].manifest, Some(dir.path().join("own.toml")));
    let mut listing = String::new();
    let manual = "[connector]\nid = \"paper\"\nversion = 1\ntitle = \"Paper\"\ntransport = \"manual\"\n[ids.email]\n[[op]]\non = \"opt_out\"\npurposes = [\"sale\"]\nwrites = \"email\"\neffect = \"table\"\nceiling = \"accepted\"\nunit = \"id\"\nitem = { email = \"{{id}}\" }\n";
    let eraser = "[connector]\nid = \"eraser\"\nversion = 1\ntitle = \"Eraser\"\nhosts = [\"api.example.com\"]\n[auth]\nkind = \"none\"\n[limits]\nbatch_items = 1\n[ids.email]\n[[op]]\non = \"opt_out\"\npurposes = [\"sale\"]\nwrites = \"person\"\neffect = \"delete\"\nceiling = \"accepted\"\nunit = \"id\"\nmethod = \"DELETE\"\npath = \"/people/{{id.email}}\"\n[op.result]\ndialect = \"status\"\n";
    for (name, manifest, more) in [
        ("lint", webhook.replace("ceiling = \"accepted\"", "ceiling = \"proved\"").as_str(), ""),
        ("no TOML", "this is no manifest", ""),
        ("too much is required", webhook, "required = \"verified\"\n"),
        ("not for these purposes", &manual.replace("sale", "admt"), ""),
        ("deletion without approval", eraser, ""),
    ] {
        writeln!(listing, "{name}\n  {}", load(manifest, more).expect_err(name)).unwrap();
    }
    fs::remove_file(dir.path().join("own.toml")).unwrap();
    let gone = Config::load(&path).unwrap_err().to_string().replace(&dir.path().display().to_string(), "");
    writeln!(listing, "gone\n  {gone}").unwrap();
    insta::assert_snapshot!("broken_manifests", listing);
    // A person's work is of whom, and what.
    fs::write(dir.path().join("own.toml"), manual).unwrap();
    fs::write(
        &path,
        "[[destinations]]\nid = \"paper\"\nmanifest = \"own.toml\"\nclass = \"contractor\"\nowner = \"Ada\"\ntask = \"Print it.\"\n",
    )
    .unwrap();
    let planned = crate::delivery::plan(&Config::load(&path).unwrap()).pop().unwrap();
    assert_eq!((planned.owner.as_deref(), planned.purposes, planned.lane.patrols), (Some("Ada"), vec!["sale".to_owned()], vec![]));
}

/// The manifest of a connector that comes with desist.
fn shipped_text(id: &str) -> &'static str {
    desist_connector::SHIPPED.iter().find(|shipped| shipped.id == id).unwrap().text
}

#[test]
fn findings_of_check() {
    let files = [
        ("nothing", ""),
        ("good", "[server]\npublic_url = \"https://p.example\"\n[[sites]]\nid = \"a\"\nurl = \"https://a.example\"\n"),
        ("http site", "[[sites]]\nid = \"a\"\nurl = \"http://a.example\"\n[server]\npublic_url = \"https://p.example\"\n"),
        ("loopback site", "[[sites]]\nid = \"a\"\nurl = \"https://localhost:8443\"\n"),
        ("loopback URLs", "[server]\npublic_url = \"http://[::1]:8080\"\n[[sites]]\nid = \"a\"\nurl = \"http://127.3.2.1/x\"\n"),
        ("private for all", "[server]\nprivate = \"0.0.0.0:8081\"\n"),
        ("private for all, meant so", "[server]\nprivate = \"0.0.0.0:8081\"\ninsecure_private = true\n"),
        ("trust everybody", "[server]\ntrusted_proxies = [\"10.0.0.0/8\", \"::/0\"]\n"),
        ("one port for both", "[server]\npublic = \"127.0.0.1:8081\"\n"),
        ("no certificate", "[server.private_tls]\ncert = \"/none/a.crt\"\nkey = \"/none/a.key\"\n"),
    ];
    let to = |secret: &str| format!("[alerts]\nurl = \"https://a.example\"\nsecret = {secret}\n");
    let (unset, other) = (to("{ env = \"DESIST_TEST_NOT_SET\" }"), to("{ env = \"PATH\" }"));
    let alerts = [("alerts without their variable", unset.as_str()), ("alerts with something else", &other)];
    let mut listing = String::new();
    for (name, text) in files.into_iter().chain(alerts) {
        writeln!(listing, "{name}").unwrap();
        for finding in Config::parse(text, "desist.toml").expect(name).check() {
            writeln!(listing, "  {finding}").unwrap();
        }
    }
    insta::assert_snapshot!("findings_of_check", listing);
}

#[test]
fn files_that_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("desist.toml");
    let error = |path: &Path| Config::load(path).unwrap_err().to_string().replace(&dir.path().display().to_string(), "");
    let missing = error(&path);
    assert_eq!(missing, "/desist.toml: cannot be read: No such file or directory (os error 2); check the path and its permissions");
    assert!(error(dir.path()).contains("Is a directory"));
    fs::write(&path, b"[business]\nname = \"Caf\xe9\"\n").unwrap();
    assert_eq!(error(&path), "/desist.toml:2:12: not UTF-8: byte 0xe9 at offset 22; save the file as UTF-8");
    fs::write(&path, "#".repeat(CONFIG_BYTES_MAX + 1)).unwrap();
    assert_eq!(error(&path), "/desist.toml: is longer than 1048576 bytes; is it the right file?");
    fs::write(&path, "#".repeat(CONFIG_BYTES_MAX)).unwrap();
    assert_eq!(Config::load(&path).unwrap(), Config::default());
}

#[test]
fn paths_start_at_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("desist.toml");
    fs::write(&path, "[server.public_tls]\ncert = \"tls/a.crt\"\nkey = \"/etc/a.key\"\n").unwrap();
    let tls = Config::load(&path).unwrap().server.public_tls.unwrap();
    assert_eq!((tls.cert, tls.key), (dir.path().join("tls/a.crt"), "/etc/a.key".into()));
    for (written, expected) in [("a.secret", dir.path().join("a.secret")), ("/run/a.secret", "/run/a.secret".into())] {
        fs::write(&path, format!("[alerts]\nurl = \"https://a.example\"\nsecret = {{ file = \"{written}\" }}\n")).unwrap();
        assert_eq!(Config::load(&path).unwrap().alerts.unwrap().secret, SecretSource::File(expected));
    }
}

#[test]
fn lists_and_texts_are_bounded() {
    let sites = |n| pieces(n, |i| format!("[[sites]]\nid = \"s{i}\"\nurl = \"https://a.example\"\n"));
    let purposes = |n| pieces(n, |i| format!("[[purposes]]\nname = \"p{i}\"\nmodel = \"opt_in\"\n"));
    let proxies = |n| format!("[server]\ntrusted_proxies = [{}]\n", "\"10.0.0.0/8\",".repeat(n));
    let name = |n| format!("[business]\nname = \"{}\"\n", "n".repeat(n));
    let id = |n| format!("[[sites]]\nid = \"{}\"\nurl = \"https://a.example\"\n", "n".repeat(n));
    let url = |n: usize| format!("[[sites]]\nid = \"a\"\nurl = \"https://a.example/{}\"\n", "n".repeat(n - 18));
    let purpose = |n| format!("[[purposes]]\nname = \"{}\"\nmodel = \"opt_in\"\n", "n".repeat(n));
    let witnesses = |n| {
        pieces(n, |i| {
            let key = Signer::new(&format!("w{i}"), Algorithm::Cosignature, &[i as u8; 32]).unwrap().verifier().to_string();
            format!("[[witnesses]]\nurl = \"https://w.example\"\nkey = \"{key}\"\n")
        })
    };
    let text = |n| format!("{}description = \"{}\"\n", purpose(1), "n".repeat(n));
    let field = |name: &str, rest: &str| format!("[[campaign.fields]]\nname = \"{name}\"\n{rest}");
    let fields = |n| pieces(n, |i| field(&format!("cus{i}"), "type = \"date\"\n"));
    let searchable = |n| fields(n).replace("\"date\"", "\"date\"\nsearchable = true");
    let field_name = |n| field(&format!("cus{}", "N".repeat(n - 3)), "type = \"date\"\n");
    let label = |n| field("cusA", &format!("type = \"date\"\nlabel = \"{}\"\n", "n".repeat(n)));
    let length = |n| field("cusA", &format!("type = \"string\"\nlength = {n}\n"));
    let values = |values: &str| field("cusA", &format!("type = \"enumeration\"\nvalues = [{values}]\n"));
    let count = |n| values(&pieces(n, |i| format!("\"v{i}\",")));
    let value = |n| values(&format!("\"{}\"", "n".repeat(n)));
    let destination = |id: &str, more: &str| webhook(more, SETTINGS).replace("crm", id);
    let destinations = |n| pieces(n, |i| destination(&format!("d{i}"), ""));
    let destination_id = |n| destination(&"n".repeat(n), "");
    let linger = |n| destination("a", &format!("linger = \"{n}s\"\n"));
    let timeout = |n| destination("a", &format!("timeout = \"{n}s\"\n"));
    let patrol = |n| destination("a", &format!("patrol = \"{n}d\"\n"));
    let cases: [(Writer<'_>, usize, &str); 21] = [
        (&destinations, desist_engine::delivery::DESTINATIONS_MAX, "at most 1000"),
        (&destination_id, DESTINATION_ID_BYTES_MAX, "1 to 64"),
        (&linger, DESTINATION_LINGER_MAX as usize, "1s to 1h"),
        (&timeout, DESTINATION_TIMEOUT_MAX as usize, "1s to 29s"),
        (&patrol, (PERIOD_SECONDS_MAX / 86_400) as usize, "1s to 90d"),
        (&fields, CUSTOM_FIELDS_MAX, "at most 100"),
        (&searchable, CUSTOM_FIELDS_SEARCHABLE_MAX, "at most 8"),
        (&field_name, CUSTOM_FIELD_NAME_BYTES_MAX, "at most 64"),
        (&label, CUSTOM_FIELD_LABEL_BYTES_MAX, "at most 128"),
        (&length, CUSTOM_FIELD_CHARS_MAX, "1 to 255"),
        (&count, ENUMERATION_VALUES_MAX, "1 to 200"),
        (&value, ENUMERATION_VALUE_BYTES_MAX, "1 to 64"),
        (&sites, SITES_MAX, "at most 1000"),
        (&purposes, PURPOSES_MAX, "at most 48"),
        (&proxies, TRUSTED_PROXIES_MAX, "at most 256"),
        (&witnesses, WITNESSES_MAX, "at most 16"),
        (&name, BUSINESS_NAME_BYTES_MAX, "at most 200"),
        (&id, SITE_ID_BYTES_MAX, "1 to 64"),
        (&url, URL_BYTES_MAX, "2048"),
        (&purpose, PURPOSE_NAME_BYTES_MAX, "1 to 64"),
        (&text, PURPOSE_DESCRIPTION_BYTES_MAX, "at most 1000"),
    ];
    for (write, max, said) in cases {
        Config::parse(&write(max), "f").expect(said);
        let error = error_of(&write(max + 1)).to_string();
        assert!(error.contains(said) && error.len() < 300, "{error}");
    }
}

#[test]
fn values_arrive() {
    let text = r#"
        campaign.compat = "strict"
        [[campaign.fields]]
        name = "cusShoeSize"
        type = "number"
        label = "Shoe size"
        [[campaign.fields]]
        name = "cus2ndName"
        type = "string"
        length = 100
        searchable = true
        [[campaign.fields]]
        name = "cusSize"
        type = "enumeration"
        values = ["small", "Small"]
        searchable = true
        [[campaign.fields]]
        name = "cusMember"
        type = "boolean"
        searchable = false
        [[campaign.fields]]
        name = "cusSince"
        type = "date"
        [vault]
        searchable = ["cusSize", "email"]
        [business]
        name = "Acme"
        time_zone = "europe/berlin"
        [[sites]]
        id = "shop"
        url = "https://Shop.example:8443/eu/"
        device_identifiers = ["maid"]
        [[sites]]
        id = "blog"
        url = "https://blog.example"
        [[purposes]]
        name = "email_marketing"
        model = "opt_in"
        [policy]
        api_opt_in = "refuse"
        [[witnesses]]
        url = "http://10.0.0.5:8090/"
        key = "witness.example/w1+0ad7d35e+BIqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"
        allow_private = true
        [alerts]
        url = "http://10.0.0.6:9093/desist/"
        secret = { env = "DESIST_ALERTS_SECRET" }
        allow_private = true
        [[destinations]]
        id = "crm"
        connector = "webhook"
        class = "service_provider"
        settings = { host = "hooks.example:8443", secret = { file = "/run/crm" } }
        rate = ["60/1m"]
        timeout = "3s"
        [server]
        private = "[::1]:9"
        trusted_proxies = ["10.0.0.0/8", "192.0.2.1"]
        [limits]
        requests_per_minute_per_key = 60
    "#;
    let config = Config::parse(text, "f").unwrap();
    assert_eq!(config.campaign.compat, Compat::Strict);
    let [shoe_size, second_name, size, member, since] = &config.campaign.fields[..] else { panic!("five fields") };
    assert_eq!(
        (shoe_size.name.as_str(), shoe_size.kind, shoe_size.label.as_deref()),
        ("cusShoeSize", FieldKind::Number, Some("Shoe size"))
    );
    assert_eq!((second_name.kind, second_name.chars_max(), second_name.searchable), (FieldKind::String, 100, true));
    assert_eq!(
        (size.kind, &size.values[..], size.searchable),
        (FieldKind::Enumeration, &["small".to_owned(), "Small".to_owned()][..], true)
    );
    assert_eq!((member.kind, member.values.len(), member.searchable), (FieldKind::Boolean, 0, false));
    assert_eq!((since.kind, since.label.as_deref(), since.length, since.searchable), (FieldKind::Date, None, None, false));
    assert_eq!(since.chars_max(), CUSTOM_FIELD_CHARS_MAX);
    assert_eq!(config.vault.searchable, ["cusSize", "email"]);
    assert_eq!(config.business.time_zone.iana_name(), Some("Europe/Berlin"));
    let [shop, blog] = &config.sites[..] else { panic!("two sites") };
    assert_eq!(shop.url.as_str(), "https://Shop.example:8443/eu");
    assert_eq!((shop.url.host(), shop.url.is_https(), shop.url.is_loopback()), ("shop.example", true, false));
    assert_eq!(shop.device_identifiers, [DeviceKind::Maid]);
    assert_eq!(blog.device_identifiers, [DeviceKind::CookieId, DeviceKind::DeviceId]);
    assert_eq!(config.witnesses[0].url.as_str(), "http://10.0.0.5:8090");
    assert_eq!((config.witnesses[0].key.0.name(), config.witnesses[0].allow_private), ("witness.example/w1", true));
    let alerts = config.alerts.as_ref().unwrap();
    assert_eq!((alerts.url.as_str(), alerts.allow_private), ("http://10.0.0.6:9093/desist/", true));
    assert_eq!(alerts.secret, SecretSource::Env("DESIST_ALERTS_SECRET".to_owned()));
    let crm = &config.destinations[0];
    assert_eq!(
        (crm.class, crm.timeout.millis(), crm.patrol.seconds()),
        (desist_engine::delivery::Class::ServiceProvider, 3000, 7 * 86_400)
    );
    assert_eq!(crm.settings["secret"], SettingValue::Secret(SecretSource::File("/run/crm".into())));
    assert_eq!(crm.settings["host"], SettingValue::Plain("hooks.example:8443".into()));
    assert_eq!(config.purposes[0].model, desist_core::purpose::Model::OptIn);
    assert_eq!(config.policy.api_opt_in, ApiOptIn::Refuse);
    let nets: Vec<_> = config.server.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(nets, ["10.0.0.0/8", "192.0.2.1/32"]);
    assert_eq!(config.limits.requests_per_minute_per_key.map(std::num::NonZero::get), Some(60));
    // What is read can be written and read again.
    assert_eq!(Config::parse(&toml::to_string(&config).unwrap(), "f").unwrap(), config);
}

#[test]
fn a_searchable_field_is_either_sealed_or_in_clear() {
    let fields = pieces(3, |i| format!("[[campaign.fields]]\nname = \"cus{}\"\ntype = \"string\"\nsearchable = {}\n", 3 - i, i != 1));
    let cases: [(&str, &[&str], &[&str]); 4] = [
        ("", &["email", "lastName", "firstName", "cus3", "cus1"], &[]),
        ("\"firstName\", \"email\"", &["lastName", "cus3", "cus1"], &["email", "firstName"]),
        ("\"cus1\"", &["email", "lastName", "firstName", "cus3"], &["cus1"]),
        ("\"cus1\", \"cus3\", \"firstName\", \"lastName\", \"email\"", &[], &["email", "lastName", "firstName", "cus3", "cus1"]),
    ];
    for (vault, sealed, clear) in cases {
        let config = Config::parse(&format!("[vault]\nsearchable = [{vault}]\n{fields}"), "f").unwrap();
        assert_eq!(config.searched(), (sealed.iter().map(ToString::to_string).collect(), clear.iter().map(ToString::to_string).collect()));
    }
    let built_in = ["email", "lastName", "firstName"].map(str::to_owned).to_vec();
    assert_eq!(Config::default().searched(), (built_in, Vec::new()));
}

/// Every table and key of the schema as a dotted path.
fn schema_paths(path: &str, schema: &serde_json::Value, into: &mut BTreeSet<String>) {
    for (key, schema) in schema["properties"].as_object().expect("a table has properties") {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if let Some(inner) = object(schema) {
            schema_paths(&path, inner, into);
        }
        into.insert(path);
    }
}

/// Every table and key of a file as a dotted path.
fn file_paths(path: &str, table: &DeTable<'_>, into: &mut BTreeSet<String>) {
    for (key, value) in table {
        let path = if path.is_empty() { key.get_ref().to_string() } else { format!("{path}.{}", key.get_ref()) };
        match value.get_ref() {
            // Where a secret is, is one value; what connectors ask for is theirs.
            DeValue::Table(_) if path.ends_with(".secret") || path == "destinations.settings" => {}
            DeValue::Table(inner) => file_paths(&path, inner, into),
            DeValue::Array(items) => {
                items.iter().filter_map(|item| item.get_ref().as_table()).for_each(|t| file_paths(&path, t, into));
            }
            _ => {}
        }
        into.insert(path);
    }
}

#[test]
fn errors_and_starter_file_know_every_key() {
    let mut paths = BTreeSet::new();
    schema_paths("", &schema(), &mut paths);
    assert_eq!(FIELDS.iter().map(|(path, _)| (*path).to_owned()).collect::<BTreeSet<_>>(), paths);
    for path in &paths {
        let list = schema().pointer(&format!("/properties/{}/items/properties", path.replace('.', "/properties/"))).is_some();
        assert_eq!(header(path).starts_with("[["), list, "{path}");
    }

    let starter = starter_file("acme");
    assert_eq!(Config::parse(&starter, "f").unwrap(), Config::default());
    let uncommented: String =
        starter.lines().map(|line| if line.starts_with("## ") { line } else { line.trim_start_matches('#') }.to_owned() + "\n").collect();
    Config::parse(&uncommented, "f").unwrap();
    let mut written = BTreeSet::new();
    file_paths("", DeTable::parse(&uncommented).unwrap().get_ref(), &mut written);
    assert_eq!(written, paths);
}

#[test]
fn starter_file_shows_the_defaults() {
    let uncommented = starter_file("acme").replace("\n#", "\n");
    for default in [
        "compat = \"adobe\"",
        "\nsearchable = []",
        "time_zone = \"America/Los_Angeles\"",
        "api_opt_in = \"own\"",
        "insecure_private = false",
    ] {
        assert!(uncommented.contains(default), "{default}");
    }
    let server = Config::default().server;
    assert!(uncommented.contains(&format!("public = \"{}\"\nprivate = \"{}\"", server.public, server.private)));
}

#[test]
fn reference_page_is_up_to_date() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&page, reference_markdown()).unwrap();
    }
    let committed = fs::read_to_string(&page).unwrap_or_default();
    assert!(committed == reference_markdown(), "run UPDATE=1 cargo test -p desist --lib config");
}

#[test]
fn deep_and_long_files_end_soon() {
    let n = CONFIG_BYTES_MAX / 2 - 10;
    for text in [
        "[".repeat(n),
        format!("a = {}", "[".repeat(n)),
        format!("a = {}", "{a=".repeat(n / 2)),
        format!("{}b = 1", "a.".repeat(n)),
        format!("[{}b]", "a.".repeat(n)),
        format!("[business]\nname = \"{}", "\\u0041".repeat(n / 4)),
        "[[sites]]\n".repeat(n / 8),
        pieces(n / 8, |i| format!("a{i}=1\n")),
        pieces(40_000, |i| format!("[[sites]]\nid=\"{i}\"\n")),
        pieces(20_000, |i| format!("[[campaign.fields]]\nname=\"cus{i}\"\ntype=\"date\"\n")),
        format!("[vault]\nsearchable = [{}]", "\"email\",".repeat(100_000)),
    ] {
        let started = std::time::Instant::now();
        fuzz_config(text.as_bytes());
        assert!(started.elapsed().as_secs() < 10, "{}", error_of(&text));
    }
}

#[test]
fn suggestions_are_close() {
    assert_eq!(did_you_mean("api_optin", ["api_opt_in", "other"].into_iter()), " (did you mean \"api_opt_in\"?)");
    assert_eq!(did_you_mean("kubernetes", ["sites", "server"].into_iter()), "");
    let long = error_of(&format!("[business]\ntime_zone = \"{}\"\n", "x".repeat(10_000)));
    assert!(long.problem.len() < ERROR_VALUE_CHARS_MAX + 120, "{long}");
}

proptest! {
    // A fixed seed, so that a run can be repeated; the fuzz target looks further.
    #![proptest_config(ProptestConfig {
        rng_seed: proptest::test_runner::RngSeed::Fixed(7),
        cases: 1000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_bytes_break_it(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        fuzz_config(&data);
    }

    #[test]
    fn no_edit_of_a_good_file_breaks_it(at in 0_usize..4000, cut in 0_usize..40, put in "[a-z\\[\\]\"'=.,#{}\\\\ \n\u{e9}-]{0,12}") {
        let text: Vec<char> = starter_file("acme").replace("\n#", "\n").chars().collect();
        let (at, end) = (at.min(text.len()), (at + cut).min(text.len()));
        let edited: String = text[..at].iter().copied().chain(put.chars()).chain(text[end..].iter().copied()).collect();
        fuzz_config(edited.as_bytes());
    }

    #[test]
    fn any_business_name_makes_a_readable_file(name in "\\PC{0,40}|[\\x00-\\x7f]{0,20}") {
        let text = starter_file(&name);
        prop_assert_eq!(Config::parse(&text, "f").map_err(|e| e.to_string()), Ok(Config::default()));
    }
}
