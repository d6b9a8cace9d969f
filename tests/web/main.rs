//! Sessions in the web frameworks: the interface, middleware, handlers, and what outlives a request.

#[path = "../common/mod.rs"]
mod common;

mod actix;
#[cfg(feature = "actix-session")]
mod actix_session;
#[cfg(all(feature = "axum", feature = "memory"))]
mod axum;
#[cfg(all(feature = "axum", feature = "memory"))]
mod callers_code;
mod carrier;
mod every_framework;
#[cfg(feature = "testing")]
mod library_authors;
mod lifetime;
mod observe;
#[cfg(all(feature = "axum", feature = "memory"))]
mod one_login;
#[cfg(all(feature = "axum", feature = "memory"))]
mod outside_a_request;
mod promises;
mod qor;
mod tenants;
