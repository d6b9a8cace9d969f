//! `update` may run its function when the request is over, so it must own what it uses.

use session_manager::Session;

fn add(session: &Session, step: &i32) {
    let _ = session.update("count", |count: Option<i32>| count.unwrap_or(0) + step);
}

fn main() {}
