//! Access tokens: fetched once for all who wait, kept until they are nearly over, forgotten when they are refused.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use desist_connector::Secret;
use desist_connector::limits::AFTER_SECONDS_MAX;
use desist_engine::env::{Answer, Env, Outbound, Outgoing, SendError};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::Url;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::{AuthError, TokenStore, visible};
use crate::delivery::http::Options;
use crate::limits::{TOKEN_ANSWER_BYTES_MAX, TOKEN_BYTES_MAX, TOKEN_LIFE, TOKEN_LIFE_MAX, TOKEN_TIMEOUT};

/// By what right a token is asked for.
pub enum Grant {
    Client { client_id: String, client_secret: Secret, scope: Option<String> },
    Refresh { client_id: String, client_secret: Secret, given: Secret, scope: Option<String> },
    Google { credentials: Secret, scope: String },
}

/// A token for one call.
pub struct Held {
    pub text: Secret,
    pub number: u64,
    /// It was there before the call.
    pub is_old: bool,
}

struct Token {
    text: Secret,
    number: u64,
    since: Instant,
    /// From when on another one is asked for.
    renew_at: Instant,
    over_at: Instant,
}

#[derive(Default)]
struct State {
    token: Option<Token>,
    number: u64,
    /// The last failure: whoever waited for that try has it, too.
    failed: Option<(Instant, AuthError)>,
}

/// The tokens of one destination.
pub struct Tokens {
    destination: String,
    /// The endpoint, if it is on a host of the connector.
    url: Result<String, AuthError>,
    grant: Grant,
    outbound: Arc<dyn Outbound>,
    env: Arc<dyn Env>,
    store: Arc<dyn TokenStore>,
    allow_private: bool,
    state: Mutex<State>,
    /// One try at a time. What it holds is the refresh token as it is now, once it is known.
    try_now: tokio::sync::Mutex<Option<Secret>>,
}

/// What a token endpoint answers (RFC 6749 5.1).
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Value>,
    refresh_token: Option<String>,
}

/// The key file of a service account.
#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: String,
    private_key_id: Option<String>,
}

