//! The pictures of the demo in `docs`. `tests/browser/pictures.txt` has a fingerprint of what each shows, so
//! that none stays when its page changes. This makes them:
//!
//! ```sh
//! PICTURES=1 cargo test --all-features --test browser -- --ignored pictures
//! ```
//!
//! The fonts are those of the system: Debian's `fonts-inter` and `fonts-jetbrains-mono` have the first ones
//! that the style asks for.

use std::{env, fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use sha2::{Digest, Sha256};

use crate::{
    DEMO, FIREFOX, SAFARI,
    driver::{Browser, Example},
    log_in, run,
};

/// The maximum size of a picture, in bytes.
const MAX: usize = 160 * 1024;

/// Returns a hash of the text of the page and of all that determines how it looks.
fn fingerprint(browser: &Browser, look: &str) -> String {
    let text = browser.script("return document.body.innerText");
    // Checked out with the line ends of any system.
    let style = include_str!("../../examples/demo/shared/style.css").replace('\r', "");
    let all = format!("{look}\n{text}\n{style}");
    let hash = Sha256::digest(all.as_bytes());
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
#[ignore = "needs chromium and chromedriver: tests/run.sh"]
fn the_pictures_in_docs_show_the_demo_as_it_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let make = env::var_os("PICTURES").is_some();
    let mut fingerprints = String::new();
    let mut picture = |browser: &Browser, name: &str, look: &str| {
        // A blinking cursor and the pointer are not part of the page.
        browser.script("document.activeElement?.blur()");
        fingerprints += &format!("{name} {}\n", fingerprint(browser, look));
        let path = root.join("docs").join(name);
        if make {
            fs::write(&path, BASE64.decode(browser.picture()).unwrap()).unwrap();
        }
        let size = fs::read(&path).unwrap().len();
        assert!(size <= MAX, "{name} has {size} bytes");
    };

    let demo = Example::demo(DEMO, "memory:");
    let browser = Browser::on(&demo, &[FIREFOX]);
    browser.look(1280, 860, "light");
    log_in(&browser);
    browser.fill("title", "Note G");
    browser.press("Create");
    picture(&browser, "demo.png", "1280x860 light");

    let phone = Browser::on(&demo, &[SAFARI]);
    phone.look(360, 740, "light");
    log_in(&phone);
    phone.open("/devices");
    picture(&phone, "demo-phone.png", "360x740 light");

    let browser = Browser::start(DEMO);
    browser.look(1100, 1060, "dark");
    log_in(&browser);
    browser.open("/races");
    browser.press("Switch to memory");
    run(&browser, "Send 20 requests at once", "together");
    picture(&browser, "demo-races.png", "1100x1060 dark");

    let path = root.join("tests/browser/pictures.txt");
    if make {
        fs::write(&path, &fingerprints).unwrap();
    }
    let made = fs::read_to_string(&path).unwrap().replace('\r', "");
    assert_eq!(
        fingerprints, made,
        "the demo has changed since the pictures in docs were made: look at it, then run this test with \
         PICTURES=1"
    );
}
