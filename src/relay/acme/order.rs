//! One order, from the account to the certificate.

use std::fmt::Display;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, NewAccount, NewOrder, Order, OrderStatus,
    RetryPolicy,
};
use tokio::time::timeout;

use super::Acme;
use super::challenges::Prepared;
use super::hook::{self, HookError};
use crate::proto::limits::acme::{POLL_WAIT, WAIT};
use crate::relay::tls::{Certificate, CertificateError};
use crate::store::StoreError;

/// Why an order failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum OrderError {
    #[error("{0}")]
    Authority(#[from] instant_acme::Error),
    /// The authority did not find what it looked for.
    #[error("the authority did not find the proof at {name} ({kind}): {error}; {fix}")]
    NotProven { name: String, kind: &'static str, error: String, fix: &'static str },
    #[error("the authority offers no {0} for this name")]
    NotOffered(&'static str),
    #[error("{0}")]
    Preparing(String),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}; and {1}")]
    Both(Box<Self>, Box<Self>),
    #[error("the order was not done within {} seconds", WAIT.as_secs())]
    Late,
}

/// A way to prove that a name is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Http,
    Alpn,
    Dns,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Http => "HTTP-01",
            Self::Alpn => "TLS-ALPN-01",
            Self::Dns => "DNS-01",
        }
    }

    fn fix(self) -> &'static str {
        match self {
            Self::Http => "its DNS entry must lead to this relay, and port 80 to one of its addresses",
            Self::Alpn => "its DNS entry must lead to this relay, and port 443 to one of its addresses",
            Self::Dns => "check what acme-dns-hook has done",
        }
    }

    fn challenge(self) -> ChallengeType {
        match self {
            Self::Http => ChallengeType::Http01,
            Self::Alpn => ChallengeType::TlsAlpn01,
            Self::Dns => ChallengeType::Dns01,
        }
    }
}

impl Acme {
    /// Orders the certificate for `name`, keeps it and shows it.
    pub(super) async fn order(&self, name: &str) -> Result<(), OrderError> {
        let identifiers = match name.strip_prefix("*.") {
            Some(base) => vec![Identifier::Dns(name.to_owned()), Identifier::Dns(base.to_owned())],
            None => vec![Identifier::Dns(name.to_owned())],
        };
        let kinds = if name.starts_with("*.") { &[Kind::Dns][..] } else { &[Kind::Alpn, Kind::Http] };
        let account = timeout(WAIT, self.account()).await.map_err(|_| OrderError::Late)??;
        let mut failed: Option<OrderError> = None;
        for kind in kinds {
            let ordering = self.order_by(&account, &identifiers, *kind);
            match timeout(WAIT, ordering).await.unwrap_or(Err(OrderError::Late)) {
                Ok((chain, key)) => {
                    let certificate = Certificate::from_pem(chain.as_bytes(), key.as_bytes(), (name, name))?;
                    // Shown even if it cannot be kept: another one is ordered after the next start then.
                    self.certificates.set_ordered(name.to_owned(), certificate);
                    return Ok(self.save(name, chain, key).await?);
                }
                Err(error) => {
                    failed = Some(match failed {
                        None => error,
                        Some(before) => OrderError::Both(Box::new(before), Box::new(error)),
                    });
                }
            }
        }
        Err(failed.unwrap_or(OrderError::Late))
    }

    async fn account(&self) -> Result<Account, OrderError> {
        let directory = self.config.directory();
        let opening = async {
            let builder = Account::builder_with_http(Box::new(self.https.clone()));
            if let Some(kept) = self.store.acme_account(directory.clone()).await?
                && let Ok(credentials) = serde_json::from_str(&kept)
            {
                return Ok(builder.from_credentials(credentials).await?);
            }
            let contact: Vec<String> =
                self.config.email.iter().map(|email| format!("mailto:{email}")).collect();
            let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
            let wanted =
                NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
            let (account, credentials) = builder.create(&wanted, directory.clone(), None).await?;
            let credentials = serde_json::to_string(&credentials).map_err(instant_acme::Error::from)?;
            self.store.put_acme_account(directory, credentials).await?;
            Ok(account)
        };
        self.account.get_or_try_init(|| opening).await.cloned()
    }