impl Tokens {
    pub fn new(options: &Options, token_url: &str, grant: Grant) -> Self {
        let wrong = AuthError::Credential { field: "token_url", problem: "is not on a host of the connector" };
        let is_known = |url: &Url| {
            let host = url.host_str()?;
            let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            options.instance.hosts().contains(&host).then_some(())
        };
        let url = Url::parse(token_url).ok().filter(|url| is_known(url).is_some()).map(|_| token_url.to_owned()).ok_or(wrong);
        Self {
            destination: options.destination.clone(),
            url,
            grant,
            outbound: Arc::clone(&options.outbound),
            env: Arc::clone(&options.env),
            store: Arc::clone(&options.tokens),
            allow_private: options.allow_private,
            state: Mutex::default(),
            try_now: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A token, kept or new.
    pub async fn get(self: &Arc<Self>) -> Result<Held, AuthError> {
        let asked = Instant::now();
        if let Some(held) = self.kept(asked, false) {
            return Ok(held);
        }
        // In a task of its own: a rotated refresh token must not be lost because whoever asked has no more time.
        let this = Arc::clone(self);
        tokio::spawn(async move { this.renew(asked).await }).await.unwrap_or(Err(AuthError::Unreached))
    }

    /// Forgets a token that was refused, unless there is another one by now.
    pub fn forget(&self, number: u64) {
        self.state().token.take_if(|token| token.number == number);
    }

    fn kept(&self, asked: Instant, until_over: bool) -> Option<Held> {
        let state = self.state();
        let token = state.token.as_ref()?;
        let now = Instant::now();
        let is_good = now < token.renew_at || token.since >= asked || (until_over && now < token.over_at);
        is_good.then(|| Held { text: token.text.clone(), number: token.number, is_old: token.since < asked })
    }

    async fn renew(&self, asked: Instant) -> Result<Held, AuthError> {
        let mut refresh = self.try_now.lock().await;
        if let Some(held) = self.kept(asked, false) {
            return Ok(held);
        }
        let failed = self.state().failed.clone().filter(|(at, _)| *at >= asked).map(|(_, error)| error);
        let result = match failed {
            Some(error) => Err(error),
            None => self.fetch(&mut refresh).await,
        };
        if let Err(error) = result {
            self.state().failed = Some((Instant::now(), error.clone()));
            // It was only to be renewed early.
            return self.kept(asked, true).ok_or(error);
        }
        self.kept(asked, true).ok_or(AuthError::Unreached)
    }

    async fn fetch(&self, refresh: &mut Option<Secret>) -> Result<(), AuthError> {
        let url = self.url.clone()?;
        if matches!(self.grant, Grant::Refresh { .. }) && refresh.is_none() {
            *refresh = Some(self.refresh_token().await?);
        }
        let body = self.body(&url, refresh.as_ref())?;
        let since = Instant::now();
        let answer = self.exchange(url, body).await?;
        let granted = granted(&answer)?;
        if let Some(next) = granted.refresh_token.as_deref().filter(|_| matches!(self.grant, Grant::Refresh { .. })) {
            let next = Secret::new(next);
            if refresh.as_ref() != Some(&next) {
                self.keep(&next).await;
                *refresh = Some(next);
            }
        }
        let life = life(granted.expires_in.as_ref());
        let mut state = self.state();
        state.number += 1;
        let number = state.number;
        // The time of the exchange is part of its life.
        let (renew_at, over_at) = (since + life.mul_f64(0.8), since + life);
        state.token = Some(Token { text: Secret::new(granted.access_token), number, since: Instant::now(), renew_at, over_at });
        state.failed = None;
        Ok(())
    }

    fn body(&self, url: &str, refresh: Option<&Secret>) -> Result<Zeroizing<String>, AuthError> {
        let missing = |field| AuthError::Credential { field, problem: "is missing" };
        let client = |id: &str, secret: &Secret| match (id, secret.expose()) {
            ("", _) => Err(missing("client_id")),
            (_, "") => Err(missing("client_secret")),
            _ => Ok(()),
        };
        let assertion;
        let mut members: Vec<(&str, &str)> = Vec::new();
        match &self.grant {
            Grant::Client { client_id, client_secret, scope } => {
                client(client_id, client_secret)?;
                members.extend([("grant_type", "client_credentials"), ("client_id", client_id), ("client_secret", client_secret.expose())]);
                members.extend(scope.as_deref().map(|scope| ("scope", scope)));
            }
            Grant::Refresh { client_id, client_secret, scope, .. } => {
                client(client_id, client_secret)?;
                let token = refresh.ok_or(missing("refresh_token"))?.expose();
                members.extend([("grant_type", "refresh_token"), ("refresh_token", token)]);
                members.extend([("client_id", client_id.as_str()), ("client_secret", client_secret.expose())]);
                members.extend(scope.as_deref().map(|scope| ("scope", scope)));
            }
            Grant::Google { credentials, scope } => {
                assertion = self.assertion(credentials, scope, url)?;
                members.extend([("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("assertion", assertion.as_str())]);
            }
        }
        let mut body = Zeroizing::new(String::new());
        for (name, value) in members {
            let sign = if body.is_empty() { "" } else { "&" };
            let value = Zeroizing::new(utf8_percent_encode(value, NON_ALPHANUMERIC).to_string());
            body.extend([sign, name, "=", value.as_str()]);
        }
        Ok(body)
    }

    /// The signed claim of a service account (RFC 7523).
    fn assertion(&self, credentials: &Secret, scope: &str, url: &str) -> Result<String, AuthError> {
        let wrong = |problem| AuthError::Credential { field: "credentials", problem };
        if credentials.expose().is_empty() {
            return Err(wrong("is missing"));
        }
        let account: ServiceAccount =
            serde_json::from_str(credentials.expose()).map_err(|_| wrong("is not the JSON key file of a service account"))?;
        let pem = Zeroizing::new(account.private_key);
        let key = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).map_err(|_| wrong("has a private_key that is no PEM of PKCS #8"))?;
        let pair = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).map_err(|_| wrong("has a private_key that is no RSA key"))?;
        let now = self.env.now_ms().div_euclid(1000);
        let mut header = json!({ "alg": "RS256", "typ": "JWT" });
        if let Some(id) = account.private_key_id {
            header["kid"] = id.into();
        }
        let claims = json!({ "iss": account.client_email, "scope": scope, "aud": url, "iat": now, "exp": now + 3600 });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&header), encode(&claims));
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text.as_bytes(), &mut signature).map_err(|_| wrong("cannot sign"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    async fn exchange(&self, url: String, body: Zeroizing<String>) -> Result<Answer, AuthError> {
        let headers = [("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json")];
        let request = Outgoing {
            method: "POST",
            url,
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            body: body.as_bytes().to_vec(),
            timeout: TOKEN_TIMEOUT,
            answer_bytes_max: TOKEN_ANSWER_BYTES_MAX,
            allow_private: self.allow_private,
        };
        let (tell, told) = oneshot::channel();
        self.outbound.send(request, Box::new(move |answer| drop(tell.send(answer))));
        let answer = told.await.unwrap_or_else(|_| Err(SendError::NoAnswer(String::new())));
        answer.map_err(|error| match error {
            SendError::Unreadable(_) => AuthError::NoToken { status: 0, retry_after_ms: None },
            _ => AuthError::Unreached,
        })
    }

    // Refresh tokens.

    /// The digest of the one that was configured stands before a kept one: after an operator gave another one, the kept one is of no use.
    fn origin(&self) -> String {
        let Grant::Refresh { given, .. } = &self.grant else { return String::new() };
        URL_SAFE_NO_PAD.encode(Sha256::digest(given.expose()))
    }

    async fn refresh_token(&self) -> Result<Secret, AuthError> {
        let Grant::Refresh { given, .. } = &self.grant else { return Err(AuthError::Store) };
        let (store, destination) = (Arc::clone(&self.store), self.destination.clone());
        let kept = tokio::task::spawn_blocking(move || store.load(&destination)).await.unwrap_or_else(|_| Err("it panicked".to_owned()));
        let kept = kept.map_err(|why| {
            tracing::error!(destination = self.destination, why, "the kept refresh token cannot be read");
            AuthError::Store
        })?;
        let kept = kept.as_ref().and_then(|kept| kept.expose().split_once('.')).filter(|(origin, _)| *origin == self.origin());
        match kept {
            Some((_, token)) => Ok(Secret::new(token)),
            None if given.expose().is_empty() => Err(AuthError::Credential { field: "refresh_token", problem: "is missing" }),
            None => Ok(given.clone()),
        }
    }

    /// The one before may be worth nothing any more, so it is kept before it is used.
    async fn keep(&self, next: &Secret) {
        let (store, destination) = (Arc::clone(&self.store), self.destination.clone());
        let kept = Secret::new(format!("{}.{}", self.origin(), next.expose()));
        let saved = tokio::task::spawn_blocking(move || store.save(&destination, &kept)).await;
        if let Err(why) = saved.unwrap_or_else(|_| Err("it panicked".to_owned())) {
            tracing::error!(
                destination = self.destination,
                why,
                "a refresh token was changed and could not be kept; a restart may need another"
            );
        }
    }
}

fn life(expires_in: Option<&Value>) -> Duration {
    let seconds = expires_in.and_then(|value| match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    });
    let life = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok()).unwrap_or(TOKEN_LIFE);
    life.min(TOKEN_LIFE_MAX)
}

fn granted(answer: &Answer) -> Result<Granted, AuthError> {
    let status = answer.status;
    if matches!(status, 400 | 401 | 403) {
        return Err(AuthError::Refused { status });
    }
    let asked = answer.header("retry-after").and_then(|asked| asked.trim().parse::<u64>().ok());
    let none = AuthError::NoToken { status, retry_after_ms: asked.map(|seconds| seconds.min(AFTER_SECONDS_MAX) * 1000) };
    let is_json = answer.header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().contains("json"));
    if status != 200 || !is_json {
        return Err(none);
    }
    let granted: Granted = serde_json::from_slice(&answer.body).map_err(|_| none.clone())?;
    let is_bearer = granted.token_type.as_deref().is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"));
    let is_token = |text: &str| text.len() <= TOKEN_BYTES_MAX && visible("access_token", &Secret::new(text)).is_ok();
    let are_tokens = is_token(&granted.access_token) && granted.refresh_token.as_deref().is_none_or(is_token);
    if is_bearer && are_tokens { Ok(granted) } else { Err(none) }
}
