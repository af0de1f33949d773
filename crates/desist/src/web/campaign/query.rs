//! What the query of a URL asks: page, order, and the parameters of the filters.
//!
//! Invariants: a parameter that is used has one reading; a link made here asks the same when it comes
//! back; and no refusal and no `Debug` repeats a value, for values are people's addresses.

use std::fmt;

use desist_engine::lists::Position;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::error::{CampaignError, Echo};
use super::path::{Filter, Resource, Root, decode};

/// Records on a page for callers that do not say: Adobe's own default.
pub const LINES_DEFAULT: usize = 25;
/// Most records on a page. Adobe names no maximum; a thousand profiles of 2 KiB are an answer of 2 MiB,
/// and a caller that asks for more gets the rest by `next`.
pub const LINES_MAX: usize = 1000;

const LINE_COUNT: &str = "_lineCount";
const LINE_START: &str = "_lineStart";
const ORDER: &str = "_order";
const EMAIL: &str = "email";
const TEXT: &str = "text";
const FILTER_TYPE: &str = "filterType";
const SERVICE: &str = "service";
const CCPA_OPT_OUT: &str = "ccpaOptOut_parameter";
const CHANNEL: &str = "channel";
const START_DATE: &str = "startDate";
const END_DATE: &str = "endDate";
const TARGET_RESOURCE: &str = "targetResource";

/// The built-in fields that `byText` searches when `filterType` names them.
const TEXT_FIELDS: [&str; 3] = ["email", "firstName", "lastName"];
/// How the name of every custom field begins; `filterType` may leave it out.
const CUSTOM_PREFIX: &str = "cus";

/// What stands in a link as `%XX`: everything that some reader of a query takes for something else than
/// itself, such as `+`, which may be a space.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'@').remove(b':').remove(b'/');

/// A query taken apart. It holds personal data.
#[derive(Clone, PartialEq, Eq)]
pub struct Query {
    /// Names and values, decoded.
    parameters: Vec<(String, String)>,
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not even the names: a caller may have put an address where a name belongs.
        f.debug_struct("Query").field("parameters", &self.parameters.len()).finish()
    }
}

/// The order of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Shaped as the name of an attribute; whether there is such a one is not known here.
    pub attribute: String,
    /// From the last to the first.
    pub descending: bool,
}

/// What a filter asks of a record. It holds personal data.
#[derive(Clone, PartialEq, Eq)]
pub enum Condition {
    /// This address.
    Email(String),
    /// A text that begins so.
    Text {
        /// Where.
        fields: TextFields,
        /// How.
        prefix: String,
    },
    /// A subscription to the service with this key; begins with `@`.
    Subscribers(String),
    /// The state of the opt-out.
    OptedOut(bool),
    /// `email` or `sms`.
    Channel(String),
    /// Dates, `YYYY-MM-DD`.
    Planning {
        /// From this day on.
        start: Option<String>,
        /// Up to this day.
        end: Option<String>,
    },
    /// What subscribes.
    TargetResource(String),
}

/// Where a text is searched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextFields {
    /// In those that the resource searches when nothing is said.
    Default,
    /// In this field: a built-in one or a custom one, by its full name.
    Named(String),
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Email(_) => "Email",
            Self::Text { .. } => "Text",
            Self::Subscribers(_) => "Subscribers",
            Self::OptedOut(_) => "OptedOut",
            Self::Channel(_) => "Channel",
            Self::Planning { .. } => "Planning",
            Self::TargetResource(_) => "TargetResource",
        })
    }
}

impl Condition {
    /// The parameters that ask for it.
    fn parameters(&self) -> Vec<(&'static str, &str)> {
        match self {
            Self::Email(email) => vec![(EMAIL, email)],
            Self::Text { fields: TextFields::Default, prefix } => vec![(TEXT, prefix)],
            Self::Text { fields: TextFields::Named(field), prefix } => vec![(TEXT, prefix), (FILTER_TYPE, field)],
            Self::Subscribers(service) => vec![(SERVICE, service)],
            Self::OptedOut(opted_out) => vec![(CCPA_OPT_OUT, if *opted_out { "true" } else { "false" })],
            Self::Channel(channel) => vec![(CHANNEL, channel)],
            Self::Planning { start, end } => {
                [(START_DATE, start), (END_DATE, end)].into_iter().filter_map(|(name, day)| Some((name, day.as_deref()?))).collect()
            }
            Self::TargetResource(target) => vec![(TARGET_RESOURCE, target)],
        }
    }
}

/// Takes a query apart. [`super::path::resolve`] has bounded its length.
pub fn parse(query: Option<&str>) -> Result<Query, CampaignError> {
    let spaced = |text: &str| decode(&text.replace('+', " "));
    let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let parameters = pairs.map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = spaced(name)?;
        // Addresses have a plus and never a space; as in a form, `rosa+news@` would find nobody.
        let value = if name == EMAIL { decode(value)? } else { spaced(value)? };
        Ok((name, value))
    });
    Ok(Query { parameters: parameters.collect::<Result<_, CampaignError>>()? })
}

