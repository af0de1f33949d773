//! Which resource a URL names.

use super::error::CampaignError;

/// Longest path and query that is looked at; the longest call in the field, a list with filters in
/// one encoded segment, stays below a quarter of it.
pub const TARGET_BYTES_MAX: usize = 8 * 1024;

/// The first segment of an API path. All three show the same profiles.
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

/// A resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// The collection.
    Profiles {
        /// The root that the caller used.
        root: Root,
    },
    /// One profile.
    Profile {
        /// The root that the caller used.
        root: Root,
        /// Begins with `@`; check it with [`is_well_formed_pkey`].
        pkey: String,
    },
    /// Nothing that is served.
    Unknown,
}

/// A URL taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The organization, decoded; not compared with anything yet.
    pub org: String,
    /// The resource.
    pub route: Route,
    /// The query, not decoded, without its question mark.
    pub query: Option<String>,
}

/// Takes the path and query of a request apart: `/{org}/campaign/{root}/{resource}[/{key}][?query]`.
pub fn resolve(target: &str) -> Result<Target, CampaignError> {
    if target.len() > TARGET_BYTES_MAX {
        return Err(CampaignError::BadUrl("is too long"));
    }
    let (path, query) = split(target);
    let raw: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
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
            (route(path.split('/').filter(|segment| !segment.is_empty()))?, inner_query.or(query))
        }
        Some(rest) => (route(rest.iter().copied())?, query),
    };
    Ok(Target { org, route, query })
}

fn split(target: &str) -> (&str, Option<String>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query.to_owned())))
}

fn route<'a>(raw: impl Iterator<Item = &'a str>) -> Result<Route, CampaignError> {
    let segments = raw.map(decode_segment).collect::<Result<Vec<_>, _>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let Some(root) = Root::ALL.into_iter().find(|root| segments.first() == Some(&root.as_str())) else {
        return Ok(Route::Unknown);
    };
    Ok(match segments.as_slice() {
        [_, "profile" | "profile.json"] => Route::Profiles { root },
        [_, "profile" | "profile.json", pkey] if pkey.starts_with('@') => Route::Profile { root, pkey: (*pkey).to_owned() },
        _ => Route::Unknown,
    })
}

fn decode_segment(raw: &str) -> Result<String, CampaignError> {
    let text = decode(raw)?;
    // A proxy in front may have resolved these already, or may not: two readings of one URL.
    if matches!(text.as_str(), "." | "..") { Err(CampaignError::BadUrl("has a dot segment")) } else { Ok(text) }
}

/// Undoes percent-encoding once.
fn decode(raw: &str) -> Result<String, CampaignError> {
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
    use super::*;

    #[test]
    fn urls_in_all_their_forms() {
        let collection = |root| Route::Profiles { root };
        let one = |root| Route::Profile { root, pkey: "@k-1_Z".to_owned() };
        let (seed, plain, ext) = (Root::ProfilesAndServices, Root::ProfileAndServices, Root::ProfileAndServicesExt);
        for (target, route, query) in [
            ("/acme/campaign/profilesAndServices/profile/", collection(seed), None),
            ("/acme/campaign/profileAndServices/profile", collection(plain), None),
            ("/acme/campaign/profileAndServicesExt/profile/@k-1_Z", one(ext), None),
            ("/acme/campaign/profilesAndServices/profile/%40k-1_Z", one(seed), None),
            ("/acme/campaign/profileAndServices/profile/@k-1_Z/", one(plain), None),
            ("/acme/campaign//profileAndServices//profile//@k-1_Z?_lineCount=1", one(plain), Some("_lineCount=1")),
            ("/acme/campaign/profileAndServices/profile.json?a=%2F", collection(plain), Some("a=%2F")),
            ("/acme/campaign/profileAndServices/profile.json/@k-1_Z", one(plain), None),
            (
                "/acme/campaign/%2FprofileAndServices%2Fprofile%3F_lineCount%3D2%26_order%3Demail%2520desc",
                collection(plain),
                Some("_lineCount=2&_order=email%20desc"),
            ),
            ("/acme/campaign/profileAndServices%2fprofile%2F%2540k-1_Z", one(plain), None),
            ("/acme/campaign/profileAndServices%2Fprofile?a=b", collection(plain), Some("a=b")),
            ("/acme/campaign/profileAndServices/profile/%2540k-1_Z", Route::Unknown, None),
            ("/acme/campaign/profileAndServices/profile/%252E%252E", Route::Unknown, None),
            ("/acme/campaign/profileAndServices/profile/@k-1_Z/subscriptions", Route::Unknown, None),
            ("/acme/campaign/profileAndServices/profile/byEmail", Route::Unknown, None),
            ("/acme/campaign/profileandservices/profile", Route::Unknown, None),
            ("/acme/campaign/profileAndServices/Profile", Route::Unknown, None),
            ("/acme/campaign", Route::Unknown, None),
            ("/acme/other/profileAndServices/profile", Route::Unknown, None),
        ] {
            let expected = Target { org: "acme".to_owned(), route, query: query.map(str::to_owned) };
            assert_eq!(resolve(target), Ok(expected), "{target}");
        }
        assert_eq!(resolve("/ac%20me/campaign").map(|target| target.org), Ok("ac me".to_owned()));
        assert_eq!(resolve("").map(|target| target.org), Ok(String::new()));
    }

    #[test]
    fn urls_with_two_readings_are_refused() {
        let long = "a".repeat(TARGET_BYTES_MAX);
        for path in [
            "profileAndServices/./profile",
            "profileAndServices/x/../profile",
            "profileAndServices/%2e%2E/profile",
            "profileAndServices/profile/@a%00",
            "profileAndServices/profile/@a%0a",
            "%2FprofileAndServices%2F..%2Fprofile",
            "%2FprofileAndServices%2Fprofile%3Fa%3D%00",
            "profileAndServices/profile/@%ff",
            "profileAndServices/profile/@%4",
            "profileAndServices/profile/@%+1",
            &long,
        ] {
            assert!(matches!(resolve(&format!("/acme/campaign/{path}")), Err(CampaignError::BadUrl(_))), "{path}");
        }
        assert!(resolve("/../campaign/profileAndServices/profile").is_err());
    }

    #[test]
    fn keys_have_one_form() {
        let good = format!("@{}-_", "aZ0".repeat(10));
        assert!(is_well_formed_pkey(&good));
        for bad in [&good[1..], &good[..32], &format!("{good}a"), &good.replace('-', "+"), &good.replace('@', "é"), ""] {
            assert!(!is_well_formed_pkey(bad), "{bad}");
        }
    }
}
