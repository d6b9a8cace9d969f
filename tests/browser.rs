//! The demo and the WebSocket example in a real browser: headless Chromium, driven through chromedriver.
//!
//! Both must be in `PATH` (Debian: `apt-get install chromium chromium-driver`), so these tests run
//! only when asked for: `cargo test --all-features --test browser -- --ignored`. Each has an example
//! of its own, and a browser or two with a driver each. Tests of the demo run on that of each framework.
//!
//! `access` has the checks of accessibility. `pictures` makes the pictures of the demo in `docs`.

#[path = "browser/access.rs"]
mod access;
#[path = "browser/driver.rs"]
mod driver;
#[path = "browser/pictures.rs"]
mod pictures;
#[path = "common/process.rs"]
mod process;

use driver::{Browser, Example};
use serde_json::json;

/// The demo in actix-web.
const DEMO: &str = "demo";

/// Makes each function a test of the demo in every framework.
macro_rules! on_every_demo {
    ($($test:ident),+ $(,)?) => {
        mod on_actix {
            $(
                #[test]
                #[ignore = "needs chromium and chromedriver: tests/run.sh"]
                fn $test() { super::$test(super::DEMO) }
            )+
        }
        #[cfg(feature = "axum")]
        mod on_axum {
            $(
                #[test]
                #[ignore = "needs chromium and chromedriver: tests/run.sh"]
                fn $test() { super::$test("demo_axum") }
            )+
        }
    };
}

on_every_demo! {
    logging_in_works_and_its_message_is_seen_once,
    creating_and_deleting_a_record_leave_a_message_each,
    a_form_whose_token_is_not_of_this_session_is_refused_and_changes_nothing,
    after_logging_out_neither_the_address_nor_the_back_button_shows_the_protected_page,
    storing_too_much_says_so_and_keeps_what_was_stored,
    a_remembered_login_survives_a_restart_of_the_browser_and_another_does_not,
    a_login_that_is_not_fresh_is_asked_for_the_password_again,
    a_session_ended_from_another_browser_is_logged_out_at_its_next_click,
    ending_all_others_keeps_this_session_and_ending_this_one_logs_out,
    the_inspector_shows_this_session_and_ends_another,
    requests_at_once_lose_nothing_on_the_server_and_the_page_says_what_a_cookie_loses,
    a_log_out_wins_against_a_slow_request_on_the_server_and_the_page_says_that_a_cookie_does_not,
    switching_from_cookie_to_memory_fails_no_request_and_logs_no_user_out,
    the_races_can_be_tried_without_a_script,
}

fn log_in(browser: &Browser) {
    browser.open("/login");
    browser.fill("name", "ada");
    browser.fill("password", "lovelace");
    browser.press("Log in");
    assert_eq!(browser.path(), "/admin");
}

/// The flash messages on the page: kind and text.
fn messages(browser: &Browser) -> Vec<(String, String)> {
    let all = browser.script(
        "return [...document.querySelectorAll('.flash')]
             .map(flash => [flash.classList[1], flash.textContent])",
    );
    serde_json::from_value(all).unwrap()
}

fn message(kind: &str, text: &str) -> Vec<(String, String)> {
    vec![(kind.to_owned(), text.to_owned())]
}

/// The rows of the page's table, without what their buttons say.
fn rows(browser: &Browser) -> Vec<(String, String)> {
    let all = browser.script(
        "return [...document.querySelectorAll('tbody tr')]
             .map(row => [row.cells[0].textContent, row.cells[1].textContent])",
    );
    serde_json::from_value(all).unwrap()
}

fn row(first: &str, second: &str) -> (String, String) {
    (first.to_owned(), second.to_owned())
}

/// The status of the page's response, after redirects.
fn status(browser: &Browser) -> serde_json::Value {
    browser.script("return performance.getEntriesByType('navigation')[0].responseStatus")
}

/// Who the page says is logged in.
fn user(browser: &Browser) -> serde_json::Value {
    browser.script("return document.querySelector('header .user')?.textContent ?? null")
}

fn logging_in_works_and_its_message_is_seen_once(demo: &str) {
    let browser = Browser::start(demo);
    browser.open("/admin");
    assert_eq!(browser.path(), "/login");
    let asked = message("warning", "Log in to see that page");
    assert_eq!(messages(&browser), asked);

    log_in(&browser);
    assert_eq!(user(&browser), "ada");
    assert_eq!(messages(&browser), message("success", "Welcome, ada"));

    browser.reload();
    assert_eq!(browser.path(), "/admin");
    assert_eq!(user(&browser), "ada");
    assert_eq!(messages(&browser), []);
}

