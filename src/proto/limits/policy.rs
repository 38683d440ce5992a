//! What the policy of one tunnel may ask for, so that checking a request stays cheap and what is remembered is bounded.

use std::time::Duration;

/// Users. Each costs a slow hash when the policy is given, and again whenever its client comes back.
pub const USERS: usize = 16;
/// Networks in one list, which is looked through for each request.
pub const NETWORKS: usize = 256;
/// Signatures that a request must have.
pub const VERIFY: usize = 4;
/// Secrets of one signature: the current one, and those before and after it.
pub const SECRETS: usize = 3;
/// Bytes of a secret, a prefix or a payload; those in use have under 100.
pub const TEXT_BYTES: usize = 1024;
/// Items of a header of signatures that are looked at; senders that replace a secret send two or three.
pub const SIGNATURES: usize = 16;
/// The longest time that a signature may be old.
pub const TOLERANCE: Duration = Duration::from_secs(24 * 3600);
/// Bytes of a signed body, which is held in memory until it was checked: GitHub, Stripe and Slack stay below it.
pub const SIGNED_BODY: u64 = 1024 * 1024;
/// The same where the policy itself names a longest body.
pub const SIGNED_BODY_MOST: u64 = 8 * 1024 * 1024;
/// Bytes of all bodies that one tunnel holds at the same time; the next one gets 503.
pub const SIGNED_AT_ONCE: usize = 32 * 1024 * 1024;
/// A signed body must have come within this; else 408.
pub const SIGNED_BODY_WAIT: Duration = Duration::from_secs(30);
/// Changes of headers in one direction.
pub const HEADERS: usize = 32;
/// Bytes of all of them: targets refuse heads of more than 8 to 16 KiB.
pub const HEADER_BYTES: usize = 8 * 1024;
/// Bytes of an offline page.
pub const PAGE_BYTES: usize = 64 * 1024;
/// Requests in the unit of a rate, and at once.
pub const RATE: u64 = 1_000_000;
/// Addresses (networks of 64 bits in IPv6) whose rate one tunnel remembers, 16 bytes each. With more that are all busy
/// a new one takes over the debt of the least busy one.
pub const ADDRESSES: usize = 16 * 1024;
/// A browser that was asked whether to go on is not asked again within this.
pub const PASSED: Duration = Duration::from_secs(7 * 24 * 3600);
/// The button of the page that asks is good for this.
pub const ASKED: Duration = Duration::from_secs(3600);
