//! Where refresh tokens are kept that the other side changed.

use std::sync::Arc;

use desist_connector::Secret;
use desist_engine::engine::Engine;
use desist_engine::queue::Lane;

/// Keeps one secret for each destination. Who calls may be blocked for the time of a write.
pub trait TokenStore: Send + Sync {
    /// The secret that was saved last. An error says why it cannot be read, and nothing of what it is.
    fn load(&self, destination: &str) -> Result<Option<Secret>, String>;
    /// Saves a secret durably before it returns.
    fn save(&self, destination: &str, secret: &Secret) -> Result<(), String>;
}

/// Keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unkept;

impl TokenStore for Unkept {
    fn load(&self, _: &str) -> Result<Option<Secret>, String> {
        Ok(None)
    }

    fn save(&self, _: &str, _: &Secret) -> Result<(), String> {
        Ok(())
    }
}

/// Keeps them sealed in the store of the engine.
pub struct EngineTokens(pub Arc<Engine>);

fn name(destination: &str) -> String {
    format!("oauth/{destination}")
}

impl TokenStore for EngineTokens {
    fn load(&self, destination: &str) -> Result<Option<Secret>, String> {
        let name = name(destination);
        let Some(sealed) = self.0.read(|read| read.meta(&name)).map_err(|error| error.to_string())? else { return Ok(None) };
        let plain = self.0.shared().vault.open_carried(name.as_bytes(), &sealed).map_err(|_| "it cannot be opened".to_owned())?;
        let text = std::str::from_utf8(&plain).map_err(|_| "it is no text".to_owned())?;
        Ok(Some(Secret::new(text)))
    }

    fn save(&self, destination: &str, secret: &Secret) -> Result<(), String> {
        let (name, shared) = (name(destination), self.0.shared());
        let sealed = shared.vault.seal_carried(name.as_bytes(), secret.expose().as_bytes(), &*shared.env);
        let saved = self.0.submit_blocking(Lane::Interactive, move |ctx| ctx.write.put_meta(&name, &sealed).map(Ok));
        saved.map_err(|error| error.to_string())
    }
}
