//! One login across actix-web and axum: in one process with any backend, and in two with one key.

use std::{env, process::Command};

use crate::common::{Server, Visitor, Web, all_backends, key_of, process::Process};
use session_manager::{Key, Manager, SignedCookie};

/// Logs in and out with one cookie jar at two applications, one on each framework.
fn log_in_here_and_out_there(way: &str, here: &Visitor, there: &Visitor) {
    let both = [here, there];
    for (one, other) in [(here, there), (there, here)] {
        assert_eq!(
            one.body("/run/renew,add.user.ada,flash.welcome"),
            "done,null,null",
            "{way}"
        );
        assert_eq!(other.body("/run/get.user,flashes"), "ada,welcome", "{way}");
        assert_eq!(one.body("/run/flashes"), "", "each message once: {way}");

        for n in 1..=4 {
            assert_eq!(both[n % 2].body("/run/count.n"), n.to_string(), "{way}");
        }
        other.body("/run/renew");
        assert_eq!(one.body("/run/get.user,get.n"), "ada,4", "renewed: {way}");

        assert_eq!(other.body("/run/destroy,flash.bye"), "done,null", "{way}");
        assert_eq!(
            one.body("/run/get.user,get.n,flashes"),
            "none,none,bye",
            "{way}"
        );
        one.body("/run/destroy");
        assert_eq!([here.cookies(), there.cookies()], [0, 0], "{way}");
    }
}

#[test]
fn two_frameworks_in_one_process_share_sessions() {
    for (backend, builder) in all_backends() {
        let manager = builder().build().unwrap();
        let [actix, axum] = Web::ALL.map(|web| Server::scripts(web, manager.middleware()));
        let here = actix.visitor();
        log_in_here_and_out_there(backend, &here, &here.at(axum.address));
    }
}

/// In the environment of the process that the next test starts: which framework it serves.
const CHILD: &str = "SESSION_MANAGER_TEST_ONE_LOGIN";
const SECRET: &str = "SESSION_MANAGER_TEST_SECRET";

#[test]
fn two_processes_with_one_key_share_sessions() {
    if let Ok(web) = env::var(CHILD) {
        return serve_until_killed(&web);
    }
    let secret = "a secret that both of the processes have";
    for web in Web::ALL {
        let key = key_of(secret);
        let manager = Manager::new(SignedCookie::new(key));
        let here = Server::scripts(web, manager.middleware());

        let other = if web == Web::Actix {
            Web::Axum
        } else {
            Web::Actix
        };
        let mut child = Command::new(env::current_exe().unwrap());
        child
            .args([
                "--exact",
                "one_login::two_processes_with_one_key_share_sessions",
            ])
            .arg("--nocapture")
            .envs([(CHILD, other.name()), (SECRET, secret)]);
        let (_process, address) = Process::start(&mut child, |line| {
            Some(line.split_once("listens on ")?.1.to_owned())
        });
        let visitor = here.visitor();
        let there = visitor.at(address.parse().unwrap());
        log_in_here_and_out_there(&format!("{web} and {other}"), &visitor, &there);
    }
}

fn serve_until_killed(web: &str) {
    let web = Web::ALL.into_iter().find(|known| known.name() == web);
    let manager = Manager::new(SignedCookie::new(Key::from_env(SECRET).unwrap()));
    let server = Server::scripts(web.unwrap(), manager.middleware());
    println!("listens on {}", server.address);
    loop {
        std::thread::park();
    }
}