fn unusable(name: &str, must: &'static str) -> CampaignError {
    // `Echo::name` takes no underscore in front. These are our own names or configured ones.
    CampaignError::BadParameter { name: Echo::choice(name), must }
}

impl Query {
    /// A parameter that is used, so that two of it would be two readings.
    pub fn get(&self, name: &str) -> Result<Option<&str>, CampaignError> {
        let mut values = self.parameters.iter().filter(|(found, _)| found == name).map(|(_, value)| value.as_str());
        let first = values.next();
        if values.next().is_some() { Err(unusable(name, "given once")) } else { Ok(first) }
    }
    fn get_filled(&self, name: &str) -> Result<Option<&str>, CampaignError> {
        Ok(self.get(name)?.filter(|value| !value.is_empty()))
    }
    fn require(&self, name: &str, must: &'static str, is_usable: impl Fn(&str) -> bool) -> Result<String, CampaignError> {
        self.get_filled(name)?.filter(|value| is_usable(value)).map(str::to_owned).ok_or_else(|| unusable(name, must))
    }

    /// How many records the page may hold: 1 to [`LINES_MAX`].
    pub fn line_count(&self) -> Result<usize, CampaignError> {
        Ok(self.line_count_given()?.unwrap_or(LINES_DEFAULT))
    }
    fn line_count_given(&self) -> Result<Option<usize>, CampaignError> {
        let Some(text) = self.get(LINE_COUNT)? else { return Ok(None) };
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // Digits alone that do not fit are a large number.
        match text.parse().unwrap_or(usize::MAX) {
            count if is_number && count > 0 => Ok(Some(count.min(LINES_MAX))),
            _ => Err(unusable(LINE_COUNT, "a whole number from 1 on")),
        }
    }

    /// The token of the page, with its `@`; not opened.
    pub fn line_start(&self) -> Result<Option<&str>, CampaignError> {
        match self.get(LINE_START)? {
            Some(token) if !token.starts_with('@') => Err(unusable(LINE_START, "taken from a \"next\" link, where it begins with \"@\"")),
            token => Ok(token),
        }
    }

