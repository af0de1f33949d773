//! Objects in a bucket that speaks S3. A bucket has no rename: the manifest is put last.

use std::sync::Arc;

use desist_connector::Instance;
use desist_core::lane::{Failure, Outcome};
use desist_engine::env::{Env, Outgoing};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Client, Response, StatusCode, Url};

use super::{Fault, Options, aside};
use crate::delivery::auth::sigv4::Keys;
use crate::limits::{BUCKET_ANSWER_BYTES_MAX, FILE_TIMEOUT};
use crate::outgoing::{allowed, client};

/// What stands for itself in a path that is signed.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A bucket, with what its names begin with.
pub(super) struct Bucket {
    client: Client,
    endpoint: Url,
    base: String,
    keys: Arc<Keys>,
    allow_private: bool,
    env: Arc<dyn Env>,
}

impl Bucket {
    pub(super) fn new(instance: &Instance, options: &Options) -> Result<Self, String> {
        let text = |name: &str| instance.text(name).map(str::to_owned).ok_or_else(|| format!("the setting {name} is missing"));
        let endpoint = Url::parse(&text("endpoint")?).map_err(|_| "the setting endpoint is not a URL")?;
        allowed(&endpoint, options.allow_private).map_err(|why| format!("the setting endpoint: {why}"))?;
        // The bucket stands in the path, which every server of this kind understands, whatever its name.
        let base = format!("/{}/{}", text("bucket")?, instance.text("prefix").unwrap_or_default());
        let secret_key = instance.secret("secret_key").ok_or("the setting secret_key is missing")?;
        let keys = Keys::new(&text("access_key")?, secret_key, &text("region")?, "s3").map_err(|error| error.to_string())?;
        let allow_private = options.allow_private;
        let client = client(allow_private).map_err(|_| "no certificates of authorities on this machine")?;
        Ok(Self { client, endpoint, base, keys: Arc::new(keys), allow_private, env: Arc::clone(&options.env) })
    }

    pub(super) async fn put(&self, name: &str, bytes: Vec<u8>) -> Result<(), Fault> {
        let size = bytes.len();
        let put = self.ask("PUT", name, bytes).await?;
        let tag = put.headers().get("etag").cloned();
        judge(put).await?;
        let head = self.ask("HEAD", name, Vec::new()).await.map_err(|fault| Fault::new(Failure::Ambiguous, fault.problem))?;
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
        judge(self.ask("PUT", ".desist-probe", Vec::new()).await?).await
    }

    async fn ask(&self, method: &'static str, name: &str, body: Vec<u8>) -> Result<Response, Fault> {
        let path = utf8_percent_encode(&format!("{}{name}", self.base), PLAIN).to_string();
        let mut url = self.endpoint.clone();
        url.set_path(&path);
        let mut outgoing = Outgoing {
            method,
            url: url.to_string(),
            headers: Vec::new(),
            body,
            timeout: FILE_TIMEOUT,
            answer_bytes_max: BUCKET_ANSWER_BYTES_MAX,
            allow_private: self.allow_private,
        };
        let (keys, now_ms) = (Arc::clone(&self.keys), self.env.now_ms());
        // The signature has the digest of the whole body in it.
        let signed = aside(move || match keys.sign(&mut outgoing, now_ms) {
            Ok(()) => Ok(outgoing),
            Err(error) => Err(Fault::new(error.failure(), error.to_string())),
        });
        let Outgoing { headers, body, timeout, .. } = signed.await?;
        let mut request = if method == "HEAD" { self.client.head(url) } else { self.client.put(url) };
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let sent = request.timeout(timeout).body(body).send().await;
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
