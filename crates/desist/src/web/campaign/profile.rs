//! The profile: its fields, and how one is shown.

use desist_core::identifier::{Identifier, Kind};
use jiff::civil::Date;
use serde_json::{Value, json};

use super::schema::Access::{Caller, OptOut, Own, Server};
use super::schema::Type::{self, Flag, Integer, Item, Name, Text, Timestamp};
use super::schema::{Attributes, Field, Schema, parse_date, timestamp};

/// Characters in each part of a location; no length is published, so this is the longest of any field.
const LOCATION_CHARS_MAX: usize = 255;

/// The profile's fields, with the business's own where they are shown.
pub fn schema(custom: impl IntoIterator<Item = Field>) -> Schema {
    let mut fields = vec![
        Field::new("PKey", Text(33), "", Own, None),
        Field::new("acsId", Text(36), "", Server, None),
        Field::new("age", Integer, "", Server, None),
        Field::new("birthDate", Type::Date, "", Caller, None),
        Field::new("blackList", Flag, "", Caller, None),
        Field::new("blackListAllLastModified", Timestamp, "", Server, None),
        Field::new("blackListEmail", Flag, "", Caller, None),
        Field::new("blackListEmailLastModified", Timestamp, "", Server, None),
        Field::new("blackListFax", Flag, "", Caller, None),
        Field::new("blackListFaxLastModified", Timestamp, "", Server, None),
        Field::new("blackListLastModified", Timestamp, "", Server, None),
        Field::new("blackListMobile", Flag, "", Caller, None),
        Field::new("blackListMobileLastModified", Timestamp, "", Server, None),
        Field::new("blackListPhone", Flag, "", Caller, None),
        Field::new("blackListPhoneLastModified", Timestamp, "", Server, None),
        Field::new("blackListPostalMail", Flag, "", Caller, None),
        Field::new("blackListPostalMailLastModified", Timestamp, "", Server, None),
        Field::new("blackListPushnotification", Flag, "", Caller, None),
        Field::new("ccpaOptOut", Flag, "", OptOut, None),
        Field::new("ccpaOptOutLastModified", Timestamp, "", Server, None),
        Field::new("created", Timestamp, "", Server, None),
        Field::new("cryptedId", Text(255), "", Server, None),
        Field::new("domain", Text(255), "", Server, None),
        Field::new("email", Text(128), "", Caller, Some(Kind::Email)),
        Field::new("emailFormat", Type::choice(&["unknown", "text", "html"]), "unknown", Caller, None),
        Field::new("externalId", Text(100), "", Caller, Some(Kind::CustomerId)),
        Field::new("fax", Text(32), "", Caller, None),
        Field::new("firstName", Text(30), "", Caller, None),
        Field::new("gender", Type::choice(&["unknown", "male", "female"]), "unknown", Caller, None),
        Field::new("href", Text(255), "", Own, None),
        Field::new("isExternal", Flag, "", Caller, None),
        Field::new("lastModified", Timestamp, "", Server, None),
        Field::new("lastName", Text(50), "", Caller, None),
        Field::new("location", Item, "", Caller, None),
        Field::new("location.address1", Text(LOCATION_CHARS_MAX), "", Caller, None),
        Field::new("location.address2", Text(LOCATION_CHARS_MAX), "", Caller, None),
        Field::new("location.address3", Text(LOCATION_CHARS_MAX), "", Caller, None),
        Field::new("location.address4", Text(LOCATION_CHARS_MAX), "", Caller, None),
        Field::new("location.city", Text(LOCATION_CHARS_MAX), "", Caller, None),
        Field::new("location.countryCode", Text(LOCATION_CHARS_MAX), "", Caller, None),
        Field::new("location.stateCode", Text(LOCATION_CHARS_MAX), "", Caller, None),
        Field::new("location.zipCode", Text(LOCATION_CHARS_MAX), "", Caller, None),
        Field::new("middleName", Text(30), "", Caller, None),
        Field::new("mobilePhone", Text(32), "", Caller, Some(Kind::Phone)),
        Field::new("phone", Text(32), "", Caller, Some(Kind::Phone)),
        Field::new("postalAddress", Item, "", Server, None),
        Field::new("preferredLanguage", Name(64), "none", Caller, None),
        Field::new("salutation", Text(20), "", Caller, None),
        Field::new("subscriptions", Item, "", Server, None),
        Field::new("thumbnail", Text(255), "/nl/img/thumbnails/defaultProfil.png", Caller, None),
        Field::new("timeZone", Name(64), "none", Caller, None),
        Field::new("title", Text(255), "", Server, None),
    ];
    fields.extend(custom);
    Schema::new("profile", fields)
}