#[test]
#[ignore = "needs chromium and chromedriver: tests/run.sh"]
fn a_message_shows_what_was_typed_as_text_and_not_as_html() {
    let browser = Browser::start(DEMO);
    browser.open("/login");
    browser.fill("name", "<b>name</b>");
    browser.fill("password", "wrong");
    browser.press("Log in");

    assert_eq!(browser.path(), "/login");
    let refused = "“<b>name</b>” and this password do not match";
    assert_eq!(messages(&browser), message("error", refused));
    assert_eq!(
        browser.script("return document.querySelectorAll('b').length"),
        0
    );
    assert_eq!(user(&browser), json!(null));
}

fn creating_and_deleting_a_record_leave_a_message_each(demo: &str) {
    let browser = Browser::start(demo);
    log_in(&browser);
    let before = rows(&browser);

    browser.fill("title", "Note <i>G</i>");
    browser.press("Create");
    let created = message("success", "Created “Note <i>G</i>”");
    assert_eq!(messages(&browser), created);
    let mut after = vec![row("Note <i>G</i>", "ada")];
    after.extend_from_slice(&before);
    assert_eq!(rows(&browser), after);

    browser.press("Delete Note <i>G</i>");
    let deleted = message("success", "Deleted “Note <i>G</i>”");
    assert_eq!(messages(&browser), deleted);
    assert_eq!(rows(&browser), before);
}

fn a_form_whose_token_is_not_of_this_session_is_refused_and_changes_nothing(demo: &str) {
    let browser = Browser::start(demo);
    for token in ["", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        log_in(&browser);
        let before = rows(&browser);
        browser.fill("title", "Forged");
        browser.script(&format!(
            "document.querySelectorAll('[name=csrf_token]').forEach(field => field.value = '{token}')"
        ));
        browser.press("Create");
        assert_eq!(status(&browser), 403);
        browser.open("/admin");
        assert_eq!(rows(&browser), before);
    }
}

fn after_logging_out_neither_the_address_nor_the_back_button_shows_the_protected_page(demo: &str) {
    let browser = Browser::start(demo);
    log_in(&browser);
    assert!(!rows(&browser).is_empty());

    browser.press("Log out");
    assert_eq!(browser.path(), "/login");
    assert_eq!(messages(&browser), message("info", "You are logged out"));
    assert_eq!(user(&browser), json!(null));

    // Had the browser kept the protected page, it would show that, and no message.
    let asked = message("warning", "Log in to see that page");
    browser.back();
    assert_eq!(messages(&browser), asked);
    assert_eq!(browser.path(), "/login");
    assert_eq!(rows(&browser), []);

    browser.open("/admin");
    assert_eq!(messages(&browser), asked);
    assert_eq!(browser.path(), "/login");
}

#[test]
#[ignore = "needs chromium and chromedriver: tests/run.sh"]
fn a_forged_cookie_is_nobody_and_one_can_log_in_again() {
    let browser = Browser::start(DEMO);
    log_in(&browser);
    let genuine = browser.cookie("_session");
    let value = genuine["value"].as_str().unwrap();
    let middle = value.len() / 2;
    let other = if value[middle..].starts_with('A') {
        "B"
    } else {
        "A"
    };
    let flipped = format!("{}{other}{}", &value[..middle], &value[middle + 1..]);

    for forged in [flipped.as_str(), r#"{"auth.user":"ada"}"#] {
        let mut cookie = genuine.clone();
        cookie["value"] = json!(forged);
        browser.set_cookie(&cookie);
        assert_eq!(browser.cookie("_session")["value"], forged);

        browser.open("/session");
        assert_eq!(status(&browser), 200);
        assert_eq!(user(&browser), json!(null));
        assert_eq!(rows(&browser), []);

        browser.set_cookie(&cookie);
        browser.open("/admin");
        assert_eq!(status(&browser), 200);
        assert_eq!(browser.path(), "/login");

        log_in(&browser);
        assert_eq!(user(&browser), "ada");
    }
}

