//! Which resource a URL names.
//!
//! Invariant: a URL that a proxy in front could read in another way is refused, never guessed at.

use std::fmt;

use super::error::CampaignError;

/// Longest path and query that is looked at; the longest call in the field, a list with filters in
/// one encoded segment, stays below a quarter of it.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;

/// The first segment of an API path. All three show the same records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// `profilesAndServices`, in the opt-out calls of the documentation.
    ProfilesAndServices,
    /// `profileAndServices`, in clients and in the rest of the documentation.
    ProfileAndServices,
    /// `profileAndServicesExt`, the root of extended fields.
    ProfileAndServicesExt,
}

impl Root {
    const ALL: [Self; 3] = [Self::ProfilesAndServices, Self::ProfileAndServices, Self::ProfileAndServicesExt];

    /// As in the URL; `href`s of an answer keep the root that the caller used.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProfilesAndServices => "profilesAndServices",
            Self::ProfileAndServices => "profileAndServices",
            Self::ProfileAndServicesExt => "profileAndServicesExt",
        }
    }
}

/// What a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Profiles.
    Profile,
    /// Services.
    Service,
}

impl Resource {
    /// As in the URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Profile => "profile",
            Self::Service => "service",
        }
    }
}

/// A filter of a list. Several narrow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Profiles with this address.
    ByEmail,
    /// The same, under the name that stands for the unique key.
    ByKeysProfile,
    /// Records with a text that begins so.
    ByText,
    /// Profiles that are subscribed to a service.
    Subscribers,
    /// Profiles by their opt-out. Not Adobe's: shaped as a custom filter, so under the Ext root alone.
    ByCcpaOptOut,
    /// Services by the way their messages take.
    ByChannel,
    /// Services by their dates.
    ByPlanning,
    /// Services by what subscribes to them.
    ByTargetResource,
}

impl Filter {
    /// As in the URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ByEmail => "byEmail",
            Self::ByKeysProfile => "byKeysProfile",
            Self::ByText => "byText",
            Self::Subscribers => "subscribers",
            Self::ByCcpaOptOut => "byCcpaOptOut",
            Self::ByChannel => "byChannel",
            Self::ByPlanning => "byPlanning",
            Self::ByTargetResource => "byTargetResource",
        }
    }
    /// The filters that a list has.
    pub const fn of(root: Root, resource: Resource) -> &'static [Self] {
        match resource {
            Resource::Profile => match root {
                Root::ProfilesAndServices | Root::ProfileAndServices => {
                    &[Self::ByEmail, Self::ByKeysProfile, Self::ByText, Self::Subscribers]
                }
                Root::ProfileAndServicesExt => &[Self::ByEmail, Self::ByKeysProfile, Self::ByText, Self::Subscribers, Self::ByCcpaOptOut],
            },
            Resource::Service => &[Self::ByChannel, Self::ByPlanning, Self::ByTargetResource, Self::ByText],
        }
    }
}

/// What is wanted of the records of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// The records.
    Records,
    /// The values of this attribute alone.
    Values(String),
    /// How many there are.
    Count,
}

impl Show {
    /// Whether it is the list itself.
    pub fn is_records(&self) -> bool {
        *self == Self::Records
    }
}

/// A part of a marketing history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HistoryPart {
    /// The summary.
    Summary,
    /// The events.
    Events,
    /// How many events there are.
    EventCount,
}