/// The identifiers among the attributes, as written. A phone number that is none is left out.
pub fn identifiers(schema: &Schema, attributes: &Attributes) -> Vec<(Kind, String)> {
    let mut found = Vec::new();
    for field in schema.fields() {
        let Some(kind) = field.identifier else { continue };
        let one = (kind, attributes.text(&field.name).to_owned());
        if Identifier::from_value(kind, &one.1).is_ok() && !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// What the server knows of a profile beside its attributes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Computed<'a> {
    /// The primary key.
    pub pkey: &'a str,
    /// Public URL up to and with the root that the caller used, no slash at the end.
    pub href_base: &'a str,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// Milliseconds since 1970.
    pub modified_ms: i64,
    /// Whether sale is denied.
    pub opt_out: bool,
    /// When that last changed, in milliseconds since 1970.
    pub opt_out_modified_ms: Option<i64>,
    /// The `cryptedId`.
    pub crypted_id: &'a str,
}

impl Computed<'_> {
    fn href(&self) -> String {
        format!("{}/profile/{}", self.href_base, self.pkey)
    }
}

/// The whole profile, every field with its value or default.
pub fn render(schema: &Schema, attributes: &Attributes, computed: &Computed<'_>, today: Date) -> Value {
    let mut profile = schema.render(attributes);
    // Adobe shows it for some customers only, and gives no rule.
    profile.remove("acsId");
    let text = |name| attributes.text(name);
    let (email, names) = (text("email"), join(&[text("firstName"), text("lastName")], " "));
    let own: [(&str, Value); 10] = [
        ("PKey", computed.pkey.into()),
        ("href", computed.href().into()),
        ("subscriptions", json!({"href": format!("{}/subscriptions/", computed.href())})),
        ("age", parse_date(text("birthDate")).map_or(0, |birth| age(birth, today)).into()),
        ("ccpaOptOut", computed.opt_out.into()),
        ("ccpaOptOutLastModified", computed.opt_out_modified_ms.map_or(String::new(), timestamp).into()),
        ("created", timestamp(computed.created_ms).into()),
        ("lastModified", timestamp(computed.modified_ms).into()),
        ("cryptedId", computed.crypted_id.into()),
        ("domain", email.rsplit_once('@').map_or("", |(_, domain)| domain).into()),
    ];
    profile.extend(own.map(|(name, value)| (name.to_owned(), value)));
    profile.insert("title".to_owned(), bracketed(&names, email).into());
    profile.insert("postalAddress".to_owned(), postal_address(attributes));
    Value::Object(profile)
}

/// The answer to a PATCH: where the profile is, and nothing of what it holds.
pub fn render_patch_answer(computed: &Computed<'_>) -> Value {
    json!({"PKey": computed.pkey, "href": computed.href()})
}

