//! Adit: a relay that lets anyone on the network reach a service that only one machine can reach, its client, and the
//! protocol between them.
//!
//! The program `adit` is in the README; this is the library. A program that wants to be reached opens a
//! `client::Tunnel`, to a port of its machine or to a service of its own: an `axum::Router`, or any tower
//! service, is served straight on the tunnel, and no local port is opened for it.
//!
#![cfg_attr(feature = "client", doc = "```no_run")]
#![cfg_attr(not(feature = "client"), doc = "```ignore")]
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! # let router = axum::Router::<()>::new();
//! use adit::client::Tunnel;
//!
//! let mut tunnel = Tunnel::to("https://relay.example.com")
//!     .key(std::env::var("ADIT_KEY")?)
//!     .name("demo")
//!     .serve(router)                          // or .expose_port(3000), or .expose("https://localhost:8443")
//!     .await?;                                // it is online, or the error says what to do
//! println!("{}", tunnel.url());
//! while let Some(event) = tunnel.next_event().await {
//!     println!("{event:?}");                  // lost and found again, requests, the end
//! }
//! tunnel.shutdown().await;                    // running requests get their time; a drop ends it at once
//! # Ok(())
//! # }
//! ```
//!
//! A relay that was lost is found again by itself, under the same URL. `examples/` has whole programs, among them a relay
//! and a client in one process.
//!
//! # Features
//!
//! | feature | what it is for |
//! |---|---|
//! | `client` | `client`: tunnels, without anything of the relay |
//! | `relay` | `relay`, `store` and the keys in `auth`: a relay inside another program |
//! | `bridge` | `bridge`: WebSockets in front of TCP services, without a relay |
//! | `cli` (default) | the program `adit`; takes all three |
//!
//! ```toml
//! adit = { version = "0.1", default-features = false, features = ["client"] }
//! ```
//!
//! Without any feature there are the JSON of the REST API, [`proto::api`], and [`wsmux`]: many streams in one WebSocket. What is not in these pages may change in any
//! version.

#[cfg(any(feature = "client", feature = "relay", feature = "bridge"))]
pub mod auth;
#[cfg(feature = "bridge")]
pub mod bridge;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "conform")]
#[doc(hidden)]
pub mod conform;
#[cfg(feature = "relay")]
#[doc(hidden)]
pub mod link;
pub mod proto;
#[cfg(any(feature = "client", feature = "relay"))]
mod random;
#[cfg(any(feature = "relay", feature = "bridge"))]
mod rate;
#[cfg(feature = "relay")]
pub mod relay;
#[cfg(feature = "relay")]
pub mod store;
#[doc(hidden)]
pub mod stream;
mod sync;
#[doc(inline)]
pub use stream::wsmux;
#[cfg(feature = "relay")]
mod tally;
#[cfg(feature = "relay")]
#[doc(hidden)]
pub mod tunnel;
