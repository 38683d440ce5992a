//! JSON Web Tokens (RFC 7519) signed with a secret of the relay: minted, verified and inspected (`protocol.md`,
//! section 1).

mod claims;
mod worker;

pub use claims::{Claims, LEEWAY, MAX_LIFETIME};
pub use worker::WorkerTokens;

use std::time::Duration;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, crypto, encode};
use serde_json::{Map, Value};

use super::{Secret, unbase64};
use crate::proto::name::Name;

/// Longest token, in bytes. One with all claims has some 300; a longer one is refused before it is looked at.
pub const MAX_TOKEN: usize = 8 * 1024;

/// Shortest secret, in bytes: that of the hash (RFC 7518, section 3.2).
pub const MIN_SECRET: usize = 32;

/// Most secrets at a time: the one that signs, and the one before it, until its last token has expired.
pub const MAX_SECRETS: usize = 2;

/// What a token for this relay may name as its audience.
pub const AUDIENCE: &str = "adit";

/// The one algorithm. It is chosen here: what a header names is only compared with it.
const ALGORITHM: Algorithm = Algorithm::HS256;
const ALGORITHM_NAME: &str = "HS256";

/// A JSON object.
pub type Object = Map<String, Value>;

/// A rule that a token breaks; the text is for whoever sent it and shows nothing of the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// Longer than [`MAX_TOKEN`].
    #[error("the token is longer than 8 KiB: ask for one with fewer claims")]
    TooLong,
    /// Not three parts of base64url of which the first two are JSON objects (RFC 7515, section 7.1).
    #[error("the token is not readable: send all of it, three parts with dots between them, as it was given")]
    Unreadable,
    /// The header names another algorithm, or none.
    #[error("the token is not signed with HS256, which alone is taken: ask for one that is")]
    Algorithm,
    /// The header has `crit`, of which nothing is understood (RFC 7515, section 4.1.11).
    #[error("the token's header has \"crit\", of which nothing is understood here: ask for one without it")]
    Critical,
    /// No secret fits.
    #[error(
        "the token's signature fits no secret of this relay: send all of it, or ask for one that is made for this relay"
    )]
    Signature,
    /// The claim is not there.
    #[error("the token has no claim \"{0}\": ask for one that has it")]
    Missing(&'static str),
    /// The claim is not what it has to be.
    #[error("the token's claim \"{claim}\" cannot be used: it must be {expected}")]
    Malformed {
        /// Its name.
        claim: &'static str,
        /// What it has to be.
        expected: &'static str,
    },
    /// `exp` is not after `nbf`, or more than [`MAX_LIFETIME`] after it.
    #[error(
        "the token's \"exp\" must be after its \"nbf\", by 31 days at most: ask for one that lives shorter"
    )]
    Lifetime,
    /// `aud` is for others.
    #[error(
        "the token is for another service: ask for one whose claim \"aud\" has \"adit\", or that has none"
    )]
    Audience,
    /// A worker's token is for another audience than this relay's.
    #[error("the token's \"aud\" does not have the audience of this relay: ask for one that is made for it")]
    OtherAudience,
    /// A worker's token is for an audience, and this relay has none.
    #[error("the token has \"aud\", and this relay was given no audience: ask for one without it")]
    NoAudience,
    /// A worker's token is for another id.
    #[error("the token's \"tid\" is not the id that it came with: ask for one that is made for this id")]
    OtherWorker,
    /// Its time is over.
    #[error("the token has expired: get a new one")]
    Expired,
    /// Its time has not come.
    #[error("the token is not yet valid: wait for its \"nbf\", or set the clock of the machine that made it")]
    NotYetValid,
}

/// Why no token was minted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MintError {
    /// Nothing to sign with.
    #[error("there is no secret to sign with")]
    NoSecret,
    /// The lifetime is under a second or over [`MAX_LIFETIME`].
    #[error("a token lives for 1s to 31d")]
    Lifetime,
    /// The token would not be taken here.
    #[error(transparent)]
    Broken(#[from] TokenError),
    /// It could not be written or signed.
    #[error("the token cannot be signed")]
    Signing,
}

/// The secrets that sign tokens, the newest first. There may be none: then there are no tokens.
#[derive(Debug, Clone, Default)]
pub struct Secrets(Vec<Secret>);

/// Whether one of the secrets made a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// This one did, counted from 0.
    Fits(usize),
    /// None of them.
    FitsNone,
    /// There are no secrets to compare with.
    NoSecret,
}

/// All that can be said of a token, valid or not.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The header, where it can be read.
    pub header: Option<Object>,
    /// The claims, where they can be read.
    pub claims: Option<Object>,
    /// Whose the signature is.
    pub signature: Signature,
    /// Every rule that it breaks, as far as it can be read.
    pub broken: Vec<TokenError>,
}

impl Inspection {
    /// Whether a relay with these secrets takes the token now.
    pub fn is_valid(&self) -> bool {
        self.broken.is_empty() && matches!(self.signature, Signature::Fits(_))
    }
}

/// Whether a bearer is written like a token: three parts of base64url. The last may be empty, as in tokens that are
/// not signed: they are to be refused as tokens.
pub fn looks_like(bearer: &str) -> bool {
    let mut parts = bearer.split('.');
    let digits = |part: &str| part.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_'));
    let filled = |part: Option<&str>| part.is_some_and(|part| !part.is_empty() && digits(part));
    filled(parts.next()) && filled(parts.next()) && parts.next().is_some_and(digits) && parts.next().is_none()
}