/// Six lines: the name, up to four of the address, and the place.
fn postal_address(attributes: &Attributes) -> Value {
    let name = join(&[attributes.text("firstName"), &attributes.text("lastName").to_uppercase()], " ");
    let part = |part| attributes.text(&format!("location.{part}"));
    let place = join(&["city", "stateCode", "zipCode"].map(part), " ");
    let address = ["address1", "address2", "address3", "address4"].map(part);
    let below: Vec<&str> = address.into_iter().chain([place.as_str()]).filter(|line| !line.is_empty()).collect();
    let lines: [&str; 6] = std::array::from_fn(|at| if at == 0 { &name } else { below.get(at - 1).copied().unwrap_or_default() });
    let mut shown = json!({
        "addrDefined": !below.is_empty(), "addrErrorCount": 0, "addrLastCheck": "", "addrQuality": "0",
        "serialized": lines.join("\n"),
    });
    for (at, line) in lines.iter().enumerate() {
        shown[format!("line{}", at + 1)] = (*line).into();
    }
    shown
}

/// A title: a name, with what tells it apart in brackets.
pub fn bracketed(name: &str, what: &str) -> String {
    let what = if what.is_empty() { String::new() } else { format!("({what})") };
    join(&[name, &what], " ")
}

fn join(parts: &[&str], with: &str) -> String {
    parts.iter().copied().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(with)
}

/// Full years; 0 for a birth date still to come.
fn age(birth: Date, today: Date) -> i16 {
    let before_birthday = (today.month(), today.day()) < (birth.month(), birth.day());
    (today.year() - birth.year() - i16::from(before_birthday)).max(0)
}

#[cfg(test)]
mod tests {
    use super::super::error::{CampaignError, Compat};
    use super::super::schema::{Change, Mode};
    use super::*;

    const PKEY: &str = "@0123456789abcdefABCDEF-_01234567";
    const PATCH: Mode<'_> = Mode::Patch { pkey: PKEY };

    fn parse_body(bytes: &[u8], mode: Mode<'_>) -> Result<Change, CampaignError> {
        schema([]).parse_body(bytes, mode)
    }

    /// A body with one member, nested if the name has a dot; `raw` stands for the value.
    fn body(name: &str, raw: &[u8], twice: bool) -> Vec<u8> {
        let (outer, key) = name.split_once('.').map_or((None, name), |(outer, key)| (Some(outer), key));
        let member = [b"\"", key.as_bytes(), b"\":", raw].concat();
        let members = vec![member; 1 + usize::from(twice)].join(&b","[..]);
        let inner = [b"{", &members[..], b"}"].concat();
        outer.map_or(inner.clone(), |outer| [b"{\"", outer.as_bytes(), b"\":", &inner, b"}"].concat())
    }

    fn written() -> Vec<Field> {
        schema([]).fields().iter().filter(|field| matches!(field.access, Caller | OptOut)).cloned().collect()
    }

    fn good(field: &Field) -> Value {
        match (&field.ty, field.name.as_str()) {
            (Flag, _) => true.into(),
            (Type::Date, _) => "1985-02-11".into(),
            (Type::Choice(names), _) => names[1].as_str().into(),
            (_, "email") => "rosa.vega@example.org".into(),
            (_, "phone" | "mobilePhone") => "+15592345678".into(),
            (Item, _) => json!({}),
            (Name(max) | Text(max), _) => "x".repeat(*max).into(),
            (Integer | Type::Number | Timestamp, _) => unreachable!("no caller writes these"),
        }
    }

    #[test]
    fn every_written_field_refuses_what_it_cannot_hold() {
        let mut checked = 0;
        for field in written() {
            let wrong = if matches!(field.ty, Flag) { "\"true\"" } else { "7" };
            let mut cases: Vec<(&str, Vec<u8>, u16)> = vec![
                ("null", body(&field.name, b"null", false), 500),
                ("type", body(&field.name, wrong.as_bytes(), false), 500),
                ("array", body(&field.name, b"[{}]", false), 500),
                ("UTF-8", body(&field.name, b"\"a\xff\"", false), 400),
                ("twice", body(&field.name, good(&field).to_string().as_bytes(), true), 400),
            ];
            if let Text(max) | Name(max) = field.ty {
                cases.push(("long", body(&field.name, format!("\"{}\"", "é".repeat(max + 1)).as_bytes(), false), 400));
            }
            if field.ty != Item && field.ty != Flag {
                cases.push(("control", body(&field.name, b"\"a\\u0000\"", false), 400));
            }
            for (what, bytes, adobe) in cases {
                for mode in [Mode::Create, PATCH] {
                    let error = parse_body(&bytes, mode).expect_err(what);
                    assert_eq!(error.pointer().as_deref(), Some(field.name.as_str()), "{what}: {error}");
                    assert_eq!((error.status(Compat::Adobe), error.status(Compat::Strict)), (adobe, 400), "{what}: {error}");
                    assert!(error.to_string().contains(&field.name), "{error}");
                    checked += 1;
                }
            }
        }
        assert!(checked > 300);
    }