fn storing_too_much_says_so_and_keeps_what_was_stored(demo: &str) {
    let browser = Browser::start(demo);
    log_in(&browser);
    browser.open("/session");
    browser.fill("key", "colour");
    browser.fill("value", "burnt sienna");
    browser.press("Store");
    assert_eq!(messages(&browser), message("success", "Stored “colour”"));
    let stored = [row("auth.user", "ada"), row("note.colour", "burnt sienna")];
    assert_eq!(rows(&browser), stored);

    browser.press("Store 5 KB");
    let [(kind, text)] = &messages(&browser)[..] else {
        panic!("{:?} is not one message", messages(&browser));
    };
    assert_eq!(kind, "error");
    assert!(text.contains("may take no more than 4096"), "{text}");
    assert_eq!(status(&browser), 200);
    assert_eq!(rows(&browser), stored);

    browser.reload();
    assert_eq!(rows(&browser), stored);
}

#[test]
#[ignore = "needs chromium and chromedriver: tests/run.sh"]
fn the_session_cookie_is_out_of_reach_for_scripts_and_other_sites() {
    let browser = Browser::start(DEMO);
    log_in(&browser);
    // WebDriver says `Lax` of a cookie that says nothing, too; the DevTools protocol does not.
    let cookies = browser.devtools("Network.getCookies", json!({}));
    let [cookie] = cookies["cookies"].as_array().unwrap().as_slice() else {
        panic!("{cookies} is not one cookie");
    };
    assert_eq!(cookie["name"], "_session");
    assert_eq!(cookie["httpOnly"], true);
    assert_eq!(cookie["sameSite"], "Lax");
    assert_eq!(cookie["path"], "/");
    assert_eq!(browser.script("return document.cookie"), "");
}

#[test]
#[ignore = "needs chromium and chromedriver: tests/run.sh"]
fn a_session_that_is_in_its_cookie_alone_is_in_no_list_and_the_page_says_why() {
    let browser = Browser::start(DEMO);
    log_in(&browser);
    browser.open("/devices");
    assert_eq!(status(&browser), 200);
    assert_eq!(rows(&browser), []);
    let said = browser.script("return document.querySelector('main').innerText");
    let said = said.as_str().unwrap();
    assert!(said.contains("lives in a signed cookie"), "{said}");
    assert!(said.contains("SESSION_URL=memory:"), "{said}");
}

fn a_remembered_login_survives_a_restart_of_the_browser_and_another_does_not(demo: &str) {
    let demo = Example::demo(demo, "memory:");
    for remember in [true, false] {
        let mut browser = Browser::on(&demo, &[]);
        browser.open("/login");
        browser.fill("name", "ada");
        browser.fill("password", "lovelace");
        if remember {
            browser.script("document.querySelector('[name=remember]').click()");
        }
        browser.press("Log in");
        assert_eq!(user(&browser), "ada");
        browser.restart();
        browser.open("/account");
        let expected = if remember { "/account" } else { "/login" };
        assert_eq!(browser.path(), expected, "remember: {remember}");
    }
}

fn a_login_that_is_not_fresh_is_asked_for_the_password_again(demo: &str) {
    let browser = Browser::on(&Example::demo_fresh_for(demo, "8"), &[]);
    log_in(&browser);
    let text = |id: &str| {
        browser.script(&format!(
            "return document.getElementById('{id}')?.innerText"
        ))
    };
    browser.open("/account");
    browser.wait_until("the login is not fresh any more", || {
        browser.reload();
        text("fresh") == "not fresh"
    });
    assert_eq!(text("change"), "Is it you?");

    browser.fill("password", "wrong");
    browser.press("Confirm");
    let refused = message("error", "That is not your password");
    assert_eq!(messages(&browser), refused);
    assert_eq!(text("change"), "Is it you?");

    browser.fill("password", "lovelace");
    browser.press("Confirm");
    assert_eq!(text("change"), "Change the password");
    browser.fill("new", "analytical");
    browser.press("Change");
    let changed = message("success", "The password was changed");
    assert_eq!(messages(&browser), changed);
    assert_eq!(user(&browser), "ada");
}

