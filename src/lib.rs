#![cfg_attr(docsrs, feature(doc_cfg))]
//! session-manager

mod backend;
mod changes;
mod cookie;
mod error;
mod expiry;
mod finite;
#[cfg(feature = "cookies")]
mod key;
mod log;
pub mod manager;
mod message;
mod record;
mod session;
mod value;
mod web;

pub use ::cookie::SameSite;
pub use backend::{Backend, BackendFuture, Commit, Opened, Opening, Refused, Reply, Size};
#[cfg(feature = "cookies")]
pub use backend::{private_cookie::PrivateCookie, signed_cookie::SignedCookie};
pub use changes::{Change, Changes, Update, View};
pub use error::{ConfigError, Error};
pub use expiry::{Expiry, Timestamp};
#[cfg(feature = "cookies")]
pub use key::{Key, KeyError};
pub use manager::{Builder, HasSession, Manager, Middleware, OnStoreError, Sessions, Settings};
pub use message::Message;
pub use record::{Entries, Record};
pub use session::Session;
pub use value::Value;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;