    #[test]
    fn every_written_field_is_stored_and_shown() {
        for field in written().into_iter().filter(|field| field.access == Caller && field.ty != Item) {
            let change = parse_body(&body(&field.name, good(&field).to_string().as_bytes(), false), PATCH).expect(&field.name);
            let mut attributes = Attributes::default();
            assert!(schema([]).apply(&mut attributes, change.attributes, 1_772_442_907_120), "{}", field.name);
            let shown = render(&schema([]), &attributes, &Computed::default(), jiff::civil::date(2026, 3, 2));
            assert_eq!(shown.pointer(&format!("/{}", field.name.replace('.', "/"))), Some(&good(&field)), "{}", field.name);
            let stamp = &shown[format!("{}LastModified", field.name)];
            assert!(stamp.is_null() || stamp == "2026-03-02 09:15:07.120Z", "{}: {stamp}", field.name);
            let unset = field.default_value().to_string();
            let back = parse_body(&body(&field.name, unset.as_bytes(), false), PATCH).expect(&field.name).attributes;
            schema([]).apply(&mut attributes, back, 2);
            let stored: serde_json::Map<String, Value> =
                serde_json::from_slice(&serde_json::to_vec(&attributes).expect("a map")).expect("a map");
            assert!(stored.keys().all(|name| name.ends_with("LastModified")), "defaults are not stored: {attributes:?}");
        }
    }

    #[test]
    fn server_fields_are_refused_and_own_ones_only_when_they_are_anothers() {
        for field in schema([]).fields().iter().filter(|field| field.access == Server) {
            assert_eq!(
                parse_body(&body(&field.name, b"\"\"", false), PATCH),
                Err(CampaignError::ReadOnly { resource: "profile", field: field.name.clone() })
            );
        }
        let patch = |pkey: &str| parse_body(json!({"PKey": pkey, "href": "x"}).to_string().as_bytes(), PATCH);
        assert!(patch(PKEY).is_ok());
        assert_eq!(patch(&PKEY.replace('0', "9")), Err(CampaignError::KeyMismatch));
        let unreadable = patch("@bogus").expect_err("no key");
        assert_eq!((unreadable.status(Compat::Adobe), unreadable.pointer().as_deref()), (404, Some("PKey")));
        for own in ["PKey", "href"] {
            assert_eq!(
                parse_body(&body(own, b"\"x\"", false), Mode::Create),
                Err(CampaignError::ReadOnly { resource: "profile", field: own.to_owned() })
            );
            assert_eq!(parse_body(&body(own, b"null", false), PATCH).expect_err("null").pointer().as_deref(), Some(own));
        }
    }