    /// The chain and the key in PEM.
    async fn order_by(
        &self,
        account: &Account,
        identifiers: &[Identifier],
        kind: Kind,
    ) -> Result<(String, String), OrderError> {
        let mut order = account.new_order(&NewOrder::new(identifiers)).await?;
        let mut prepared = Vec::new();
        let proven = self.prove(&mut order, kind, &mut prepared).await;
        for entry in prepared {
            entry.clean_up(self).await;
        }
        proven?;
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&RetryPolicy::new().timeout(POLL_WAIT)).await?;
        Ok((chain, key))
    }

    /// Proves that all names of the order are ours. What is `prepared` for that is to be cleaned up however it ends.
    async fn prove(
        &self,
        order: &mut Order,
        kind: Kind,
        prepared: &mut Vec<Entry>,
    ) -> Result<(), OrderError> {
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let challenge =
                authorization.challenge(kind.challenge()).ok_or(OrderError::NotOffered(kind.name()))?;
            let Identifier::Dns(name) = challenge.identifier().identifier.clone() else { continue };
            let answer = challenge.key_authorization();
            prepared.push(match kind {
                Kind::Http => {
                    Entry::Here(self.challenges.prepare_http(&name, &challenge.token, answer.as_str()))
                }
                Kind::Alpn => {
                    let digest = answer.digest();
                    let digest =
                        digest.as_ref().try_into().map_err(|_| OrderError::Preparing("no digest".into()))?;
                    let failed = |error: Box<dyn Display + Send>| OrderError::Preparing(error.to_string());
                    Entry::Here(self.challenges.prepare_alpn(&name, digest).map_err(failed)?)
                }
                Kind::Dns => {
                    let (entry, value) = (format!("_acme-challenge.{name}"), answer.dns_value());
                    if let Some(hook) = &self.config.dns_hook {
                        hook::run(hook, "present", &entry, &value).await?;
                    }
                    Entry::Dns { entry, value }
                }
            });
        }
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status != AuthorizationStatus::Valid
                && let Some(mut challenge) = authorization.challenge(kind.challenge())
            {
                let told = challenge.set_ready().await;
                told.map_err(|error| match error {
                    // It has looked already.
                    instant_acme::Error::Api(problem) => {
                        not_proven(challenge.identifier().to_string(), kind, problem.detail)
                    }
                    error => error.into(),
                })?;
            }
        }
        match order.poll_ready(&RetryPolicy::new().timeout(POLL_WAIT)).await {
            Ok(OrderStatus::Ready | OrderStatus::Valid) => Ok(()),
            Ok(_) | Err(instant_acme::Error::Api(_)) => Err(why(order, kind).await),
            Err(error) => Err(error.into()),
        }
    }
}

/// What the authority says of the name that it did not accept.
async fn why(order: &mut Order, kind: Kind) -> OrderError {
    let (mut name, mut said) = (String::new(), None);
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        let failed = state.challenges.iter().find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = failed {
            name = state.identifier().to_string();
            said = problem.detail.clone();
        }
    }
    not_proven(name, kind, said)
}

fn not_proven(name: String, kind: Kind, said: Option<String>) -> OrderError {
    let error = said.unwrap_or_else(|| "no reason given".to_owned());
    OrderError::NotProven { name, kind: kind.name(), error, fix: kind.fix() }
}

/// What an authority looks for.
enum Entry {
    Here(Prepared),
    Dns { entry: String, value: String },
}

impl Entry {
    async fn clean_up(self, acme: &Acme) {
        match self {
            Self::Here(prepared) => drop(prepared),
            Self::Dns { entry, value } => {
                if let Some(hook) = &acme.config.dns_hook
                    && let Err(error) = hook::run(hook, "cleanup", &entry, &value).await
                {
                    tracing::warn!(%error, entry, "a DNS entry was not removed");
                }
            }
        }
    }
}