/// What a URL names. Every key in it begins with `@` and is not checked further; see [`is_well_formed_pkey`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// A list.
    Collection {
        /// The root that the caller used.
        root: Root,
        /// What the list holds.
        resource: Resource,
        /// Each at most once, in the caller's order.
        filters: Vec<Filter>,
        /// What is wanted of it.
        show: Show,
    },
    /// One record.
    One {
        /// The root that the caller used.
        root: Root,
        /// What it is.
        resource: Resource,
        /// Its key.
        pkey: String,
    },
    /// The subscriptions of a record.
    Subscriptions {
        /// The root that the caller used.
        root: Root,
        /// What the record is.
        resource: Resource,
        /// The record's key.
        pkey: String,
        /// Whether their number is asked for, not they.
        show_count: bool,
    },
    /// One subscription of a record.
    Subscription {
        /// The root that the caller used.
        root: Root,
        /// What the record is.
        resource: Resource,
        /// The record's key.
        pkey: String,
        /// The subscription's key.
        subscription: String,
    },
    /// The description of a resource.
    Metadata {
        /// The root that the caller used.
        root: Root,
        /// `profile`, `service` or `history`.
        resource: String,
    },
    /// The description of a resource's filters.
    MetadataFilters {
        /// The root that the caller used.
        root: Root,
        /// The key of the description.
        pkey: String,
    },
    /// The marketing history of a profile.
    History {
        /// The root that the caller used.
        root: Root,
        /// The key of the history.
        pkey: String,
        /// What of it.
        part: HistoryPart,
    },
    /// The resources under the Ext root.
    Index,
    /// Units, which this server has none of; under the Ext root alone.
    Units {
        /// The root that the caller used.
        root: Root,
        /// `orgUnitBase` or `geoUnitBase`.
        resource: &'static str,
        /// The key, if one unit is asked for.
        pkey: Option<String>,
        /// Whether their number is asked for, not they.
        show_count: bool,
    },
    /// The privacy requests.
    PrivacyRequests {
        /// Whether their number is asked for, not they.
        show_count: bool,
    },
    /// One privacy request.
    PrivacyRequest {
        /// Its key.
        pkey: String,
    },
    /// The data file of a privacy request.
    PrivacyData {
        /// The request's key.
        pkey: String,
    },
    /// Nothing that is served.
    Unknown,
}

/// A URL taken apart.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// The organization, decoded; not compared with anything yet.
    pub org: String,
    /// The resource.
    pub route: Route,
    /// The query, not decoded, without its question mark.
    pub query: Option<String>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The query holds people's addresses.
        f.debug_struct("Target").field("org", &self.org).field("route", &self.route).finish_non_exhaustive()
    }
}

/// Tells whether a name is a top-level attribute of the resource under that root.
pub type IsAttribute<'a> = dyn Fn(Root, Resource, &str) -> bool + 'a;

/// Takes the path and query of a request apart: `/{org}/campaign/{root}/{resource}[/{segment}...][?query]`.
pub fn resolve(target: &str, attributes: &IsAttribute<'_>) -> Result<Target, CampaignError> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(CampaignError::BadUrl("is too long"));
    }
    let (path, query) = split(target);
    let raw = pieces(path);
    let (org, rest) = match raw.as_slice() {
        [] => (String::new(), None),
        [org, "campaign", rest @ ..] => (decode_segment(org)?, Some(rest)),
        [org, ..] => (decode_segment(org)?, None),
    };
    let (route, query) = match rest {
        None => (Route::Unknown, query),
        // One client call puts a whole URL, query included, into one segment, encoded once more.
        Some([whole]) if whole.to_ascii_uppercase().contains("%2F") => {
            let inner = decode(whole)?;
            let (path, inner_query) = split(&inner);
            let route = match below_campaign(path, &org)? {
                Some(raw) => route(&raw, attributes)?,
                None => Route::Unknown,
            };
            (route, inner_query.or(query))
        }
        Some(rest) => (route(rest, attributes)?, query),
    };
    Ok(Target { org, route, query })
}

fn split(target: &str) -> (&str, Option<String>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())))
}

/// The segments of a path. Adobe's own links have doubled slashes in places.
fn pieces(path: &str) -> Vec<&str> {
    path.split('/').filter(|piece| !piece.is_empty()).collect()
}

/// The segments after `campaign` of a URL that stood in one segment: a link of an answer as it is, its
/// path alone, or what follows `campaign`. Nothing if it leads to another organization or elsewhere.
fn below_campaign<'a>(url: &'a str, org: &str) -> Result<Option<Vec<&'a str>>, CampaignError> {
    let host_and_path = ["http://", "https://"]
        .into_iter()
        .find(|scheme| url.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))
        .map(|scheme| &url[scheme.len()..]);
    let path = host_and_path.map_or(url, |rest| rest.split_once('/').map_or("", |(_, path)| path));
    let raw = pieces(path);
    // A proxy in front may have added to the path, so the pair need not be its beginning.
    for (at, pair) in raw.windows(2).enumerate() {
        if pair[1] == "campaign" && (at == 0 || host_and_path.is_some()) && decode_segment(pair[0])? == org {
            return Ok(Some(raw[at + 2..].to_vec()));
        }
    }
    let elsewhere = host_and_path.is_some() || raw.get(1) == Some(&"campaign");
    Ok((!elsewhere).then_some(raw))
}

