//! AWS Signature Version 4, in the header `Authorization`.

use std::fmt::Write as _;

use aws_lc_rs::hmac;
use desist_connector::Secret;
use desist_engine::env::Outgoing;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use sha2::{Digest as _, Sha256};

use super::AuthError;

/// All but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What signs for one service.
pub struct Keys {
    access_key: String,
    secret_key: Secret,
    region: String,
    service: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

impl Keys {
    pub fn new(access_key: &str, secret_key: &Secret, region: &str, service: &str) -> Result<Self, AuthError> {
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        for (field, text) in [("access_key", access_key), ("region", region), ("service", service)] {
            if !is_word(text) {
                return Err(AuthError::Credential { field, problem: "is missing, or has other characters than it can have" });
            }
        }
        if secret_key.expose().is_empty() {
            return Err(AuthError::Credential { field: "secret_key", problem: "is missing" });
        }
        let (access_key, region, service) = (access_key.to_owned(), region.to_owned(), service.to_owned());
        Ok(Self { access_key, secret_key: secret_key.clone(), region, service })
    }

    /// Adds the headers of the signature; all headers of the call are signed.
    pub fn sign(&self, outgoing: &mut Outgoing, now_ms: i64) -> Result<(), AuthError> {
        // Where a call goes was checked before; what is no URL is never sent.
        let wrong = AuthError::Credential { field: "region", problem: "does not make a URL" };
        let url = Url::parse(&outgoing.url).map_err(|_| wrong.clone())?;
        let host = url.host_str().ok_or(wrong)?;
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let second = jiff::Timestamp::from_millisecond(now_ms).unwrap_or_default();
        let at = second.strftime("%Y%m%dT%H%M%SZ").to_string();
        let body = hex(&Sha256::digest(&outgoing.body));
        outgoing.headers.push(("x-amz-date".to_owned(), at.clone()));
        if self.service == "s3" {
            outgoing.headers.push(("x-amz-content-sha256".to_owned(), body.clone()));
        }
        let mut headers: Vec<(String, String)> =
            outgoing.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), folded(value))).collect();
        headers.push(("host".to_owned(), host));
        headers.sort();
        let names = headers.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(";");
        let mut canonical = format!("{}\n{}\n{}\n", outgoing.method, self.path(&url), query(&url));
        for (name, value) in &headers {
            let _ = writeln!(canonical, "{name}:{value}");
        }
        let _ = write!(canonical, "\n{names}\n{body}");
        let date = &at[..8];
        let scope = format!("{date}/{}/{}/aws4_request", self.region, self.service);
        let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex(&Sha256::digest(&canonical)));
        let mut key = mac(format!("AWS4{}", self.secret_key.expose()).as_bytes(), date);
        for part in [&self.region, &self.service, "aws4_request"] {
            key = mac(key.as_ref(), part);
        }
        let signature = hex(mac(key.as_ref(), &text).as_ref());
        let value = format!("AWS4-HMAC-SHA256 Credential={}/{scope}, SignedHeaders={names}, Signature={signature}", self.access_key);
        outgoing.headers.push(("authorization".to_owned(), value));
        Ok(())
    }

    /// The path is encoded once more than it is sent, but for S3.
    fn path(&self, url: &Url) -> String {
        if self.service == "s3" {
            return url.path().to_owned();
        }
        url.path().split('/').map(|segment| utf8_percent_encode(segment, ENCODED).to_string()).collect::<Vec<_>>().join("/")
    }
}

/// Parameters in order of their names, as they are encoded already.
fn query(url: &Url) -> String {
    let mut pairs: Vec<_> = url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).collect::<Vec<_>>();
    pairs.sort_by_key(|pair| pair.split_once('=').unwrap_or((pair, "")));
    pairs.into_iter().map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") }).collect::<Vec<_>>().join("&")
}

/// Spaces at the ends go, and several in between become one.
fn folded(value: &str) -> String {
    value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    /// 2015-08-30 12:36:00 UTC
    const AT: i64 = 1_440_938_160_000;

    fn signed(service: &str, secret: &str, method: &'static str, url: &str, headers: &[(&str, &str)], at: i64) -> String {
        let mut outgoing = Outgoing {
            method,
            url: url.to_owned(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: Vec::new(),
            timeout: Duration::ZERO,
            answer_bytes_max: 0,
            allow_private: false,
        };
        let access_key = if service == "s3" { "AKIAIOSFODNN7EXAMPLE" } else { "AKIDEXAMPLE" };
        let keys = Keys::new(access_key, &Secret::new(secret), "us-east-1", service).unwrap_or_else(|_| panic!("keys"));
        keys.sign(&mut outgoing, at).unwrap();
        let found = outgoing.headers.iter().find(|(name, _)| name == "authorization");
        found.unwrap().1.clone()
    }

    /// The published test suite, and the examples of the guides of IAM and S3.
    #[test]
    fn signatures_are_those_that_aws_publishes() {
        assert_eq!(
            signed("service", SECRET, "GET", "https://example.amazonaws.com/", &[], AT),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, \
             Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
        let ends = |authorization: String, signature: &str| assert!(authorization.ends_with(signature), "{authorization}");
        ends(
            signed("service", SECRET, "POST", "https://example.amazonaws.com/?Param1=value1", &[], AT),
            "28038455d6de14eafc1f9222cf5aa6f1a96197d7deb8263271d420d138af7f11",
        );
        ends(
            signed("service", SECRET, "GET", "https://example.amazonaws.com/?Param2=value2&Param1=value1", &[], AT),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
        );
        ends(
            signed(
                "iam",
                SECRET,
                "GET",
                "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08",
                &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
                AT,
            ),
            "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
        );
        // Friday, 24 May 2013
        ends(
            signed(
                "s3",
                "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
                "GET",
                "https://examplebucket.s3.amazonaws.com/test.txt",
                &[("Range", "bytes=0-9")],
                1_369_353_600_000,
            ),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        );
    }

    #[test]
    fn a_key_that_is_missing_is_named() {
        let error = |access, secret, region| Keys::new(access, &Secret::new(secret), region, "s3").err().map(|error| error.to_string());
        assert!(error("", "s", "r").is_some_and(|error| error.contains("`access_key`")));
        assert!(error("a", "", "r").is_some_and(|error| error.contains("`secret_key`")));
        assert!(error("a", "s", "r/x").is_some_and(|error| error.contains("`region`")));
        assert_eq!(error("a", "s", "r"), None);
    }
}