    /// The order, if one is asked for.
    pub fn order(&self) -> Result<Option<Order>, CampaignError> {
        let bad = || unusable(ORDER, "the name of an attribute, alone or with \"asc\" or \"desc\" after a space");
        let Some(text) = self.get(ORDER)? else { return Ok(None) };
        // The usual client encodes it twice.
        let text = if text.contains('%') { decode(text).map_err(|_| bad())? } else { text.to_owned() };
        let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).collect();
        let (attribute, descending) = match words.as_slice() {
            [] => return Ok(None),
            [attribute] | [attribute, "asc"] => (attribute, false),
            [attribute, "desc"] => (attribute, true),
            _ => return Err(bad()),
        };
        let is_name = attribute.starts_with(|first: char| first.is_ascii_alphabetic())
            && attribute.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte));
        if is_name { Ok(Some(Order { attribute: (*attribute).to_owned(), descending })) } else { Err(bad()) }
    }

    /// One condition for each filter, in their order. `custom` names the custom text fields of the
    /// resource.
    pub fn conditions(&self, resource: Resource, filters: &[Filter], custom: &[String]) -> Result<Vec<Condition>, CampaignError> {
        filters.iter().map(|filter| self.condition(resource, *filter, custom)).collect()
    }

    fn condition(&self, resource: Resource, filter: Filter, custom: &[String]) -> Result<Condition, CampaignError> {
        Ok(match filter {
            Filter::ByEmail | Filter::ByKeysProfile => Condition::Email(self.require(EMAIL, "an e-mail address", |_| true)?),
            Filter::ByText => match resource {
                Resource::Profile => self.text(custom)?,
                Resource::Service => self.text_in(TextFields::Default, TEXT)?,
            },
            Filter::Subscribers => Condition::Subscribers(self.require(SERVICE, "the PKey of a service", |pkey| pkey.starts_with('@'))?),
            Filter::ByCcpaOptOut => {
                let value = self.require(CCPA_OPT_OUT, "true or false", |value| matches!(value, "true" | "false"))?;
                Condition::OptedOut(value == "true")
            }
            Filter::ByChannel => Condition::Channel(self.require(CHANNEL, "email or sms", |value| matches!(value, "email" | "sms"))?),
            Filter::ByPlanning => Condition::Planning { start: self.day(START_DATE)?, end: self.day(END_DATE)? },
            Filter::ByTargetResource => {
                Condition::TargetResource(self.require(TARGET_RESOURCE, "the name of what subscribes, such as profile", |_| true)?)
            }
        })
    }

    /// The text stands under `text`; that of a custom field may stand under the field's own name.
    fn text(&self, custom: &[String]) -> Result<Condition, CampaignError> {
        let Some(named) = self.get_filled(FILTER_TYPE)? else { return self.text_in(TextFields::Default, TEXT) };
        if TEXT_FIELDS.contains(&named) {
            return self.text_in(TextFields::Named(named.to_owned()), TEXT);
        }
        // The full name first: a field may be called as another one without its prefix.
        let field = custom
            .iter()
            .find(|field| *field == named)
            .or_else(|| custom.iter().find(|field| field.strip_prefix(CUSTOM_PREFIX) == Some(named)))
            .ok_or_else(|| unusable(FILTER_TYPE, "email, firstName, lastName or a custom text field"))?;
        let parameter = match (self.get_filled(TEXT)?, self.get_filled(field)?) {
            (Some(_), Some(_)) => return Err(unusable(TEXT, "given once, as text or under the name of the field")),
            (None, Some(_)) => field,
            (_, None) => TEXT,
        };
        self.text_in(TextFields::Named(field.clone()), parameter)
    }
    fn text_in(&self, fields: TextFields, parameter: &str) -> Result<Condition, CampaignError> {
        Ok(Condition::Text { fields, prefix: self.require(parameter, "the beginning of a text", |_| true)? })
    }

    fn day(&self, name: &str) -> Result<Option<String>, CampaignError> {
        let Some(text) = self.get_filled(name)? else { return Ok(None) };
        // The length and the dashes first: the parser also takes times and other forms of a date.
        let has_form = text.len() == 10
            && text.bytes().enumerate().all(|(at, byte)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() });
        if has_form && text.parse::<jiff::civil::Date>().is_ok() {
            Ok(Some(text.to_owned()))
        } else {
            Err(unusable(name, "a date such as 2026-03-31"))
        }
    }

    /// The query of the link to the next page: what the filters need, the size of the page and the order
    /// as they were asked for, and `token`. Everything else is left out.
    pub fn next_query(&self, conditions: &[Condition], token: &str) -> Result<String, CampaignError> {
        let mut parameters = own_parameters(conditions);
        let lines = self.line_count_given()?.map(|lines| lines.to_string());
        let order = self.order()?.map(|order| if order.descending { format!("{} desc", order.attribute) } else { order.attribute });
        parameters.extend(lines.as_deref().map(|lines| (LINE_COUNT, lines)));
        parameters.extend(order.as_deref().map(|order| (ORDER, order)));
        parameters.push((LINE_START, token));
        Ok(encode(&parameters))
    }
}

/// The query of the link to the count: what the filters need, and nothing else. May be empty.
pub fn count_query(conditions: &[Condition]) -> String {
    encode(&own_parameters(conditions))
}

/// Each once: two filters may share a parameter, and then it has one value.
fn own_parameters(conditions: &[Condition]) -> Vec<(&'static str, &str)> {
    let mut parameters = Vec::new();
    for parameter in conditions.iter().flat_map(Condition::parameters) {
        if !parameters.contains(&parameter) {
            parameters.push(parameter);
        }
    }
    parameters
}

fn encode(parameters: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = parameters.iter().map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, ENCODED))).collect();
    pairs.join("&")
}

/// Bytes that stand for what is asked, whichever root it is asked under: the token of a page is bound to
/// them, so that it cannot continue another list. They hold personal data.
pub fn scope(resource: Resource, conditions: &[Condition], order: Option<&Order>) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Every number and every text is measured: no two questions have the same bytes.
    let number = |bytes: &mut Vec<u8>, number: usize| bytes.extend((number as u64).to_le_bytes());
    let text = |bytes: &mut Vec<u8>, text: &str| {
        number(bytes, text.len());
        bytes.extend(text.as_bytes());
    };
    text(&mut bytes, resource.as_str());
    number(&mut bytes, conditions.len());
    for condition in conditions {
        let parameters = condition.parameters();
        number(&mut bytes, parameters.len());
        for (name, value) in parameters {
            text(&mut bytes, name);
            text(&mut bytes, value);
        }
    }
    if let Some(order) = order {
        text(&mut bytes, &order.attribute);
        bytes.push(u8::from(order.descending));
    }
    bytes
}

/// The parameters that a filter takes.
pub const fn parameters(filter: Filter, resource: Resource) -> &'static [&'static str] {
    match (filter, resource) {
        (Filter::ByEmail | Filter::ByKeysProfile, _) => &[EMAIL],
        (Filter::ByText, Resource::Profile) => &[TEXT, FILTER_TYPE],
        (Filter::ByText, Resource::Service) => &[TEXT],
        (Filter::Subscribers, _) => &[SERVICE],
        (Filter::ByCcpaOptOut, _) => &[CCPA_OPT_OUT],
        (Filter::ByChannel, _) => &[CHANNEL],
        (Filter::ByPlanning, _) => &[START_DATE, END_DATE],
        (Filter::ByTargetResource, _) => &[TARGET_RESOURCE],
    }
}