    #[test]
    fn bodies_that_are_no_profile() {
        let deep = "[".repeat(100_000);
        for (bytes, text) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("{}x", "not JSON"),
            ("{\"email\":1e999}", "not JSON"),
            (&deep, "not JSON"),
            ("\u{feff}{}", "not JSON"),
            ("[]", "not a JSON object"),
            ("null", "not a JSON object"),
            ("{\"shoeSize\":44}", "'shoeSize' property is not valid"),
            ("{\"Email\":\"\"}", "'Email' property"),
            ("{\"location\":{\"planet\":\"x\"}}", "'location.planet' property"),
            ("{\"location.city\":\"x\"}", "'location.city' property"),
            ("{\"location\":{\"city\":{\"a\":1}}}", "Cannot convert 'location.city' (type item) to text"),
            ("{\"rosa@example.org\":1}", "A property is not valid"),
            ("{\"x\":[{\"a\":1,\"a\":2}]}", "'x.a' occurs more than once"),
            ("{\"gender\":\"other\"}", "'other' is not in the enumeration of 'gender'"),
            ("{\"timeZone\":\"Europe/Paris\"}", "of 'timeZone'"),
            ("{\"birthDate\":\"2001-02-29\"}", "BAS-010040 Cannot convert 'birthDate' (type text) to date"),
            ("{\"birthDate\":\"2001-2-9\"}", "to date"),
            ("{\"birthDate\":\"+001-02-03\"}", "to date"),
            ("{\"email\":\"rosa\"}", "'email' must be an e-mail address"),
            ("{\"age\":3}", "Cannot update the 'age' property that is read-only\n'age' property is not valid"),
        ] {
            let error = parse_body(bytes.as_bytes(), PATCH).expect_err(text);
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn only_a_lone_opt_out_is_a_lone_opt_out() {
        let read = |text: &str| parse_body(text.as_bytes(), PATCH).map(|change| (change.ccpa_opt_out, change.only_ccpa_opt_out));
        assert_eq!(read("{\"ccpaOptOut\":false}"), Ok((Some(false), true)));
        assert_eq!(read("{\"ccpaOptOut\":true,\"firstName\":\"John\"}"), Ok((Some(true), false)));
        assert_eq!(read("{\"ccpaOptOut\":false,\"location\":{}}"), Ok((Some(false), false)));
        assert_eq!(read(&json!({"ccpaOptOut": false, "PKey": PKEY}).to_string()), Ok((Some(false), false)));
        assert_eq!(read(" {} "), Ok((None, false)));
    }

    const SHOWN: &str = r#"{"PKey":"PK","age":41,"birthDate":"1985-02-11","blackList":false,"blackListAllLastModified":"",
        "blackListEmail":false,"blackListEmailLastModified":"","blackListFax":false,"blackListFaxLastModified":"",
        "blackListLastModified":"","blackListMobile":false,"blackListMobileLastModified":"","blackListPhone":false,
        "blackListPhoneLastModified":"","blackListPostalMail":false,"blackListPostalMailLastModified":"",
        "blackListPushnotification":false,"ccpaOptOut":true,"ccpaOptOutLastModified":"2026-03-02 09:15:07.120Z",
        "created":"2026-01-10 17:40:00.000Z","cryptedId":"c2FtcGxlLW9ubHk=","domain":"example.org",
        "email":"rosa.vega@example.org","emailFormat":"unknown","externalId":"C-1","fax":"","firstName":"Rosa",
        "gender":"female","href":"https://optout.example.com/acme/campaign/profilesAndServices/profile/PK",
        "isExternal":false,"lastModified":"2026-03-02 09:15:07.120Z","lastName":"Vega",
        "location":{"address1":"","address2":"","address3":"12 Elm St","address4":"","city":"Fresno","countryCode":"US",
            "stateCode":"CA","zipCode":"93701"},
        "middleName":"","mobilePhone":"(559) 234-5678","phone":"call after six",
        "postalAddress":{"addrDefined":true,"addrErrorCount":0,"addrLastCheck":"","addrQuality":"0","line1":"Rosa VEGA",
            "line2":"12 Elm St","line3":"Fresno CA 93701","line4":"","line5":"","line6":"",
            "serialized":"Rosa VEGA\n12 Elm St\nFresno CA 93701\n\n\n"},
        "preferredLanguage":"none","salutation":"",
        "subscriptions":{"href":"https://optout.example.com/acme/campaign/profilesAndServices/profile/PK/subscriptions/"},
        "thumbnail":"/nl/img/thumbnails/defaultProfil.png","timeZone":"none","title":"Rosa Vega (rosa.vega@example.org)"}"#;