fn route(raw: &[&str], attributes: &IsAttribute<'_>) -> Result<Route, CampaignError> {
    let segments = raw.iter().map(|segment| decode_segment(segment)).collect::<Result<Vec<_>, _>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let Some((first, rest)) = segments.split_first() else { return Ok(Route::Unknown) };
    if *first == "privacy" {
        return Ok(privacy(rest));
    }
    let Some(root) = Root::ALL.into_iter().find(|root| root.as_str() == *first) else { return Ok(Route::Unknown) };
    let is_ext = root == Root::ProfileAndServicesExt;
    let Some((name, rest)) = rest.split_first() else {
        return Ok(if is_ext { Route::Index } else { Route::Unknown });
    };
    Ok(match without_suffix(name) {
        "profile" => records(root, Resource::Profile, rest, attributes),
        "service" => records(root, Resource::Service, rest, attributes),
        "resourceType" => metadata(root, rest),
        "history" => match rest {
            ["metadata"] => Route::Metadata { root, resource: "history".to_owned() },
            [pkey] if is_key(pkey) => Route::History { root, pkey: (*pkey).to_owned(), part: HistoryPart::Summary },
            [pkey, "events"] if is_key(pkey) => Route::History { root, pkey: (*pkey).to_owned(), part: HistoryPart::Events },
            [pkey, "events", "_count"] if is_key(pkey) => Route::History { root, pkey: (*pkey).to_owned(), part: HistoryPart::EventCount },
            _ => Route::Unknown,
        },
        "orgUnitBase" if is_ext => units(root, "orgUnitBase", rest),
        "geoUnitBase" if is_ext => units(root, "geoUnitBase", rest),
        _ => Route::Unknown,
    })
}

/// The name of a resource; callers may add `.json` to it.
fn without_suffix(name: &str) -> &str {
    name.strip_suffix(".json").unwrap_or(name)
}

fn is_key(segment: &str) -> bool {
    segment.starts_with('@')
}

/// What follows `profile` or `service`.
fn records(root: Root, resource: Resource, rest: &[&str], attributes: &IsAttribute<'_>) -> Route {
    let key = |pkey: &str| pkey.to_owned();
    match rest {
        [pkey] if is_key(pkey) => Route::One { root, resource, pkey: key(pkey) },
        [pkey, "subscriptions"] if is_key(pkey) => Route::Subscriptions { root, resource, pkey: key(pkey), show_count: false },
        [pkey, "subscriptions", "_count"] if is_key(pkey) => Route::Subscriptions { root, resource, pkey: key(pkey), show_count: true },
        [pkey, "subscriptions", subscription] if is_key(pkey) && is_key(subscription) => {
            Route::Subscription { root, resource, pkey: key(pkey), subscription: key(subscription) }
        }
        [pkey, ..] if is_key(pkey) => Route::Unknown,
        ["metadata"] => Route::Metadata { root, resource: resource.as_str().to_owned() },
        _ => collection(root, resource, rest, attributes),
    }
}

/// Filters, each at most once, then an attribute, then `_count`.
fn collection(root: Root, resource: Resource, rest: &[&str], attributes: &IsAttribute<'_>) -> Route {
    // One client joins its filters with an encoded slash.
    let words: Vec<&str> = rest.iter().flat_map(|segment| pieces(segment)).collect();
    let mut words = words.as_slice();
    let mut filters = Vec::new();
    while let [first, others @ ..] = words
        && let Some(filter) = Filter::of(root, resource).iter().find(|filter| filter.as_str() == *first)
    {
        if filters.contains(filter) {
            return Route::Unknown;
        }
        filters.push(*filter);
        words = others;
    }
    let show = match words {
        [] => Show::Records,
        // As many values as records: an attribute in front does not change their number.
        ["_count"] => Show::Count,
        [name, "_count"] if attributes(root, resource, name) => Show::Count,
        [name] if attributes(root, resource, name) => Show::Values((*name).to_owned()),
        _ => return Route::Unknown,
    };
    Route::Collection { root, resource, filters, show }
}

fn metadata(root: Root, rest: &[&str]) -> Route {
    match rest {
        [pkey] | [pkey, "filters"] if is_key(pkey) => Route::MetadataFilters { root, pkey: (*pkey).to_owned() },
        [name] if matches!(without_suffix(name), "profile" | "service" | "history") => {
            Route::Metadata { root, resource: without_suffix(name).to_owned() }
        }
        _ => Route::Unknown,
    }
}