impl Secrets {
    /// The newest goes first: it signs.
    pub fn new(secrets: Vec<Secret>) -> Self {
        Self(secrets)
    }

    /// All of them, the newest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Secret> {
        self.0.iter()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What a token claims, if it is valid at `now` (Unix milliseconds). Its claims are read only when its signature
    /// is right.
    pub fn verify(&self, token: &str, now: i64) -> Result<Claims, TokenError> {
        claims::check(&self.signed_claims(token)?, now)
    }

    /// The claims, if the signature is right.
    fn signed_claims(&self, token: &str) -> Result<Object, TokenError> {
        let parts = Parts::of(token)?;
        check_header(&parts.header()?)?;
        match self.signature_of(&parts) {
            Signature::Fits(_) => parts.claims(),
            Signature::FitsNone | Signature::NoSecret => Err(TokenError::Signature),
        }
    }

    /// Looks at a token as [`Secrets::verify`] does, but goes on after the first rule that it breaks.
    pub fn inspect(&self, token: &str, now: i64) -> Inspection {
        self.inspect_by(token, |claims| claims::broken(claims, now))
    }

    fn inspect_by(&self, token: &str, rules: impl FnOnce(&Object) -> Vec<TokenError>) -> Inspection {
        let parts = match Parts::of(token) {
            Ok(parts) => parts,
            Err(error) => {
                let signature = if self.is_empty() { Signature::NoSecret } else { Signature::FitsNone };
                return Inspection { header: None, claims: None, signature, broken: vec![error] };
            }
        };
        let (header, claims) = (parts.header(), parts.claims());
        let signature = self.signature_of(&parts);
        let mut broken = Vec::new();
        match &header {
            Ok(header) => broken.extend(check_header(header).err()),
            Err(error) => broken.push(*error),
        }
        if signature == Signature::FitsNone {
            broken.push(TokenError::Signature);
        }
        match &claims {
            Ok(claims) => broken.extend(rules(claims)),
            Err(error) if !broken.contains(error) => broken.push(*error),
            Err(_) => {}
        }
        Inspection { header: header.ok(), claims: claims.ok(), signature, broken }
    }

    /// A token of the newest secret for `sub`, valid from `now` (Unix milliseconds) for `lifetime`, both cut to
    /// seconds. `tid` limits it to the tunnel of that name.
    pub fn mint(
        &self,
        sub: &str,
        tid: Option<&Name>,
        lifetime: Duration,
        now: i64,
    ) -> Result<String, MintError> {
        let secret = self.0.first().ok_or(MintError::NoSecret)?;
        if lifetime < Duration::from_secs(1) || lifetime > MAX_LIFETIME {
            return Err(MintError::Lifetime);
        }
        let nbf = now.div_euclid(1000);
        let exp = nbf.saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX));
        let mut claims = Object::new();
        claims.insert("sub".into(), sub.into());
        claims.insert("aud".into(), AUDIENCE.into());
        claims.insert("nbf".into(), nbf.into());
        claims.insert("exp".into(), exp.into());
        if let Some(tid) = tid {
            claims.insert("tid".into(), tid.as_str().into());
        }
        claims::check(&claims, nbf.saturating_mul(1000))?;
        sign(secret, &claims)
    }

    fn signature_of(&self, parts: &Parts<'_>) -> Signature {
        if self.is_empty() {
            return Signature::NoSecret;
        }
        let fits = |secret: &Secret| {
            let key = DecodingKey::from_secret(secret.expose().as_bytes());
            // Compares in constant time. The algorithm is ours, whatever the header says.
            crypto::verify(parts.signature, parts.signed.as_bytes(), &key, ALGORITHM).unwrap_or(false)
        };
        self.0.iter().position(fits).map_or(Signature::FitsNone, Signature::Fits)
    }
}

fn sign(secret: &Secret, claims: &Object) -> Result<String, MintError> {
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    encode(&Header::new(ALGORITHM), claims, &key).map_err(|_| MintError::Signing)
}

/// The parts of a token (RFC 7515, section 3.1), still encoded.
struct Parts<'a> {
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// Header and claims with the dot between them.
    signed: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN {
            return Err(TokenError::TooLong);
        }
        let split = || {
            let (signed, signature) = token.rsplit_once('.')?;
            let (header, claims) = signed.split_once('.')?;
            looks_like(token).then_some(Self { header, claims, signature, signed })
        };
        split().ok_or(TokenError::Unreadable)
    }

    fn header(&self) -> Result<Object, TokenError> {
        object(self.header)
    }

    fn claims(&self) -> Result<Object, TokenError> {
        object(self.claims)
    }
}

fn object(part: &str) -> Result<Object, TokenError> {
    let json = unbase64(part, *b"-_").ok_or(TokenError::Unreadable)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Unreadable)
}

/// Nothing else of a header counts: where a key is to be found (`kid`, `jku`, `jwk`, `x5u`, …) is not for the sender to
/// say.
fn check_header(header: &Object) -> Result<(), TokenError> {
    if header.get("alg").and_then(Value::as_str) != Some(ALGORITHM_NAME) {
        return Err(TokenError::Algorithm);
    }
    // Also an empty or malformed list, which no sender may write.
    if header.contains_key("crit") { Err(TokenError::Critical) } else { Ok(()) }
}

#[cfg(test)]
mod tests;
