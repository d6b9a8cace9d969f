//! The demo on a phone, with the keyboard and by a screen reader.

use std::{env, fs, path::Path, process::Command, sync::OnceLock};

use serde_json::{Value, json};

use crate::{
    DEMO,
    driver::{Browser, Example},
    log_in,
};

/// The pages for logged-in users, each with all that it shows. `/login` is seen before.
const PAGES: [&str; 6] = [
    "/admin",
    "/session",
    "/devices",
    "/account",
    "/races",
    "/inspector",
];

const TAB: &str = "\u{E004}";

/// Calls `check` with every page of the demo in a browser, and with the messages of each kind.
fn on_every_page(browser: &Browser, mut check: impl FnMut(&Browser, &str)) {
    browser.open("/login");
    check(browser, "/login");
    browser.fill("name", "ada");
    browser.fill("password", "wrong");
    browser.press("Log in");
    check(browser, "/login with an error");
    log_in(browser);
    check(browser, "/admin with a message");
    for page in PAGES {
        browser.open(page);
        check(browser, page);
    }
    browser.open("/session");
    browser.fill("key", "colour");
    browser.fill("value", &"burnt sienna ".repeat(9));
    browser.press("Store");
    check(browser, "/session with a value");
    browser.press("Log out");
    browser.open("/devices");
    check(browser, "/login with a warning");
}

/// The demos whose pages differ: with the notice of the development key and a backend that lists no
/// sessions, and with a list of devices.
fn demos() -> [Example; 2] {
    ["signed:", "memory:"].map(|url| Example::demo(DEMO, url))
}

/// Returns axe-core, which `tests/services/axe.sh` downloads once.
fn axe() -> &'static str {
    static AXE: OnceLock<String> = OnceLock::new();
    AXE.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let script = root.join("tests/services/axe.sh");
        let mut install = Command::new("bash");
        install.arg(script).arg(env!("CARGO_TARGET_TMPDIR"));
        let installed = install.output().unwrap();
        let said = String::from_utf8_lossy(&installed.stderr);
        assert!(installed.status.success(), "{install:?}: {said}");
        let path = String::from_utf8(installed.stdout).unwrap();
        fs::read_to_string(path.trim()).unwrap()
    })
}

/// What axe-core finds wrong on the page: the rule, why, and where.
fn violations(browser: &Browser) -> Vec<Value> {
    let script = format!(
        "{}
         const done = arguments[arguments.length - 1];
         axe.run(document, {{ resultTypes: ['violations'] }}).then(
             found => done(found.violations.flatMap(rule => rule.nodes.map(
                 node => [rule.id, node.failureSummary, node.html]))),
             error => done([String(error)]));",
        axe()
    );
    browser.script_later(&script).as_array().unwrap().clone()
}

#[test]
#[ignore = "needs chromium and chromedriver: tests/run.sh"]
fn axe_finds_no_violation_on_any_page_in_either_colour_scheme() {
    for demo in demos() {
        let browser = Browser::on(&demo, &[]);
        for (width, scheme) in [
            (1280, "light"),
            (1280, "dark"),
            (360, "light"),
            (360, "dark"),
        ] {
            browser.look(width, 900, scheme);
            on_every_page(&browser, |browser, page| {
                let found = violations(browser);
                assert!(found.is_empty(), "{page}, {scheme}, {width}: {found:#?}");
            });
        }
    }
}

#[test]
#[ignore = "needs chromium and chromedriver: tests/run.sh"]
fn axe_finds_a_label_and_a_contrast_that_are_missing() {
    let browser = Browser::start(DEMO);
    browser.open("/login");
    browser.script(
        "document.querySelector('label[for=name]').remove();
         document.querySelector('h1').style.color = '#e4dfd8'",
    );
    let found = violations(&browser);
    let rules: Vec<_> = found.iter().map(|rule| &rule[0]).collect();
    assert_eq!(rules, ["color-contrast", "label"], "{found:#?}");
}

#[test]
#[ignore = "needs chromium and chromedriver: tests/run.sh"]
fn no_page_scrolls_sideways_on_a_phone() {
    for demo in demos() {
        let browser = Browser::on(&demo, &[]);
        browser.look(360, 740, "light");
        on_every_page(&browser, |browser, page| {
            let wide = browser.script(
                "const wide = [...document.querySelectorAll('body *')].filter(it =>
                     it.checkVisibility() && it.getBoundingClientRect().right > 360.5);
                 return [document.documentElement.scrollWidth, wide.map(it => it.outerHTML)]",
            );
            assert_eq!(wide, json!([360, []]), "{page}");
        });
    }
}

#[test]
#[ignore = "needs chromium and chromedriver: tests/run.sh"]
fn the_tab_key_visits_all_controls_in_their_order_and_each_shows_its_focus() {
    for demo in demos() {
        let browser = Browser::on(&demo, &[]);
        on_every_page(&browser, |browser, page| {
            let controls = browser.script(
                "document.body.tabIndex = -1;
                 document.body.focus();
                 document.body.removeAttribute('tabindex');
                 window.controls = [...document.querySelectorAll('a, button, input')]
                     .filter(it => it.type !== 'hidden' && it.checkVisibility());
                 return controls.length",
            );
            for at in 0..controls.as_u64().unwrap() {
                browser.key(TAB);
                let focused = browser.script(
                    "const it = document.activeElement, style = getComputedStyle(it),
                         box = it.getBoundingClientRect();
                     const isSeen = style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2
                         && box.top >= 0 && box.bottom <= innerHeight && box.width >= 10;
                     return [controls.indexOf(it), isSeen, it.outerHTML]",
                );
                let expected = json!([at, true, focused[2]]);
                assert_eq!(focused, expected, "{page}");
            }
        });
    }
}

#[test]
#[ignore = "needs chromium and chromedriver: tests/run.sh"]
fn a_login_and_a_log_out_need_no_mouse() {
    let browser = Browser::start(DEMO);
    browser.open("/login");
    // The name has the focus already.
    for key in ["a", "d", "a", TAB] {
        browser.key(key);
    }
    for key in "lovelace".chars() {
        browser.key(&key.to_string());
    }
    browser.key("\u{E007}");
    browser.wait_until("the login is done", || browser.path() == "/admin");
    browser.script("document.querySelector('.account button').focus()");
    browser.key(" ");
    browser.wait_until("the log-out is done", || browser.path() == "/login");
}