fn units(root: Root, resource: &'static str, rest: &[&str]) -> Route {
    match rest {
        [] => Route::Units { root, resource, pkey: None, show_count: false },
        ["_count"] => Route::Units { root, resource, pkey: None, show_count: true },
        [pkey] if is_key(pkey) => Route::Units { root, resource, pkey: Some((*pkey).to_owned()), show_count: false },
        _ => Route::Unknown,
    }
}

fn privacy(rest: &[&str]) -> Route {
    match rest {
        [tool, rest @ ..] if without_suffix(tool) == "privacyTool" => match rest {
            [] => Route::PrivacyRequests { show_count: false },
            ["_count"] => Route::PrivacyRequests { show_count: true },
            [pkey] if is_key(pkey) => Route::PrivacyRequest { pkey: (*pkey).to_owned() },
            [pkey, "data"] if is_key(pkey) => Route::PrivacyData { pkey: (*pkey).to_owned() },
            _ => Route::Unknown,
        },
        _ => Route::Unknown,
    }
}

fn decode_segment(raw: &str) -> Result<String, CampaignError> {
    let text = decode(raw)?;
    // A proxy in front may have resolved these already, or may not: two readings of one URL. The same
    // goes for those between encoded slashes.
    if text.split('/').any(|piece| matches!(piece, "." | "..")) { Err(CampaignError::BadUrl("has a dot segment")) } else { Ok(text) }
}

/// Undoes percent-encoding once.
pub(super) fn decode(raw: &str) -> Result<String, CampaignError> {
    let escapes = raw.split('%').skip(1);
    if escapes.into_iter().any(|rest| rest.len() < 2 || !rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit())) {
        return Err(CampaignError::BadUrl("has a percent sign without two hexadecimal digits"));
    }
    let text = percent_encoding::percent_decode_str(raw).decode_utf8();
    match text {
        Err(_) => Err(CampaignError::BadUrl("is not UTF-8")),
        Ok(text) if text.chars().any(char::is_control) => Err(CampaignError::BadUrl("has a control character")),
        Ok(text) => Ok(text.into_owned()),
    }
}

