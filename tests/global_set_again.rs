//! `set`, again and again, by one party and by two.

mod common;

use common::{Log, key};
use session_manager::{Manager, SignedCookie, manager};

fn manager() -> Manager {
    Manager::new(SignedCookie::new(key()))
}

#[test]
fn a_second_set_logs_where_both_managers_were_set() {
    let log = Log::of_process();
    let rotate = || (line!(), manager::set(manager())).0;
    rotate();
    rotate();
    let library = rotate();
    assert_eq!(
        log.lines(""),
        [""; 0],
        "one party may set it as often as it likes"
    );

    let application = (line!(), manager::set(manager())).0;
    let lines = log.lines("");
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert!(lines[0].contains("WARN"), "{lines:#?}");
    for place in [library, application] {
        assert!(
            lines[0].contains(&format!("{}:{place}:", file!())),
            "{place}: {lines:#?}"
        );
    }
}