    #[test]
    fn a_profile_is_shown_whole() {
        let parse = |value: Value| parse_body(value.to_string().as_bytes(), Mode::Create).expect("good").attributes;
        let mut attributes = Attributes::default();
        schema([]).apply(
            &mut attributes,
            parse(json!({
                "firstName": " Rosa ", "lastName": "Vega", "email": "rosa.vega@example.org", "birthDate": "1985-02-11", "gender": "female",
                "location": {"address3": "12 Elm St", "city": "Fresno", "countryCode": "US", "stateCode": "CA"},
                "phone": "call after six", "mobilePhone": "(559) 234-5678", "externalId": "C-1",
            })),
            0,
        );
        assert!(schema([]).apply(&mut attributes, parse(json!({"location": {"zipCode": "93701"}})), 0), "a location merges");
        assert!(!schema([]).apply(&mut attributes, parse(json!({"location": {"zipCode": "93701"}, "fax": ""})), 0));
        let computed = Computed {
            pkey: PKEY,
            href_base: "https://optout.example.com/acme/campaign/profilesAndServices",
            created_ms: 1_768_066_800_000,
            modified_ms: 1_772_442_907_120,
            opt_out: true,
            opt_out_modified_ms: Some(1_772_442_907_120),
            crypted_id: "c2FtcGxlLW9ubHk=",
        };
        let shown = render(&schema([]), &attributes, &computed, jiff::civil::date(2026, 3, 2));
        let expected: Value =
            serde_json::from_str(&SHOWN.replace("/PK", &format!("/{PKEY}")).replace("\"PK\"", &format!("\"{PKEY}\""))).expect("JSON");
        assert_eq!(shown, expected);
        assert_eq!(
            shown.as_object().map(serde_json::Map::len),
            Some(schema([]).fields().len() - 9),
            "all but acsId and the parts of location"
        );
        assert_eq!(render_patch_answer(&computed), json!({"PKey": PKEY, "href": shown["href"]}));
        let kinds: Vec<_> = identifiers(&schema([]), &attributes).into_iter().map(|(_, text)| text).collect();
        assert_eq!(kinds, ["rosa.vega@example.org", "C-1", "(559) 234-5678"]);
        // Read, changed in place and written back: every field a caller may write is taken as it is shown.
        let mut record = shown;
        let members = record.as_object_mut().expect("an object");
        members.retain(|name, _| schema([]).named(name).is_some_and(|field| field.access != Server));
        let back = parse_body(record.to_string().as_bytes(), PATCH).expect("as shown");
        assert!(!schema([]).apply(&mut attributes, back.attributes, 9) && !back.only_ccpa_opt_out);
    }

    #[test]
    fn what_a_later_version_stored_is_kept() {
        let stored = r#"{"email":7,"firstName":"Rosa","shoeSize":{"eu":44}}"#;
        let attributes: Attributes = serde_json::from_str(stored).expect("a map");
        assert_eq!(serde_json::to_string(&attributes).expect("a map"), stored);
        let shown = render(&schema([]), &attributes, &Computed::default(), jiff::civil::date(2026, 3, 2));
        assert_eq!((&shown["email"], &shown["firstName"], shown.get("shoeSize")), (&json!(""), &json!("Rosa"), None));
        assert!(!format!("{attributes:?}").contains("Rosa"));
    }

    #[test]
    fn ages_count_full_years() {
        let on = |birth, today: &str| age(parse_date(birth).expect("a date"), parse_date(today).expect("a date"));
        assert_eq!([on("1985-02-11", "2026-02-10"), on("1985-02-11", "2026-02-11"), on("2030-01-01", "2026-02-11")], [40, 41, 0]);
        assert_eq!([on("2004-02-29", "2022-02-28"), on("2004-02-29", "2022-03-01")], [17, 18]);
    }
}
