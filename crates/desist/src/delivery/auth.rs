//! How calls prove who makes them.
//!
//! Invariants: no credential is in an error or a log line; without a good one nothing is sent; tokens are fetched from the hosts of the
//! connector alone.

mod oauth;
pub(super) mod sigv4;
mod store;
mod webhooks;

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use desist_connector::{Auth, Call, Secret};
use desist_core::lane::Failure;
use desist_engine::env::{Env, Outgoing};

use self::oauth::{Grant, Tokens};
use self::sigv4::Keys;
use self::webhooks::Signer;
use super::http::Options;

pub use store::{EngineTokens, TokenStore, Unkept};

/// Why a call cannot be authenticated. No text has the value of a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// A credential is missing or wrong.
    #[error("the credential `{field}` {problem}")]
    Credential {
        /// Its key in `[auth]`.
        field: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The token endpoint does not accept the credentials.
    #[error("the token endpoint refused the credentials (status {status})")]
    Refused {
        /// What it answered.
        status: u16,
    },
    /// The token endpoint answered with something else than a token.
    #[error("the token endpoint gave no token (status {status})")]
    NoToken {
        /// What it answered.
        status: u16,
        /// How long it asked to wait, in milliseconds.
        retry_after_ms: Option<u64>,
    },
    /// The token endpoint was not reached.
    #[error("the token endpoint was not reached, or gave no answer")]
    Unreached,
    /// The refresh token that was kept cannot be read.
    #[error("the kept refresh token cannot be read")]
    Store,
}

impl AuthError {
    /// What it means for the destination.
    pub const fn failure(&self) -> Failure {
        match self {
            Self::Credential { .. } | Self::Refused { .. } => Failure::Credentials,
            Self::NoToken { status: 429, .. } => Failure::Throttled,
            Self::NoToken { .. } => Failure::Server,
            Self::Unreached | Self::Store => Failure::Connect,
        }
    }

    /// How long the token endpoint asked to wait, in milliseconds.
    pub const fn retry_after_ms(&self) -> Option<u64> {
        if let Self::NoToken { retry_after_ms, .. } = self { *retry_after_ms } else { None }
    }
}

/// Whom a call is about.
#[derive(Clone, Copy)]
pub struct About<'a> {
    /// The call, if it tells of somebody.
    pub call: Option<&'a Call>,
    /// The version of each person of the errand.
    pub versions: &'a BTreeMap<u64, u64>,
}

static NOBODY: BTreeMap<u64, u64> = BTreeMap::new();

impl About<'static> {
    /// A call that asks.
    pub const fn nobody() -> Self {
        Self { call: None, versions: &NOBODY }
    }
}

/// What a call was authenticated with.
pub struct Used {
    /// The number of its token, and whether it was kept from an earlier call.
    token: Option<(u64, bool)>,
}

/// Authenticates the calls to one destination.
pub struct Authenticator {
    destination: String,
    env: Arc<dyn Env>,
    way: Way,
}

enum Way {
    None,
    Header(String, Result<Secret, AuthError>),
    Tokens(Arc<Tokens>),
    Sigv4(Result<Keys, AuthError>),
    Webhooks(Result<Signer, AuthError>),
}

/// A credential that can stand in a header.
fn visible(field: &'static str, value: &Secret) -> Result<Secret, AuthError> {
    let text = value.expose();
    let problem = match text {
        "" => "is missing",
        _ if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) && text.trim() == text => return Ok(value.clone()),
        _ => "has characters that a header cannot have",
    };
    Err(AuthError::Credential { field, problem })
}

impl Authenticator {
    /// Reads the credentials. What is wrong with them is said when the first call needs them.
    pub fn new(options: &Options) -> Self {
        let authorization = |value| Way::Header("authorization".to_owned(), value);
        let tokens = |token_url: &str, grant| Way::Tokens(Arc::new(Tokens::new(options, token_url, grant)));
        let way = match options.instance.auth() {
            Auth::None => Way::None,
            Auth::Bearer { token } => authorization(visible("token", token).map(|token| Secret::new(format!("Bearer {}", token.expose())))),
            Auth::Header { name, value } => Way::Header(name.clone(), visible("value", value)),
            Auth::Basic { username, password } => authorization(basic(username, password)),
            Auth::Oauth2Client { token_url, client_id, client_secret, scope } => tokens(
                token_url,
                Grant::Client { client_id: client_id.clone(), client_secret: client_secret.clone(), scope: scope.clone() },
            ),
            Auth::Oauth2Refresh { token_url, client_id, client_secret, refresh_token, scope } => tokens(
                token_url,
                Grant::Refresh {
                    client_id: client_id.clone(),
                    client_secret: client_secret.clone(),
                    given: refresh_token.clone(),
                    scope: scope.clone(),
                },
            ),
            Auth::GoogleSa { token_url, credentials, scope } => {
                tokens(token_url, Grant::Google { credentials: credentials.clone(), scope: scope.clone() })
            }
            Auth::AwsSigv4 { access_key, secret_key, region, service } => Way::Sigv4(Keys::new(access_key, secret_key, region, service)),
            Auth::StandardWebhooks { secret } => Way::Webhooks(Signer::parse(secret.expose())),
        };
        Self { destination: options.destination.clone(), env: Arc::clone(&options.env), way }
    }

    /// Adds what proves who makes the call. It is the last thing that is done to a call.
    pub async fn sign(&self, outgoing: &mut Outgoing, about: About<'_>) -> Result<Used, AuthError> {
        let mut token = None;
        match &self.way {
            Way::None => {}
            Way::Header(name, value) => outgoing.headers.push((name.clone(), value.clone()?.expose().to_owned())),
            Way::Tokens(tokens) => {
                let held = tokens.get().await?;
                outgoing.headers.push(("authorization".to_owned(), format!("Bearer {}", held.text.expose())));
                token = Some((held.number, held.is_old));
            }
            Way::Sigv4(keys) => keys.as_ref().map_err(Clone::clone)?.sign(outgoing, self.env.now_ms())?,
            Way::Webhooks(signer) => {
                let signer = signer.as_ref().map_err(Clone::clone)?;
                let id = webhooks::id(&self.destination, outgoing, about);
                let timestamp = self.env.now_ms().div_euclid(1000);
                let signature = signer.sign(&id, timestamp, &outgoing.body);
                let headers = [("webhook-id", id), ("webhook-timestamp", timestamp.to_string()), ("webhook-signature", signature)];
                outgoing.headers.extend(headers.map(|(name, value)| (name.to_owned(), value)));
            }
        }
        Ok(Used { token })
    }

    /// The destination did not accept it. Whether another try makes sense: with a token that was kept, which may have been revoked.
    pub fn refused(&self, used: &Used) -> bool {
        let (Way::Tokens(tokens), Some((number, is_old))) = (&self.way, used.token) else { return false };
        tokens.forget(number);
        is_old
    }
}

fn basic(username: &str, password: &Secret) -> Result<Secret, AuthError> {
    if username.is_empty() || username.contains(':') {
        return Err(AuthError::Credential { field: "username", problem: "is missing, or has a colon in it" });
    }
    if password.expose().is_empty() {
        return Err(AuthError::Credential { field: "password", problem: "is missing" });
    }
    Ok(Secret::new(format!("Basic {}", STANDARD.encode(format!("{username}:{}", password.expose())))))
}
