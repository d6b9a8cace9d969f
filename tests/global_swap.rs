//! Replacing the manager while requests are served.

mod common;

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use common::{Gates, Server, Visitor, Web, key_of};
use session_manager::{Key, Manager, SignedCookie, manager};

fn keys() -> [Key; 2] {
    [key_of([1; 32]), key_of([2; 32])]
}

/// All in one test, because the manager is the process's.
#[test]
fn replacing_the_manager_harms_no_request_in_flight() {
    for web in Web::ALL {
        a_request_in_flight_finishes_on_its_manager_and_the_next_begins_on_the_new_one(web);
        swaps_under_load(web);
    }
}

fn a_request_in_flight_finishes_on_its_manager_and_the_next_begins_on_the_new_one(web: Web) {
    let [old, new] = keys();
    manager::set(Manager::new(SignedCookie::new(old.clone())));
    let gates = Gates::new(1);
    let server = Server::start(web, gates.app().wrap(manager::middleware()));
    let cookie = server.raw("/run/add.key.value", &[]).cookie();
    let slow = std::thread::scope(|scope| {
        let slow = scope.spawn(|| server.with_cookie("/slow/add.written.after,get.key", &cookie));
        gates.pass();
        manager::set(Manager::new(SignedCookie::new(new)));
        gates.pass();
        slow.join().unwrap()
    });
    assert_eq!((slow.status, &*slow.body), (200, "null,value"));
    let old_key = Manager::new(SignedCookie::new(old));
    let check = Server::scripts(web, old_key.middleware());
    assert_eq!(
        check.with_cookie("/run/get.written", slow.cookie()).body,
        "after"
    );
    assert_eq!(
        server.with_cookie("/run/get.key", &cookie).body,
        "none",
        "the new one has no such key"
    );
}

fn swaps_under_load(web: Web) {
    let [one, two] = keys();
    let either = [
        Manager::new(SignedCookie::new(one.clone()).accept(two.clone())),
        Manager::new(SignedCookie::new(two).accept(one)),
    ];
    manager::set(either[0].clone());
    let server = Server::scripts(web, manager::middleware());
    let stop = AtomicBool::new(false);
    let (served, swapped) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let visitor: Visitor = server.visitor();
                for number in 1.. {
                    // Each request reads what the one before wrote, whichever key signed it.
                    let answer = visitor.get("/run/count.visits");
                    assert_eq!((answer.status, answer.body), (200, number.to_string()));
                    served.fetch_add(1, Ordering::Relaxed);
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            });
        }
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let number = swapped.fetch_add(1, Ordering::Relaxed);
                manager::set(either[number % 2].clone());
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        // Ended by how much was done; a minute is for a visitor that failed and serves no more.
        let begun = Instant::now();
        while served.load(Ordering::Relaxed) < 2_000 || swapped.load(Ordering::Relaxed) < 200 {
            std::thread::sleep(Duration::from_millis(5));
            if begun.elapsed() > Duration::from_secs(60) {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (served, swapped) = (served.into_inner(), swapped.into_inner());
    assert!(
        served >= 2_000 && swapped >= 200,
        "{served} requests, {swapped} swaps"
    );
}
