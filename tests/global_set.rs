//! The first `set`.

mod common;

use common::key;
use session_manager::{Manager, PrivateCookie, manager};
use std::sync::Arc;

#[test]
fn set_replaces_the_default_and_returns_it() {
    let default = manager::get();
    let mine = Arc::new(Manager::new(PrivateCookie::new(key())));
    let former = manager::set(Arc::clone(&mine));
    assert!(Arc::ptr_eq(&former, &default));
    assert!(Arc::ptr_eq(&manager::get(), &mine));
    assert!(Arc::ptr_eq(&manager::SESSION_MANAGER.load_full(), &mine));
    assert!(!manager::is_insecure_default());
}
