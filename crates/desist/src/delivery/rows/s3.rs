//! Objects in a bucket that speaks S3. A bucket has no rename: the manifest is put last.

use std::sync::Arc;

use aws_lc_rs::hmac;
use desist_connector::{Instance, Secret};
use desist_core::lane::{Failure, Outcome};
use desist_engine::env::Env;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Method, Response, StatusCode, Url};
use sha2::{Digest as _, Sha256};

use super::drop::hex;
use super::{Fault, Options};
use crate::limits::BUCKET_ANSWER_BYTES_MAX;
use crate::outgoing::{allowed, client};

/// What stands for itself in a path that is signed.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A bucket, with what its names begin with.
pub(super) struct Bucket {
    client: Client,
    endpoint: Url,
    base: String,
    region: String,
    access_key: String,
    secret_key: Secret,
    env: Arc<dyn Env>,
}

impl Bucket {
    pub(super) fn new(instance: &Instance, options: &Options) -> Result<Self, String> {
        let text = |name: &str| instance.text(name).map(str::to_owned).ok_or_else(|| format!("the setting {name} is missing"));
        let endpoint = Url::parse(&text("endpoint")?).map_err(|_| "the setting endpoint is not a URL")?;
        allowed(&endpoint, options.allow_private).map_err(|why| format!("the setting endpoint: {why}"))?;
        // The bucket stands in the path, which every server of this kind understands, whatever its name.
        let base = format!("/{}/{}", text("bucket")?, instance.text("prefix").unwrap_or_default());
        let (region, access_key) = (text("region")?, text("access_key")?);
        let secret_key = instance.secret("secret_key").cloned().ok_or("the setting secret_key is missing")?;
        let client = client(options.allow_private).map_err(|_| "no certificates of authorities on this machine")?;
        Ok(Self { client, endpoint, base, region, access_key, secret_key, env: Arc::clone(&options.env) })
    }

    pub(super) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        let size = bytes.len();
        let put = self.ask(Method::PUT, name, bytes).await?;
        let tag = put.headers().get("etag").cloned();
        judge(put).await?;
        let head = self.ask(Method::HEAD, name, Vec::new()).await.map_err(|fault| Fault::new(Failure::Ambiguous, fault.problem))?;
        if head.status() == StatusCode::NOT_FOUND {
            // A receiver may have taken it away.
            return Ok(());
        }
        let length = head.headers().get("content-length").and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
        let is_same = length == Some(size) && head.headers().get("etag") == tag.as_ref();
        judge(head).await?;
        if is_same { Ok(()) } else { Err(Fault::new(Failure::Server, "the object is not what was put there")) }
    }

    /// Puts an empty object: a key may be allowed to put and not to list.
    pub(super) async fn probe(&self) -> Result<(), Fault> {
        judge(self.ask(Method::PUT, ".desist-probe", Vec::new()).await?).await
    }

    async fn ask(&self, method: Method, name: &str, body: Vec<u8>) -> Result<Response, Fault> {
        let path = utf8_percent_encode(&format!("{}{name}", self.base), PLAIN).to_string();
        let mut url = self.endpoint.clone();
        url.set_path(&path);
        let at = Timestamp::from_millisecond(self.env.now_ms()).unwrap_or_default();
        let host = match (url.host_str().unwrap_or_default(), url.port()) {
            (host, Some(port)) => format!("{host}:{port}"),
            (host, None) => host.to_owned(),
        };
        let signed = Signed { method: method.as_str(), path: &path, host: &host, body: &hex(&Sha256::digest(&body)) };
        let authorization = signed.authorization(at, &self.region, &self.access_key, self.secret_key.expose());
        let request = self.client.request(method.clone(), url).header("x-amz-date", date(at)).header("x-amz-content-sha256", signed.body);
        let sent = request.header("authorization", authorization).body(body).send().await;
        sent.map_err(|error| {
            let failure = if error.is_connect() || error.is_builder() { Failure::Connect } else { Failure::Ambiguous };
            let mut cause: &dyn std::error::Error = &error;
            while let Some(inner) = cause.source() {
                cause = inner;
            }
            Fault::new(failure, format!("no answer: {cause}"))
        })
    }
}

/// What an answer means.
async fn judge(mut answer: Response) -> Result<(), Fault> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let after = answer.headers().get("retry-after").and_then(|after| after.to_str().ok()?.parse::<u64>().ok());
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = answer.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > BUCKET_ANSWER_BYTES_MAX {
            break;
        }
    }
    let body = String::from_utf8_lossy(&body);
    let code = body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    let code = if code.len() <= 64 && code.chars().all(|c| c.is_ascii_alphanumeric()) { code } else { "" };
    let problem = format!("the bucket answers {} {code}", status.as_u16());
    let failure = match (status.as_u16(), code) {
        (413, _) | (_, "EntityTooLarge") => return Err(Fault { outcome: Outcome::TooLarge, problem }),
        (429, _) | (_, "SlowDown") => Failure::Throttled,
        (401 | 403, _) => Failure::Credentials,
        (502 | 504, _) => Failure::Ambiguous,
        // No such bucket, another region: whose choice was sent has no part in it.
        _ => Failure::Server,
    };
    let retry_after_ms = after.map(|seconds| seconds.saturating_mul(1000));
    Err(Fault { outcome: Outcome::Failed { failure, retry_after_ms }, problem })
}

/// What AWS Signature Version 4 signs of a request without a query.
struct Signed<'r> {
    method: &'r str,
    path: &'r str,
    host: &'r str,
    /// The SHA-256 of the body, in hexadecimal digits.
    body: &'r str,
}

impl Signed<'_> {
    fn authorization(&self, at: Timestamp, region: &str, access_key: &str, secret_key: &str) -> String {
        const NAMES: &str = "host;x-amz-content-sha256;x-amz-date";
        let Self { method, path, host, body } = self;
        let stamp = date(at);
        let day = &stamp[..8];
        let canonical = format!("{method}\n{path}\n\nhost:{host}\nx-amz-content-sha256:{body}\nx-amz-date:{stamp}\n\n{NAMES}\n{body}");
        let scope = format!("{day}/{region}/s3/aws4_request");
        let text = format!("AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{}", hex(&Sha256::digest(canonical)));
        let mac = |key: &[u8], text: &str| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes());
        let mut key = mac(format!("AWS4{secret_key}").as_bytes(), day);
        for step in [region, "s3", "aws4_request"] {
            key = mac(key.as_ref(), step);
        }
        let signature = hex(mac(key.as_ref(), &text).as_ref());
        format!("AWS4-HMAC-SHA256 Credential={access_key}/{scope}, SignedHeaders={NAMES}, Signature={signature}")
    }
}

fn date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string()
}