fn the_inspector_shows_this_session_and_ends_another(demo: &str) {
    let demo = Example::demo(demo, "memory:");
    let (here, there) = (
        Browser::on(&demo, &[FIREFOX]),
        Browser::on(&demo, &[SAFARI]),
    );
    log_in(&here);
    log_in(&there);

    here.open("/admin");
    let link = here.script("return document.querySelector('a[href=\"/inspector\"]').textContent");
    assert_eq!(link, "Inspector");
    here.open("/inspector");
    assert_eq!(status(&here), 200);
    let text = |selector: &str| {
        let text = here.script(&format!(
            "return document.querySelector('{selector}').innerText"
        ));
        text.as_str().unwrap().to_owned()
    };
    let facts = text("#facts");
    for part in [
        "memory",
        "_session",
        "SameSite=Lax",
        "ada",
        "of 1048576 bytes",
    ] {
        assert!(facts.contains(part), "{part}: {facts}");
    }
    let entries = text("#entries");
    assert!(entries.contains("auth.user"), "{entries}");
    assert!(!entries.contains("ada"), "no value: {entries}");
    assert!(text("#history").contains("user set"));

    here.press("End Safari on iPhone");
    assert_eq!(here.path(), "/inspector");
    assert!(!text("#others").contains("Safari"));
    there.reload();
    assert_eq!(there.path(), "/login");
    here.open("/admin");
    assert_eq!(user(&here), "ada");
}

/// The user's sessions as the page lists them: the device, and whether it is this one.
fn devices(browser: &Browser) -> Vec<(String, bool)> {
    let all = browser.script(
        "return [...document.querySelectorAll('tbody tr')].map(row =>
             [row.querySelector('.device').textContent, row.querySelector('.badge') !== null])",
    );
    serde_json::from_value(all).unwrap()
}

const FIREFOX: &str =
    "--user-agent=Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0";
const SAFARI: &str = "--user-agent=Mozilla/5.0 (iPhone; CPU iPhone OS 18_7 like Mac OS X) AppleWebKit/605.1.15 \
                      (KHTML, like Gecko) Version/26.1 Mobile/15E148 Safari/604.1";

fn a_session_ended_from_another_browser_is_logged_out_at_its_next_click(demo: &str) {
    let demo = Example::demo(demo, "memory:");
    let (here, there) = (
        Browser::on(&demo, &[FIREFOX]),
        Browser::on(&demo, &[SAFARI]),
    );
    log_in(&here);
    log_in(&there);
    let records = rows(&there);

    here.open("/devices");
    let firefox = ("Firefox on Linux".to_owned(), true);
    let safari = ("Safari on iPhone".to_owned(), false);
    assert_eq!(devices(&here), [firefox.clone(), safari]);
    assert_eq!(rows(&here)[1].1, "just now");
    here.press("End Safari on iPhone");
    let ended = message("success", "The session was ended");
    assert_eq!(messages(&here), ended);
    assert_eq!(devices(&here), [firefox]);

    there.fill("title", "Stolen");
    there.press("Create");
    assert_eq!(there.path(), "/login");
    let asked = message("warning", "Log in to see that page");
    assert_eq!(messages(&there), asked);
    assert_eq!(user(&there), json!(null));

    here.reload();
    assert_eq!(user(&here), "ada");
    here.open("/admin");
    assert_eq!(rows(&here), records);
}

fn ending_all_others_keeps_this_session_and_ending_this_one_logs_out(demo: &str) {
    let demo = Example::demo(demo, "memory:");
    let (here, there) = (
        Browser::on(&demo, &[FIREFOX]),
        Browser::on(&demo, &[SAFARI]),
    );
    log_in(&here);
    log_in(&there);

    here.open("/devices");
    here.press("End all others");
    let ended = message("success", "The other session was ended");
    assert_eq!(messages(&here), ended);
    assert_eq!(devices(&here), [("Firefox on Linux".to_owned(), true)]);
    there.reload();
    assert_eq!(there.path(), "/login");

    here.press("End this session");
    assert_eq!(here.path(), "/login");
    assert_eq!(messages(&here), message("info", "You are logged out"));
    assert_eq!(user(&here), json!(null));
}

/// Opens the page of races, presses a button and returns what the page says in the end.
fn race(browser: &Browser, button: &str, output: &str) -> String {
    browser.open("/races");
    run(browser, button, output)
}

fn run(browser: &Browser, button: &str, output: &str) -> String {
    browser.click(button);
    browser.wait_until("the race is over", || {
        let over = format!(
            "return !document.getElementById('run-{output}').disabled
                 && document.getElementById('{output}-result').textContent"
        );
        browser.script(&over).is_string()
    });
    let said = format!("return document.getElementById('{output}-result').textContent");
    browser.script(&said).as_str().unwrap().to_owned()
}