/// Runs everything that a stranger's query reaches: never panics, a link asks what the query asked, and
/// the order of parameters means nothing.
#[doc(hidden)]
pub fn fuzz_query(data: &[u8]) {
    if let Some(position) = Position::from_bytes(data) {
        assert_eq!(position.to_bytes(), data, "one form");
    }
    let text = String::from_utf8_lossy(data);
    let Ok(query) = parse(Some(&text)) else { return };
    let reversed = text.split('&').rev().collect::<Vec<_>>().join("&");
    let reversed = parse(Some(&reversed)).expect("the same parameters");
    let custom = ["cusHobby".to_owned(), "cusPet_name".to_owned()];
    let (order, lines) = (query.order(), query.line_count());
    assert!(lines.iter().all(|lines| (1..=LINES_MAX).contains(lines)));
    assert!(query.line_start().iter().flatten().all(|token| token.starts_with('@')));
    assert!((&order, &lines, query.line_start()) == (&reversed.order(), &reversed.line_count(), reversed.line_start()));
    for resource in [Resource::Profile, Resource::Service] {
        let all = Filter::of(Root::ProfileAndServicesExt, resource);
        let each = all.iter().map(std::slice::from_ref).chain([all, &[]]);
        for (filters, custom) in each.flat_map(|filters| [(filters, &custom[..]), (filters, &[])]) {
            let conditions = query.conditions(resource, filters, custom);
            assert!(conditions == reversed.conditions(resource, filters, custom));
            let Ok(conditions) = conditions else { continue };
            let again = |link: &str| {
                let again = parse(Some(link)).expect("our own link");
                assert!(again.conditions(resource, filters, custom).as_ref() == Ok(&conditions));
                again
            };
            again(&count_query(&conditions));
            let Ok(next) = query.next_query(&conditions, "@t-1_Z") else {
                assert!(order.is_err() || lines.is_err(), "nothing else refuses a link");
                continue;
            };
            let again = again(&next);
            assert!((again.order(), again.line_count()) == (order.clone(), lines.clone()));
            assert!(again.line_start() == Ok(Some("@t-1_Z")));
            assert!(again.next_query(&conditions, "@t-1_Z") == Ok(next), "one form");
            let scoped = |query: &Query| {
                let conditions = query.conditions(resource, filters, custom).expect("as before");
                scope(resource, &conditions, query.order().expect("the link has it").as_ref())
            };
            assert!(scoped(&query) == scoped(&reversed) && scoped(&query) == scoped(&again));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    fn read(query: &str) -> Query {
        parse(Some(query)).expect("a query that can be read")
    }
    fn custom() -> Vec<String> {
        ["cusHobby", "cuscusPet", "cusPet"].map(str::to_owned).to_vec()
    }
    fn text(fields: TextFields, prefix: &str) -> Condition {
        Condition::Text { fields, prefix: prefix.to_owned() }
    }
    fn named(field: &str) -> TextFields {
        TextFields::Named(field.to_owned())
    }
    fn planning(start: Option<&str>, end: Option<&str>) -> Condition {
        Condition::Planning { start: start.map(str::to_owned), end: end.map(str::to_owned) }
    }
    fn email(address: &str) -> Condition {
        Condition::Email(address.to_owned())
    }

    /// `Debug` hides what differs, so the texts are compared where that is what matters.
    fn shown(conditions: &[Condition]) -> Vec<Vec<(&str, &str)>> {
        conditions.iter().map(Condition::parameters).collect()
    }

    #[test]
    fn the_size_of_a_page() {
        for (query, lines) in [
            ("", Some(25)),
            ("limit=0&page=x", Some(25)),
            ("_lineCount=1", Some(1)),
            ("_lineCount=1000", Some(1000)),
            ("_lineCount=1001", Some(1000)),
            ("_lineCount=99999999999999999999999999", Some(1000)),
            ("_lineCount=007", Some(7)),
            ("_line%43ount=%33", Some(3)),
            ("_lineCount=0", None),
            ("_lineCount=000", None),
            ("_lineCount=-1", None),
            ("_lineCount=+1", None),
            ("_lineCount=%2B1", None),
            ("_lineCount=1.5", None),
            ("_lineCount=1e3", None),
            ("_lineCount=ten", None),
            ("_lineCount=", None),
            ("_lineCount", None),
            ("_lineCount=%D9%A3", None),
            ("_lineCount=2&_lineCount=2", None),
        ] {
            let found = read(query).line_count();
            assert_eq!(found.as_ref().ok(), lines.as_ref(), "{query}");
            assert!(found.err().is_none_or(|error| error.pointer().as_deref() == Some("_lineCount")), "{query}");
        }
        assert_eq!(parse(None).expect("no query").line_count(), Ok(LINES_DEFAULT));
    }

    #[test]
    fn the_start_of_a_page_is_a_token() {
        for (query, token) in [
            ("a=1", Ok(None)),
            ("_lineStart=@eyJ-_", Ok(Some("@eyJ-_"))),
            ("_lineStart=%40eyJ", Ok(Some("@eyJ"))),
            ("_lineStart=%2540eyJ", Err(())),
            ("_lineStart=25", Err(())),
            ("_lineStart=", Err(())),
            ("_lineStart=@a&_lineStart=@a", Err(())),
        ] {
            assert_eq!(read(query).line_start().map_err(|_| ()), token, "{query}");
        }
    }

    #[test]
    fn the_order_of_a_list() {
        let order = |attribute: &str, descending| Some(Order { attribute: attribute.to_owned(), descending });
        for (value, expected) in [
            ("email", Ok(order("email", false))),
            ("email%20asc", Ok(order("email", false))),
            ("email%20desc", Ok(order("email", true))),
            ("email+desc", Ok(order("email", true))),
            ("email%2520desc", Ok(order("email", true))),
            ("email%2520%2520asc%20", Ok(order("email", false))),
            ("location.city", Ok(order("location.city", false))),
            ("cusPet_name2%20desc", Ok(order("cusPet_name2", true))),
            ("", Ok(None)),
            ("%20", Ok(None)),
            ("desc", Ok(order("desc", false))),
            ("email%20DESC", Err(())),
            ("email%20down", Err(())),
            ("email%20desc%20asc", Err(())),
            ("email,lastName", Err(())),
            ("email%252520desc", Err(())),
            ("email%25zz", Err(())),
            ("email%2500", Err(())),
            ("email%25ff", Err(())),
            ("5551234567", Err(())),
            ("rosa@example.org", Err(())),
            ("email&_order=email", Err(())),
        ] {
            let found = read(&format!("_order={value}")).order();
            assert_eq!(found.map_err(|_| ()), expected, "{value}");
        }
        assert_eq!(read("").order(), Ok(None));
    }

    #[test]
    fn what_filters_ask() {
        use Filter::{ByCcpaOptOut, ByChannel, ByEmail, ByKeysProfile, ByPlanning, ByTargetResource, ByText, Subscribers};
        use Resource::{Profile, Service};
        let cases: &[(Resource, &[Filter], &str, Vec<Condition>)] = &[
            (Profile, &[], "email=rosa@example.org", vec![]),
            (Profile, &[ByEmail], "email=rosa@example.org", vec![email("rosa@example.org")]),
            (Profile, &[ByKeysProfile], "email=rosa%40example.org", vec![email("rosa@example.org")]),
            (Profile, &[ByEmail], "email=rosa+news@example.org", vec![email("rosa+news@example.org")]),
            (Profile, &[ByEmail], "%65mail=rosa%2Bnews%40example.org", vec![email("rosa+news@example.org")]),
            (Profile, &[ByEmail], "email=a%26b%3Dc%25@example.org", vec![email("a&b=c%@example.org")]),
            (Profile, &[ByEmail], "&&email=a=b@c.org&", vec![email("a=b@c.org")]),
            (Profile, &[ByEmail, ByKeysProfile], "email=a@b.org", vec![email("a@b.org"), email("a@b.org")]),
            (Profile, &[ByText], "text=De+la%20Vega", vec![text(TextFields::Default, "De la Vega")]),
            (Profile, &[ByText], "text=Ve&filterType=", vec![text(TextFields::Default, "Ve")]),
            (Profile, &[ByText], "filterType=lastName&text=Ve", vec![text(named("lastName"), "Ve")]),
            (Profile, &[ByText], "text=rosa%2Bnews&filterType=email", vec![text(named("email"), "rosa+news")]),
            (Profile, &[ByText], "text=%C3%A9&filterType=firstName", vec![text(named("firstName"), "é")]),
            (Profile, &[ByText], "text=Dan&filterType=Hobby", vec![text(named("cusHobby"), "Dan")]),
            (Profile, &[ByText], "text=Dan&filterType=cusHobby", vec![text(named("cusHobby"), "Dan")]),
            (Profile, &[ByText], "cusHobby=Dancing&filterType=Hobby", vec![text(named("cusHobby"), "Dancing")]),
            (Profile, &[ByText], "cusHobby=Dancing&filterType=cusHobby&text=", vec![text(named("cusHobby"), "Dancing")]),
            (Profile, &[ByText], "text=Rex&filterType=cusPet&cusHobby=x&cusHobby=y", vec![text(named("cusPet"), "Rex")]),
            (Profile, &[ByText], "text=Rex&filterType=cuscusPet", vec![text(named("cuscusPet"), "Rex")]),
            (Profile, &[Subscribers], "service=%40svc-1", vec![Condition::Subscribers("@svc-1".to_owned())]),
            (Profile, &[ByCcpaOptOut], "ccpaOptOut_parameter=true", vec![Condition::OptedOut(true)]),
            (Profile, &[ByCcpaOptOut], "ccpaOptOut_parameter=false", vec![Condition::OptedOut(false)]),
            (Profile, &[ByText, ByEmail], "email=a@b.org&text=Ve", vec![text(TextFields::Default, "Ve"), email("a@b.org")]),
            (Service, &[ByText], "text=News&filterType=none&cusHobby=x", vec![text(TextFields::Default, "News")]),
            (Service, &[ByChannel], "channel=sms", vec![Condition::Channel("sms".to_owned())]),
            (Service, &[ByPlanning], "", vec![planning(None, None)]),
            (Service, &[ByPlanning], "startDate=2026-01-31", vec![planning(Some("2026-01-31"), None)]),
            (Service, &[ByPlanning], "endDate=2028-02-29&startDate=", vec![planning(None, Some("2028-02-29"))]),
            (Service, &[ByTargetResource], "targetResource=profile", vec![Condition::TargetResource("profile".to_owned())]),
            // Nobody uses these, so they may come as often as they like.
            (Profile, &[ByEmail], "email=a@b.org&limit=1&limit=2&text=x&text=y&service=z", vec![email("a@b.org")]),
        ];
        for (resource, filters, query, expected) in cases {
            let found = read(query).conditions(*resource, filters, &custom()).unwrap_or_else(|error| panic!("{query}: {error}"));
            assert_eq!(shown(&found), shown(expected), "{query}");
            assert!(found == *expected, "{query}");
        }
    }

    #[test]
    fn a_filter_without_its_parameter_is_refused_by_name() {
        use Filter::{ByCcpaOptOut, ByChannel, ByEmail, ByKeysProfile, ByPlanning, ByTargetResource, ByText, Subscribers};
        use Resource::{Profile, Service};
        for (resource, filter, query, name) in [
            (Profile, ByEmail, "", "email"),
            (Profile, ByEmail, "email=", "email"),
            (Profile, ByEmail, "EMAIL=secret@example.org", "email"),
            (Profile, ByKeysProfile, "text=secret", "email"),
            (Profile, ByEmail, "email=secret@example.org&email=secret@example.org", "email"),
            (Profile, ByEmail, "email=secret@example.org&e%6Dail=", "email"),
            (Profile, ByText, "", "text"),
            (Profile, ByText, "text=&filterType=email", "text"),
            (Profile, ByText, "email=secret&filterType=email", "text"),
            (Profile, ByText, "cusHobby=secret", "text"),
            (Profile, ByText, "cusHobby=&filterType=Hobby", "text"),
            (Profile, ByText, "Hobby=secret&filterType=Hobby", "text"),
            (Profile, ByText, "cusHobby=secret&text=secret&filterType=Hobby", "text"),
            (Profile, ByText, "cusHobby=secret&cusHobby=secret&filterType=Hobby", "cusHobby"),
            (Profile, ByText, "text=secret&filterType=secret", "filterType"),
            (Profile, ByText, "text=secret&filterType=hobby", "filterType"),
            (Profile, ByText, "text=secret&filterType=email&filterType=lastName", "filterType"),
            (Profile, Subscribers, "", "service"),
            (Profile, Subscribers, "service=secret", "service"),
            (Profile, ByCcpaOptOut, "ccpaOptOut=true", "ccpaOptOut_parameter"),
            (Profile, ByCcpaOptOut, "ccpaOptOut_parameter=secret", "ccpaOptOut_parameter"),
            (Profile, ByCcpaOptOut, "ccpaOptOut_parameter=TRUE", "ccpaOptOut_parameter"),
            (Service, ByText, "filterType=email", "text"),
            (Service, ByChannel, "channel=fax", "channel"),
            (Service, ByPlanning, "startDate=2026-02-29", "startDate"),
            (Service, ByPlanning, "startDate=20260228", "startDate"),
            (Service, ByPlanning, "endDate=2026-02-28T00:00", "endDate"),
            (Service, ByPlanning, "endDate=2026-2-280", "endDate"),
            (Service, ByPlanning, "endDate=-026-02-28", "endDate"),
            (Service, ByTargetResource, "targetResource=", "targetResource"),
        ] {
            let error = read(query).conditions(resource, &[filter], &custom()).expect_err(query);
            assert!(matches!(error, CampaignError::BadParameter { .. }), "{query}");
            assert_eq!(error.pointer().as_deref(), Some(name), "{query}");
            assert!(!error.to_string().contains("secret"), "{query}: {error}");
        }
        let no_custom_fields = read("cusHobby=Dancing&filterType=Hobby").conditions(Profile, &[ByText], &[]);
        assert!(no_custom_fields.is_err_and(|error| error.pointer().as_deref() == Some("filterType")));
    }

    #[test]
    fn a_query_with_two_readings_is_refused() {
        for query in ["a=%", "a=%4", "a=%zz", "%=a", "a=%ff", "a=%00", "%0a", "email=%C3", "email=a%0Ab", "a=1&b=%7f", "a=\n"] {
            assert!(matches!(parse(Some(query)), Err(CampaignError::BadUrl(_))), "{query:?}");
        }
    }

    #[test]
    fn links_ask_the_same_again_and_nothing_else() {
        use Filter::{ByCcpaOptOut, ByEmail, ByKeysProfile, ByPlanning, ByText};
        use Resource::{Profile, Service};
        let cases: &[(Resource, &[Filter], &str, &str, &str)] = &[
            (Profile, &[], "limit=1", "", "_lineStart=@t"),
            (
                Profile,
                &[],
                "_lineStart=@old&_order=email%2520desc&x=y&_lineCount=5000&_forcePagination=true",
                "",
                "_lineCount=1000&_order=email%20desc&_lineStart=@t",
            ),
            (
                Profile,
                &[ByEmail],
                "_order=email+asc&email=a+b%26@c.org",
                "email=a%2Bb%26@c.org",
                "email=a%2Bb%26@c.org&_order=email&_lineStart=@t",
            ),
            (Profile, &[ByEmail, ByKeysProfile], "email=a@b.org&_order=", "email=a@b.org", "email=a@b.org&_lineStart=@t"),
            (
                Profile,
                &[ByText, ByCcpaOptOut],
                "ccpaOptOut_parameter=true&cusHobby=D+%C3%A9&filterType=Hobby&_lineCount=01",
                "text=D%20%C3%A9&filterType=cusHobby&ccpaOptOut_parameter=true",
                "text=D%20%C3%A9&filterType=cusHobby&ccpaOptOut_parameter=true&_lineCount=1&_lineStart=@t",
            ),
            (
                Service,
                &[ByPlanning],
                "endDate=2026-01-02&startDate=2026-01-01",
                "startDate=2026-01-01&endDate=2026-01-02",
                "startDate=2026-01-01&endDate=2026-01-02&_lineStart=@t",
            ),
        ];
        for (resource, filters, query, count, next) in cases {
            let read = read(query);
            let conditions = read.conditions(*resource, filters, &custom()).expect("good parameters");
            assert_eq!(count_query(&conditions), *count, "{query}");
            assert_eq!(read.next_query(&conditions, "@t").as_deref(), Ok(*next), "{query}");
        }
        assert!(read("_lineCount=0").next_query(&[], "@t").is_err() && read("_order=a%20b").next_query(&[], "@t").is_err());
    }

    #[test]
    fn a_token_is_bound_to_the_question() {
        use Resource::{Profile, Service};
        let order = |attribute: &str, descending| Some(Order { attribute: attribute.to_owned(), descending });
        let questions = [
            (Profile, vec![], None),
            (Service, vec![], None),
            (Profile, vec![], order("email", false)),
            (Profile, vec![], order("email", true)),
            (Profile, vec![], order("lastName", false)),
            (Profile, vec![email("a@b.org")], None),
            (Profile, vec![email("a@b.or")], None),
            (Profile, vec![email("a@b.org"), email("a@b.org")], None),
            (Profile, vec![email("a")], order("b", false)),
            (Profile, vec![email("ab\0")], None),
            (Profile, vec![text(TextFields::Default, "a@b.org")], None),
            (Profile, vec![text(named("email"), "a@b.org")], None),
            (Profile, vec![email("a@b.org"), text(TextFields::Default, "x")], None),
            (Profile, vec![text(TextFields::Default, "x"), email("a@b.org")], None),
            (Profile, vec![Condition::OptedOut(true)], None),
            (Profile, vec![Condition::OptedOut(false)], None),
            (Service, vec![planning(None, None)], None),
            (Service, vec![planning(Some("2026-01-01"), None)], None),
            (Service, vec![planning(None, Some("2026-01-01"))], None),
        ];
        let scopes: Vec<_> = questions.iter().map(|(resource, conditions, order)| scope(*resource, conditions, order.as_ref())).collect();
        for (at, one) in scopes.iter().enumerate() {
            assert!(!scopes[..at].contains(one), "question {at} is taken for another");
        }
    }

    #[test]
    fn what_is_shown_of_a_query_names_nobody() {
        let query = read("email=rosa@example.org&text=rosa&rosa=1&service=@rosa&targetResource=rosa");
        let position = Position { stage: 1, value: "rosa".to_owned(), no: 7 };
        let mut shown = format!("{query:?} {position:?}");
        for resource in [Resource::Profile, Resource::Service] {
            for filter in Filter::of(Root::ProfileAndServices, resource).iter().filter(|filter| **filter != Filter::ByChannel) {
                write!(shown, " {:?}", query.conditions(resource, &[*filter], &[])).expect("memory takes all");
            }
        }
        assert!(shown.contains("Email") && !shown.contains("rosa"), "{shown}");
    }

    #[test]
    fn positions_come_back_as_they_were() {
        for (stage, value, no) in [(0, "", 0), (1, "rosa@example.org", 1), (255, "é\0\u{10FFFF}", u64::MAX)] {
            let position = Position { stage, value: value.to_owned(), no };
            let bytes = position.to_bytes();
            assert_eq!(bytes.len(), 9 + value.len());
            assert!(Position::from_bytes(&bytes) == Some(position));
        }
        assert_eq!(Position { stage: 2, value: "a".to_owned(), no: 0x0102 }.to_bytes(), [2, 2, 1, 0, 0, 0, 0, 0, 0, b'a']);
        for bad in [&b""[..], b"12345678", b"123456789\xff", b"123456789\xC3"] {
            assert_eq!(Position::from_bytes(bad), None);
        }
    }

    /// Pieces of real queries in any order get deeper than random text does.
    const PIECES: &[&[u8]] = &[
        b"&",
        b"=",
        b"+",
        b"%",
        b"%20",
        b"%25",
        b"%26",
        b"%3D",
        b"%2B",
        b"%C3%A9",
        b"%00",
        b"\xff",
        b"\xc3\xa9",
        b"_lineCount=",
        b"_lineStart=@",
        b"_order=",
        b"&email=",
        b"&text=",
        b"&filterType=",
        b"&filterType=email",
        b"&filterType=Hobby",
        b"&cusHobby=",
        b"&service=@",
        b"&ccpaOptOut_parameter=true",
        b"&channel=sms",
        b"&startDate=2026-01-01",
        b"&endDate=",
        b"&targetResource=",
        b"&limit=",
        b"email",
        b"lastName",
        b" desc",
        b"%2520desc",
        b"a@b.org",
        b"10",
        b"0",
        b"\"'<>#?/\\;:",
    ];

    #[test]
    fn any_query_is_refused_or_comes_back_in_its_links() {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[11; 32]);
        let mut runner = TestRunner::new_with_rng(Config { cases: 8192, failure_persistence: None, ..Config::default() }, rng);
        let piece = prop_oneof![
            12 => proptest::sample::select(PIECES).prop_map(<[u8]>::to_vec),
            1 => proptest::collection::vec(any::<u8>(), 0..4),
            1 => "\\PC{0,6}".prop_map(String::into_bytes),
        ];
        let bytes = proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat());
        runner
            .run(&bytes, |bytes| {
                fuzz_query(&bytes);
                Ok(())
            })
            .expect("no case fails");
    }

    #[test]
    fn every_filter_comes_back_in_its_links_whatever_its_values_are() {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[12; 32]);
        let mut runner = TestRunner::new_with_rng(Config { cases: 1024, failure_persistence: None, ..Config::default() }, rng);
        let value = "\\PC{1,12}|[ -~]{1,12}";
        runner
            .run(&(value, value, value, "2[0-9]{3}-0[1-9]-[12][0-8]", 0..4usize), |(address, words, target, day, field)| {
                let field = ["", "email", "Hobby", "cusPet_name"][field];
                let query = encode(&[
                    (EMAIL, &address),
                    (TEXT, &words),
                    (FILTER_TYPE, field),
                    (SERVICE, &format!("@{words}")),
                    (CCPA_OPT_OUT, "true"),
                    (CHANNEL, "sms"),
                    (START_DATE, &day),
                    (TARGET_RESOURCE, &target),
                    (ORDER, "lastName desc"),
                    (LINE_COUNT, "12"),
                ]);
                for resource in [Resource::Profile, Resource::Service] {
                    let filters = Filter::of(Root::ProfileAndServicesExt, resource);
                    let conditions = read(&query).conditions(resource, filters, &["cusHobby".to_owned(), "cusPet_name".to_owned()]);
                    prop_assert_eq!(conditions.map(|conditions| conditions.len()), Ok(filters.len()));
                }
                prop_assert!(read(&query).get(EMAIL) == Ok(Some(&address)) && read(&query).get(TEXT) == Ok(Some(&words)));
                fuzz_query(query.as_bytes());
                Ok(())
            })
            .expect("no case fails");
    }
}
