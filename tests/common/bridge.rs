//! Crates that keep their own session middleware over a store of this crate. `/do/insert:a=1+get:a` does
//! things to their session; `/together/…` does so when as many requests as the barrier counts are there.

use super::{Server, at_once};

/// Fifty overlapping requests that each insert a key keep fifty of fifty, and later writes and removals
/// merge by key too.
pub fn their_writes_merge_by_key(server: &Server) {
    let cookie = server.visitor().get("/do/insert:first=0").cookie();
    let run = |what: &str| server.with_cookie(&format!("/do/{what}"), &cookie).body;
    at_once(50, |n| {
        server.with_cookie(&format!("/together/insert:key{n}=1"), &cookie)
    });
    let all: Vec<_> = (0..50).map(|n| format!("get:key{n}")).collect();
    assert_eq!(run(&all.join("+")), ["1"; 50].join(" "));
    run("remove:first+insert:key0=2");
    assert_eq!(run("get:first+get:key0+get:key1"), "none 2 1");
    run("clear+insert:only=1");
    assert_eq!(run("get:key1+get:only"), "none 1");
}

/// Of fifty overlapping requests the first logs out with `log_out`; the others answer as ever, and what
/// they write is not there afterwards.
pub fn their_log_out_wins(server: &Server, cookie: &str, log_out: &str) {
    let answers = at_once(50, |n| {
        let what = if n == 0 { log_out } else { "insert:late=1" };
        let answer = server.with_cookie(&format!("/together/{what}"), cookie);
        answer.status
    });
    assert_eq!(answers, [200; 50], "each late response is delivered");
    let read = server.with_cookie("/do/get:a+get:late", cookie);
    assert_eq!(read.body, "none none");
}
