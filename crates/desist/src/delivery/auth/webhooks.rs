//! The signatures of Standard Webhooks: `v1` with a shared key, `v1a` with an ed25519 key.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use desist_engine::alerts::SigningKey;
use desist_engine::env::Outgoing;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{About, AuthError};

const WRONG: &str = "is neither \"whsec_\" and base64 of 24 to 64 bytes nor \"whsk_\" and base64 of an ed25519 key";

/// A key that signs messages.
pub enum Signer {
    Shared(SigningKey),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    /// Reads `whsec_` and base64 of 24 to 64 bytes, or `whsk_` and base64 of an ed25519 key: its seed, or seed and public key.
    pub fn parse(text: &str) -> Result<Self, AuthError> {
        let wrong = |problem| AuthError::Credential { field: "secret", problem };
        if text.is_empty() {
            return Err(wrong("is missing"));
        }
        if text.starts_with("whsec_") {
            return SigningKey::parse(text).map(Self::Shared).map_err(wrong);
        }
        let encoded = text.strip_prefix("whsk_").ok_or_else(|| wrong(WRONG))?;
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| wrong(WRONG))?);
        let pair = match bytes.len() {
            32 => Ed25519KeyPair::from_seed_unchecked(&bytes),
            64 => Ed25519KeyPair::from_seed_and_public_key(&bytes[..32], &bytes[32..]),
            _ => return Err(wrong(WRONG)),
        };
        pair.map(Self::Ed25519).map_err(|_| wrong("is an ed25519 key whose halves do not fit"))
    }

    /// The header `webhook-signature` of a message.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        match self {
            Self::Shared(key) => key.sign(id, timestamp, body),
            Self::Ed25519(pair) => {
                let message = [format!("{id}.{timestamp}.").as_bytes(), body].concat();
                format!("v1a,{}", STANDARD.encode(pair.sign(&message)))
            }
        }
    }
}

/// The id of a message: the same when it is sent again, so that a receiver can leave it out, and another one for each part of what is
/// told of somebody with many identifiers, so that none is left out.
pub fn id(destination: &str, outgoing: &Outgoing, about: About<'_>) -> String {
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_be_bytes());
        digest.update(bytes);
    };
    for part in [destination.as_bytes(), outgoing.method.as_bytes(), outgoing.url.as_bytes(), &outgoing.body] {
        add(part);
    }
    if let Some(call) = about.call {
        add(format!("{:?}", call.origin).as_bytes());
        for unit in &call.units {
            add(&unit.token.to_be_bytes());
            add(&about.versions.get(&unit.token).copied().unwrap_or_default().to_be_bytes());
        }
    }
    format!("msg_{}", URL_SAFE_NO_PAD.encode(&digest.finalize()[..16]))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::KeyPair as _;

    use super::*;

    #[test]
    fn keys_are_read_and_what_is_none_is_not_repeated() {
        let seed = [7_u8; 32];
        let short = Signer::parse(&format!("whsk_{}", STANDARD.encode(seed))).unwrap_or_else(|_| panic!("a seed"));
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let public = pair.public_key().as_ref();
        let long = Signer::parse(&format!("whsk_{}", STANDARD.encode([&seed[..], public].concat())));
        assert_eq!(long.map(|long| long.sign("msg_1", 7, b"{}")).ok(), Some(short.sign("msg_1", 7, b"{}")));
        let marker = STANDARD.encode([9; 20]);
        let torn = format!("whsk_{}", STANDARD.encode([&seed[..], &[1; 32]].concat()));
        for wrong in ["", "whsec_", "whsk_", &marker, &format!("whsec_{marker}"), &format!("whsk_{marker}"), &torn, "whsk_*"] {
            let error = Signer::parse(wrong).err().expect("no key").to_string();
            assert!(error.contains("`secret`") && !error.contains(&marker), "{error}");
        }
        // The example of the specification's reference implementation.
        let key = Signer::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap_or_else(|_| panic!("a key"));
        assert_eq!(
            key.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }
}