fn requests_at_once_lose_nothing_on_the_server_and_the_page_says_what_a_cookie_loses(demo: &str) {
    let browser = Browser::on(&Example::demo(demo, "memory:"), &[]);
    log_in(&browser);
    let said = race(&browser, "Send 20 requests at once", "together");
    assert_eq!(said, "20 of 20 entries kept, and 20 of 20 counted.");

    let browser = Browser::start(demo);
    log_in(&browser);
    let said = race(&browser, "Send 20 requests at once", "together");
    let (kept, said) = said.split_once(" of 20 entries kept").unwrap();
    assert!((1..20).contains(&kept.parse().unwrap()), "{kept}");
    assert!(
        said.contains("The cookie holds the whole session"),
        "{said}"
    );
}

fn a_log_out_wins_against_a_slow_request_on_the_server_and_the_page_says_that_a_cookie_does_not(
    demo: &str,
) {
    let browser = Browser::on(&Example::demo(demo, "memory:"), &[]);
    log_in(&browser);
    let said = race(&browser, "Start it and log out", "logout");
    assert!(
        said.contains("restored nothing: you are logged out"),
        "{said}"
    );
    browser.open("/admin");
    assert_eq!(browser.path(), "/login");

    let browser = Browser::start(demo);
    log_in(&browser);
    let said = race(&browser, "Start it and log out", "logout");
    assert!(said.contains("restored the session"), "{said}");
    assert!(said.contains("which the server cannot end"), "{said}");
    browser.open("/admin");
    assert_eq!(browser.path(), "/admin");
}

fn switching_from_cookie_to_memory_fails_no_request_and_logs_no_user_out(demo: &str) {
    let browser = Browser::on(&Example::demo(demo, "signed:"), &[FIREFOX]);
    log_in(&browser);
    let said = race(&browser, "Switch while requests are sent", "change");
    let (sent, said) = said.split_once(" requests sent, ").unwrap();
    assert!(sent.parse::<u32>().unwrap() > 20, "{sent}");
    let expected = "0 failed. Sessions are now kept in memory, and you are still logged in as ada.";
    assert_eq!(said, expected);

    browser.open("/devices");
    assert_eq!(user(&browser), "ada");
    assert_eq!(devices(&browser), [("Firefox on Linux".to_owned(), true)]);
    browser.press("End this session");
    assert_eq!(messages(&browser), message("info", "You are logged out"));
}

fn the_races_can_be_tried_without_a_script(demo: &str) {
    let browser = Browser::on(&Example::demo(demo, "memory:"), &[]);
    log_in(&browser);
    let scripts = |off| {
        let params = json!({ "value": off });
        browser.devtools("Emulation.setScriptExecutionDisabled", params);
    };
    scripts(true);
    browser.open("/races");
    let shown = "return [...document.querySelectorAll('main button')]
                     .filter(button => button.checkVisibility()).map(button => button.textContent)";
    let plain = json!(["Add one, slowly", "Start it in a new tab"]);
    assert_eq!(browser.script(shown), plain);
    browser.press("Add one, slowly");
    assert_eq!(browser.path(), "/races");
    let kept = "return document.getElementById('keys').textContent";
    assert_eq!(browser.script(kept), "1");

    let first = browser.tab();
    browser.click("Start it in a new tab");
    browser.press("Log out");
    let second = browser.other_tab(&first);
    browser.switch_to(Some(second));
    browser.wait_until("the slow request has ended", || browser.path() == "/login");
    assert_eq!(user(&browser), json!(null));

    let browser = Browser::start(demo);
    log_in(&browser);
    browser.open("/races");
    browser.press("Switch to memory");
    let text = "Sessions are kept in memory from now on, and you are still logged in";
    assert_eq!(messages(&browser), message("success", text));
    assert_eq!(user(&browser), "ada");
}

#[test]
#[ignore = "needs chromium and chromedriver: tests/run.sh"]
fn a_socket_closes_at_once_after_a_logout_in_another_tab() {
    let browser = Browser::on(&Example::websocket(), &[]);
    let says = |text: &str| {
        browser.wait_until(text, || {
            browser.script("return document.querySelector('output').textContent") == text
        });
    };
    browser.open("/");
    let first = browser.tab();
    browser.click("Count");
    says("1");

    browser.switch_to(None);
    browser.open("/");
    let second = browser.tab();
    browser.click("Count");
    says("2");
    browser.switch_to(Some(first.clone()));
    browser.click("Count");
    says("3");

    browser.switch_to(Some(second));
    browser.press("Log out");
    browser.switch_to(Some(first));
    says("You were logged out elsewhere. (closed)");

    browser.reload();
    browser.click("Count");
    says("1");
}