/// Whether the text has the form of the keys given out: `@` and 24 random bytes in base64url.
pub fn is_well_formed_pkey(text: &str) -> bool {
    text.strip_prefix('@')
        .is_some_and(|rest| rest.len() == 32 && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    use super::*;

    const SEED: Root = Root::ProfilesAndServices;
    const PLAIN: Root = Root::ProfileAndServices;
    const EXT: Root = Root::ProfileAndServicesExt;

    fn known(root: Root, resource: Resource, name: &str) -> bool {
        match resource {
            Resource::Profile => matches!(name, "email" | "PKey" | "lastName") || (name == "cusHobby" && root == EXT),
            Resource::Service => matches!(name, "PKey" | "label"),
        }
    }

    fn list(root: Root, resource: Resource, filters: &[Filter], show: Show) -> Route {
        Route::Collection { root, resource, filters: filters.to_vec(), show }
    }
    fn profiles(root: Root, filters: &[Filter]) -> Route {
        list(root, Resource::Profile, filters, Show::Records)
    }
    fn services(root: Root, filters: &[Filter]) -> Route {
        list(root, Resource::Service, filters, Show::Records)
    }
    fn values(name: &str) -> Show {
        Show::Values(name.to_owned())
    }
    fn one(root: Root, resource: Resource) -> Route {
        Route::One { root, resource, pkey: "@k-1_Z".to_owned() }
    }

    #[test]
    fn urls_in_all_their_forms() {
        let collection = |root| profiles(root, &[]);
        let one = |root| one(root, Resource::Profile);
        for (target, route, query) in [
            ("/acme/campaign/profilesAndServices/profile/", collection(SEED), None),
            ("/acme/campaign/profileAndServices/profile", collection(PLAIN), None),
            ("/acme/campaign/profileAndServicesExt/profile/@k-1_Z", one(EXT), None),
            ("/acme/campaign/profilesAndServices/profile/%40k-1_Z", one(SEED), None),
            ("/acme/campaign/profileAndServices/profile/@k-1_Z/", one(PLAIN), None),
            ("/acme/campaign//profileAndServices//profile//@k-1_Z?_lineCount=1", one(PLAIN), Some("_lineCount=1")),
            ("/acme/campaign/profileAndServices/profile.json?a=%2F", collection(PLAIN), Some("a=%2F")),
            ("/acme/campaign/profileAndServices/profile.json/@k-1_Z", one(PLAIN), None),
            ("/acme/campaign/profileAndServices/profile/%2540k-1_Z", Route::Unknown, None),
            ("/acme/campaign/profileAndServices/profile/%252E%252E", Route::Unknown, None),
            ("/acme/campaign/profileandservices/profile", Route::Unknown, None),
            ("/acme/campaign/profileAndServices/Profile", Route::Unknown, None),
            ("/acme/campaign", Route::Unknown, None),
            ("/acme/other/profileAndServices/profile", Route::Unknown, None),
        ] {
            assert_resolves(target, route, query);
        }
        assert_eq!(resolve("/ac%20me/campaign", &known).map(|target| target.org), Ok("ac me".to_owned()));
        assert_eq!(resolve("", &known).map(|target| target.org), Ok(String::new()));
    }

    fn assert_resolves(target: &str, route: Route, query: Option<&str>) {
        let found = resolve(target, &known).map(|found| (found.org, found.route, found.query));
        assert_eq!(found, Ok(("acme".to_owned(), route, query.map(str::to_owned))), "{target}");
    }

    #[test]
    fn every_resource_has_its_route() {
        use Filter::{ByCcpaOptOut, ByChannel, ByEmail, ByKeysProfile, ByPlanning, ByTargetResource, ByText, Subscribers};
        use Resource::{Profile, Service};
        let key = || "@k-1_Z".to_owned();
        let subscriptions = |resource, show_count| Route::Subscriptions { root: PLAIN, resource, pkey: key(), show_count };
        let subscription = |resource| Route::Subscription { root: PLAIN, resource, pkey: key(), subscription: "@s".to_owned() };
        let metadata = |root, resource: &str| Route::Metadata { root, resource: resource.to_owned() };
        let units = |resource, pkey: Option<&str>| Route::Units { root: EXT, resource, pkey: pkey.map(str::to_owned), show_count: false };
        let filters = |root| Route::MetadataFilters { root, pkey: key() };
        let history = |part| Route::History { root: PLAIN, pkey: key(), part };
        for (path, route) in [
            // Filters, alone and after each other.
            ("profileAndServices/profile/byEmail", profiles(PLAIN, &[ByEmail])),
            ("profileAndServices/profile/byKeysProfile", profiles(PLAIN, &[ByKeysProfile])),
            ("profilesAndServices/profile/subscribers/", profiles(SEED, &[Subscribers])),
            ("profileAndServices/profile/byText/byEmail", profiles(PLAIN, &[ByText, ByEmail])),
            ("profileAndServices/profile.json/byEmail//byText/", profiles(PLAIN, &[ByEmail, ByText])),
            ("profileAndServices/profile/byEmail%2FbyText", profiles(PLAIN, &[ByEmail, ByText])),
            ("profileAndServices/profile/byEmail%2fbyText%2F%2FbyKeysProfile", profiles(PLAIN, &[ByEmail, ByText, ByKeysProfile])),
            ("profileAndServices/profile/byEmail%2FbyText/_count", list(PLAIN, Profile, &[ByEmail, ByText], Show::Count)),
            ("profileAndServices/profile/%62yEmail", profiles(PLAIN, &[ByEmail])),
            ("profileAndServicesExt/profile/byCcpaOptOut/byText", profiles(EXT, &[ByCcpaOptOut, ByText])),
            ("profileAndServices/service/byChannel", services(PLAIN, &[ByChannel])),
            ("profileAndServices/service/byPlanning/byTargetResource", services(PLAIN, &[ByPlanning, ByTargetResource])),
            ("profileAndServicesExt/service/byText", services(EXT, &[ByText])),
            // Counts and values.
            ("profileAndServices/profile/_count", list(PLAIN, Profile, &[], Show::Count)),
            ("profileAndServices/profile//_count/", list(PLAIN, Profile, &[], Show::Count)),
            ("profileAndServices/profile//byEmail//_count", list(PLAIN, Profile, &[ByEmail], Show::Count)),
            ("profileAndServices/profile/PKey", list(PLAIN, Profile, &[], values("PKey"))),
            ("profileAndServices/profile/byText/email", list(PLAIN, Profile, &[ByText], values("email"))),
            ("profileAndServices/profile/byText%2Femail", list(PLAIN, Profile, &[ByText], values("email"))),
            ("profileAndServices/profile/email/_count", list(PLAIN, Profile, &[], Show::Count)),
            ("profileAndServicesExt/profile/cusHobby", list(EXT, Profile, &[], values("cusHobby"))),
            ("profileAndServices/service/label", list(PLAIN, Service, &[], values("label"))),
            // Records and their subscriptions.
            ("profileAndServices/service.json", services(PLAIN, &[])),
            ("profileAndServices/service/%40k-1_Z", one(PLAIN, Service)),
            ("profileAndServices/profile/@k-1_Z/subscriptions/", subscriptions(Profile, false)),
            ("profileAndServices/profile/@k-1_Z/subscriptions/_count", subscriptions(Profile, true)),
            ("profileAndServices/service/@k-1_Z//subscriptions", subscriptions(Service, false)),
            ("profileAndServices/service/@k-1_Z/subscriptions/_count", subscriptions(Service, true)),
            ("profileAndServices/service/@k-1_Z/subscriptions/%40s", subscription(Service)),
            ("profileAndServices/profile/@k-1_Z/subscriptions/@s", subscription(Profile)),
            // Descriptions.
            ("profileAndServices/resourceType/profile", metadata(PLAIN, "profile")),
            ("profileAndServices/resourceType/profile.json", metadata(PLAIN, "profile")),
            ("profilesAndServices/resourceType/service/", metadata(SEED, "service")),
            ("profileAndServicesExt/resourceType/history", metadata(EXT, "history")),
            ("profileAndServices/profile/metadata", metadata(PLAIN, "profile")),
            ("profileAndServicesExt/service/metadata", metadata(EXT, "service")),
            ("profileAndServices/resourceType/@k-1_Z", filters(PLAIN)),
            ("profileAndServicesExt/resourceType/%40k-1_Z/filters/", filters(EXT)),
            ("profileAndServices/history/@k-1_Z", history(HistoryPart::Summary)),
            ("profileAndServices/history.json/%40k-1_Z/events/", history(HistoryPart::Events)),
            ("profileAndServicesExt", Route::Index),
            ("profileAndServicesExt/", Route::Index),
            ("profileAndServicesExt/orgUnitBase", units("orgUnitBase", None)),
            ("profileAndServicesExt/orgUnitBase.json/", units("orgUnitBase", None)),
            ("profileAndServicesExt/geoUnitBase/@u", units("geoUnitBase", Some("@u"))),
            // Privacy requests.
            ("privacy/privacyTool", Route::PrivacyRequests { show_count: false }),
            ("privacy//privacyTool.json/_count", Route::PrivacyRequests { show_count: true }),
            ("privacy/privacyTool/%40k-1_Z", Route::PrivacyRequest { pkey: key() }),
            ("privacy/privacyTool/@k-1_Z/data/", Route::PrivacyData { pkey: key() }),
            // A key is never cut in two.
            (
                "profileAndServices/profile/@a%2Fsubscriptions",
                Route::One { root: PLAIN, resource: Profile, pkey: "@a/subscriptions".to_owned() },
            ),
        ] {
            assert_resolves(&format!("/acme/campaign/{path}"), route, None);
        }
    }

    #[test]
    fn what_is_not_served_is_unknown() {
        for path in [
            "profileAndServices",
            "profilesAndServices/",
            "profileAndServices/other",
            "profileAndServices/profile.xml",
            "profileAndServices/profile.json.json",
            "profileAndServices/profile/byFax",
            "profileAndServices/profile/BYEMAIL",
            "profileAndServices/profile/birthday",
            "profileAndServices/profile/profile",
            "profileAndServices/profile/byEmail/byEmail",
            "profileAndServices/profile/byEmail%2FbyText%2FbyEmail",
            "profileAndServices/profile/byEmail/byFax",
            "profileAndServices/profile/byEmail/@k",
            "profileAndServices/profile/%2F@k",
            "profileAndServices/profile/byEmail/metadata",
            "profileAndServices/profile/metadata/_count",
            "profileAndServices/profile/byChannel",
            "profileAndServices/service/byEmail",
            "profileAndServices/service/subscribers",
            "profileAndServices/profile/byCcpaOptOut",
            "profilesAndServices/profile/byCcpaOptOut",
            "profileAndServicesExt/service/byCcpaOptOut",
            "profileAndServices/profile/cusHobby",
            "profileAndServices/service/email",
            "profileAndServices/profile/email/lastName",
            "profileAndServices/profile/email/byText",
            "profileAndServices/profile/_count/_count",
            "profileAndServices/profile/_count/email",
            "profileAndServices/profile/_count/byText",
            "profileAndServices/profile/email.json",
            "profileAndServices/profile/@k/other",
            "profileAndServices/profile/@k/_count",
            "profileAndServices/profile/@k/subscriptions/s",
            "profileAndServices/profile/@k/subscriptions/@s/more",
            "profileAndServices/resourceType",
            "profileAndServices/resourceType/other",
            "profileAndServices/resourceType/profile/filters",
            "profileAndServices/resourceType/@k/other",
            "profileAndServices/history",
            "profileAndServices/history/k",
            "profileAndServices/history/@k/other",
            "profileAndServices/orgUnitBase",
            "profileAndServicesExt/orgUnitBase/u",
            "profileAndServicesExt.json",
            "profileAndServicesExt/cusResource",
            "privacy",
            "privacy/other",
            "privacy/privacyTool/k",
            "privacy/privacyTool/@k/other",
            "privacy/privacyTool/_count/_count",
            "customResources/cusCar",
            "workflow/execution",
        ] {
            assert_resolves(&format!("/acme/campaign/{path}"), Route::Unknown, None);
        }
    }

    #[test]
    fn a_whole_url_in_one_segment_is_routed_again() {
        let collection = || profiles(PLAIN, &[]);
        let one = || one(PLAIN, Resource::Profile);
        for (segment, route, query) in [
            (
                "%2FprofileAndServices%2Fprofile%3F_lineCount%3D2%26_order%3Demail%2520desc",
                collection(),
                Some("_lineCount=2&_order=email%20desc"),
            ),
            ("profileAndServices%2fprofile%2F%2540k-1_Z", one(), None),
            ("profileAndServices%2Fprofile%2F%40k-1_Z", one(), None),
            ("profileAndServices%2Fprofile?a=b", collection(), Some("a=b")),
            ("profileAndServices%2Fprofile%3Fa%3D1?a=2", collection(), Some("a=1")),
            ("%2FprofileAndServicesExt", Route::Index, None),
            ("%2Fprivacy%2FprivacyTool", Route::PrivacyRequests { show_count: false }, None),
            ("%2FprofileAndServices%2Fprofile%2FbyEmail%252FbyText", profiles(PLAIN, &[Filter::ByEmail, Filter::ByText]), None),
            ("%2FprofileAndServices%2Fprofile%2FbyText%3Ftext%3DR%2526B", profiles(PLAIN, &[Filter::ByText]), Some("text=R%26B")),
            // A link of an answer, as it is or without its host.
            ("https%3A%2F%2Fopt.example.org%2Facme%2Fcampaign%2FprofileAndServices%2Fprofile%3Fa%3D1", collection(), Some("a=1")),
            ("HTTP%3A%2F%2F127.0.0.1%3A8080%2Facme%2Fcampaign%2F%2FprofileAndServices%2Fprofile%2F%2540k-1_Z%2F", one(), None),
            ("%2Facme%2Fcampaign%2FprofileAndServices%2Fprofile", collection(), None),
            ("acme%2Fcampaign%2FprofileAndServices%2Fprofile", collection(), None),
            ("%2F%2561cme%2Fcampaign%2FprofileAndServices%2Fprofile", collection(), None),
            // Another organization's, another site's, or encoded too often.
            ("https%3A%2F%2Fopt.example.org%2Fother%2Fcampaign%2FprofileAndServices%2Fprofile", Route::Unknown, None),
            ("%2Fother%2Fcampaign%2FprofileAndServices%2Fprofile", Route::Unknown, None),
            ("https%3A%2F%2Fopt.example.org%2FprofileAndServices%2Fprofile", Route::Unknown, None),
            ("https%3A%2F%2Fopt.example.org", Route::Unknown, None),
            ("ftp%3A%2F%2Fopt.example.org%2Facme%2Fcampaign%2FprofileAndServices%2Fprofile", Route::Unknown, None),
            ("%2Facme%2Fcampaign%2Facme%2Fcampaign%2FprofileAndServices%2Fprofile", Route::Unknown, None),
            ("profileAndServices%252Fprofile%2F", Route::Unknown, None),
        ] {
            assert_resolves(&format!("/acme/campaign/{segment}"), route, query);
        }
    }

    #[test]
    fn urls_with_two_readings_are_refused() {
        let long = "a".repeat(TARGET_BYTES_MAX);
        for path in [
            "profileAndServices/./profile",
            "profileAndServices/x/../profile",
            "profileAndServices/%2e%2E/profile",
            "profileAndServices/profile/byEmail%2F..%2FbyText",
            "profileAndServices/profile/@a%2F%2e",
            "profileAndServices/profile/@a%00",
            "profileAndServices/profile/@a%0a",
            "%2FprofileAndServices%2F..%2Fprofile",
            "%2Facme%2Fcampaign%2F..%2Fprofile",
            "%2FprofileAndServices%2Fprofile%3Fa%3D%00",
            "profileAndServices/profile/@%ff",
            "profileAndServices/profile/@%4",
            "profileAndServices/profile/@%+1",
            &long,
        ] {
            assert!(matches!(resolve(&format!("/acme/campaign/{path}"), &known), Err(CampaignError::BadUrl(_))), "{path}");
        }
        assert!(resolve("/../campaign/profileAndServices/profile", &known).is_err());
    }

    #[test]
    fn a_target_shows_no_query_to_a_log() {
        let target = resolve("/acme/campaign/profileAndServices/profile/byEmail?email=rosa@example.org", &known).expect("a good URL");
        assert!(!format!("{target:?}").contains("rosa"));
    }

    #[test]
    fn keys_have_one_form() {
        let good = format!("@{}-_", "aZ0".repeat(10));
        assert!(is_well_formed_pkey(&good));
        for bad in [&good[1..], &good[..32], &format!("{good}a"), &good.replace('-', "+"), &good.replace('@', "é"), ""] {
            assert!(!is_well_formed_pkey(bad), "{bad}");
        }
    }

    #[test]
    fn names_of_filters_are_not_those_of_other_segments() {
        for root in Root::ALL {
            for resource in [Resource::Profile, Resource::Service] {
                for filter in Filter::of(root, resource) {
                    let name = filter.as_str();
                    assert!(!known(root, resource, name) && !name.starts_with(['@', '_']) && name != "metadata", "{name}");
                }
            }
        }
    }

    /// Pieces of real URLs in any order get deeper than random text does.
    const PIECES: &[&str] = &[
        "/",
        "//",
        "%2F",
        "%252F",
        "acme",
        "/campaign/",
        "/acme/campaign/",
        "profileAndServices/",
        "profileAndServicesExt/",
        "privacy/privacyTool/",
        "profile",
        "service",
        "resourceType/",
        "history/",
        "orgUnitBase",
        "byEmail",
        "byText",
        "byCcpaOptOut/",
        "email",
        "subscriptions",
        "metadata",
        "filters",
        "_count",
        "@k",
        "%40k",
        ".json",
        "..",
        "%2e",
        "%3F",
        "https%3A%2F%2F",
        "?",
        "&a=b",
        "%",
        "%00",
        "%ff",
        "é",
    ];

    #[test]
    fn any_text_gets_one_answer_however_many_slashes_it_has() {
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[9; 32]);
        let mut runner = TestRunner::new_with_rng(Config { cases: 8192, failure_persistence: None, ..Config::default() }, rng);
        let piece = prop_oneof![6 => proptest::sample::select(PIECES).prop_map(str::to_owned), 1 => "\\PC{0,6}"];
        let text = proptest::collection::vec(piece, 0..16).prop_map(|pieces| pieces.concat());
        let strategy = (any::<u8>(), text);
        runner
            .run(&strategy, |(start, text)| {
                let start = ["", "/acme/campaign/", "/acme/campaign/profileAndServices/profile/", "/acme/campaign/profileAndServicesExt/"]
                    [usize::from(start % 4)];
                let target = format!("{start}{text}");
                let (path, query) = target.split_once('?').map_or((target.as_str(), None), |(path, query)| (path, Some(query)));
                let doubled = format!("{}{}", path.replace('/', "//"), query.map_or(String::new(), |query| format!("?{query}")));
                prop_assert_eq!(resolve(&target, &known), resolve(&doubled, &known));
                Ok(())
            })
            .expect("no case fails");
    }
}
