//! `scope` and `with`: one manager for each test, side by side.

mod common;

use std::{
    pin::pin,
    sync::{Arc, Barrier},
    task::{Context, Waker},
};

use common::{App, Web, block_on, current, named, on_every_framework};
use session_manager::manager;

#[test]
fn scopes_in_parallel_each_see_their_own_manager() {
    const THREADS: usize = 8;
    let all_inside = Arc::new(Barrier::new(THREADS));
    let threads = (0..THREADS).map(|number| {
        let all_inside = Arc::clone(&all_inside);
        std::thread::spawn(move || {
            let name = format!("thread-{number}");
            manager::with(named(&name), || {
                all_inside.wait();
                for _ in 0..if cfg!(miri) { 10 } else { 1_000 } {
                    assert_eq!(current(), name);
                }
                all_inside.wait();
            });
            assert_eq!(current(), "_session");
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.join().unwrap();
    }
}

#[test]
fn scopes_interleaved_on_one_thread_see_their_own_manager() {
    block_on(async {
        let tasks = (0..8).map(|number| {
            let name = format!("task-{number}");
            actix_web::rt::spawn(manager::scope(named(&name), async move {
                for _ in 0..100 {
                    assert_eq!(current(), name);
                    actix_web::rt::task::yield_now().await;
                }
            }))
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        assert_eq!(current(), "_session");
    });
}

#[test]
fn the_outer_scope_returns_after_a_nested_one() {
    manager::with(named("outer"), || {
        manager::with(named("inner"), || assert_eq!(current(), "inner"));
        assert_eq!(current(), "outer");
    });
    assert_eq!(current(), "_session");
}

#[test]
fn a_panic_in_a_scope_restores_the_former_manager() {
    manager::with(named("outer"), || {
        let result =
            std::panic::catch_unwind(|| manager::with(named("inner"), || panic!("asked for")));
        assert!(result.is_err());
        assert_eq!(current(), "outer");
    });
    let mut scope = pin!(manager::scope(named("future"), async {
        panic!("asked for")
    }));
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        scope.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }));
    assert!(result.is_err());
    assert_eq!(current(), "_session");
}

#[test]
fn a_scope_holds_only_in_its_polls_and_while_it_is_dropped() {
    struct SeenOnDrop(Arc<std::sync::Mutex<String>>);
    impl Drop for SeenOnDrop {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = current();
        }
    }
    let seen = Arc::new(std::sync::Mutex::new(String::new()));
    let guard = SeenOnDrop(Arc::clone(&seen));
    let mut scope = Box::pin(manager::scope(named("mine"), async move {
        let _guard = guard;
        assert_eq!(current(), "mine");
        std::future::pending::<()>().await;
    }));
    assert!(
        scope
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    assert_eq!(current(), "_session");
    drop(scope);
    assert_eq!(*seen.lock().unwrap(), "mine");
    assert_eq!(current(), "_session");
}

fn an_application_in_a_scope_uses_the_scopes_manager(web: Web) {
    let app = App::new().wrap(manager::middleware());
    let called = app.call(web, "/run/add.key.value");
    let answer = block_on(manager::scope(named("scoped"), called));
    assert!(answer.cookie().starts_with("scoped="), "{answer:?}");
}

#[test]
fn set_within_a_scope_does_not_change_the_scope() {
    let seen = manager::with(named("mine"), || {
        // The default's own name, because other tests of this binary look at it.
        manager::set(named("_session"));
        current()
    });
    assert_eq!(seen, "mine");
}

on_every_framework!(an_application_in_a_scope_uses_the_scopes_manager);
