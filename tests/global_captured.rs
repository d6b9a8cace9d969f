//! A library that asked for the manager too early, as qor/admin does, and kept it.

mod common;

use std::sync::Arc;

use common::{App, Server, Web};
use session_manager::{Key, Manager, SignedCookie, manager};

#[test]
fn a_manager_obtained_before_set_uses_the_mounted_session() {
    // Everything that the library does goes through the manager that it kept.
    let library = manager::get();
    let secret = Key::generate();
    manager::set(Manager::new(SignedCookie::new(secret.clone())));
    let same_key = Manager::new(SignedCookie::new(secret));
    // In one test, because `set` is once for the process.
    for web in Web::ALL {
        let (signs_in, knows) = (Arc::clone(&library), Arc::clone(&library));
        let app = App::new()
            .get_request("/sign-in", move |request, _| {
                let library = Arc::clone(&signs_in);
                async move {
                    library.add(&request, "user", "ada")?;
                    Ok(manager::get().get(&request, "user")?.unwrap_or_default())
                }
            })
            .get_request("/user", move |request, _| {
                let user = knows.get(&request, "user");
                async { Ok(user?.unwrap_or_default()) }
            });
        let server = Server::start(web, app.wrap(manager::middleware()));
        let signed_in = server.raw("/sign-in", &[]);
        assert_eq!(
            signed_in.body, "ada",
            "{web}: the application sees what the library wrote"
        );
        let read = server.with_cookie("/user", signed_in.cookie());
        assert_eq!(read.body, "ada", "{web}");

        let check = Server::scripts(web, same_key.middleware());
        let read = check.with_cookie("/run/get.user", signed_in.cookie());
        assert_eq!(
            read.body, "ada",
            "{web}: it was signed with the application's key"
        );
    }
}
