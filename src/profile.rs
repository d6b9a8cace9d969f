//! The profile that this crate is built by.

/// Whether this is a debug build: the profile is `dev` or inherits from it, and has debug assertions.
///
/// Only then may a default be less than safe. A release profile may turn debug assertions on, and a
/// profile for production may inherit from `dev`; neither is a debug build.
pub(crate) const IS_DEBUG_BUILD: bool = cfg!(all(debug_profile, debug_assertions));
