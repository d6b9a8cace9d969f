//! Sessions in code that outlives the response head: WebSockets, streams, tasks.

use std::{
    io::Write,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::Duration,
};

use crate::common::{
    App, Clock, Server, Socket, Talk, Web, all_backends, backends, block_on, on_every_framework,
    script::run_outside,
    server_side::{Flaky, How},
    talker, until,
};
use session_manager::{Builder, Error, Manager, MemoryStore, ServerSide, Session};
use tokio::sync::{Barrier, Notify};

/// Each message is a script, each answer what came of it.
async fn talk(session: Session, mut talk: Talk) {
    while let Some(script) = talk.hear().await {
        talk.say(run_outside(&session, &script).await);
    }
}

/// Also gives sessions to the test that it goes on with.
fn app(sessions: &mpsc::Sender<Session>) -> App {
    let sessions = sessions.clone();
    App::new()
        .socket("/socket", talker(talk))
        .events("/events/{script}", talker(talk))
        .get("/keep/{script}", move |session, script| {
            let sessions = sessions.clone();
            async move {
                let said = run_outside(&session, &script).await;
                sessions.send(session).unwrap();
                Ok(said)
            }
        })
}

fn serve(web: Web, manager: &Manager) -> Server {
    Server::start(web, app(&mpsc::channel().0).wrap(manager.middleware()))
}

/// A server, and the sessions that its requests to `/keep/…` left.
fn serve_and_keep(web: Web, manager: &Manager) -> (Server, mpsc::Receiver<Session>) {
    let (send, kept) = mpsc::channel();
    (
        Server::start(web, app(&send).wrap(manager.middleware())),
        kept,
    )
}

fn memory() -> Builder {
    Manager::builder(ServerSide::new(MemoryStore::new()))
}

fn build(builder: Builder) -> Manager {
    builder.build().unwrap()
}

fn outside(session: &Session, script: &str) -> String {
    block_on(run_outside(session, script))
}

fn a_socket_saves_and_sees_other_writes_after_revalidate(web: Web) {
    let server = serve(web, &build(memory()));
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    let request = |script: &str| server.with_cookie(&format!("/run/{script}"), &cookie).body;
    let mut socket = server.socket("/socket", &cookie);
    assert_eq!(
        socket.ask("get.user,add.n.1,count.k,pop.user"),
        "ada,null,1,ada"
    );
    assert_eq!(request("get.user,get.n"), "ada,none", "not saved yet");
    assert_eq!(socket.ask("save"), "null");
    assert_eq!(request("get.user,get.n,get.k"), "none,1,1");

    request("add.other.x,count.k");
    assert_eq!(socket.ask("add.mine.y,get.other,get.k"), "null,none,1");
    assert_eq!(
        socket.ask("revalidate,get.other,get.k,get.mine"),
        "null,x,2,y",
        "and what was not saved stays done"
    );
    assert_eq!(socket.ask("count.k,save"), "3,null");
    assert_eq!(request("get.k,get.mine,flashes"), "3,y,");
}

fn the_response_that_opens_a_socket_may_begin_a_session(web: Web) {
    let (server, kept) = serve_and_keep(web, &build(memory()));
    let cookie = server.raw("/keep/add.user.ada", &[]).cookie();
    let session = kept.recv().unwrap();
    assert_eq!(
        outside(&session, "add.n.1,save,revalidate"),
        "null,null,null"
    );
    assert_eq!(
        server.with_cookie("/run/get.user,get.n", cookie).body,
        "ada,1"
    );
}

fn a_session_ended_elsewhere_is_read_only_and_not_revived(web: Web) {
    type End = fn(&Server, &Manager, &Clock, &str) -> Option<String>;
    let ends: [(&str, End); 4] = [
        ("destroyed", |server, _, _, cookie| {
            server.with_cookie("/run/destroy", cookie);
            None
        }),
        ("renewed", |server, _, _, cookie| {
            Some(server.with_cookie("/run/renew", cookie).cookie())
        }),
        ("ended with the user's others", |_, manager, _, _| {
            assert_eq!(block_on(manager.destroy_user_sessions("ada")).unwrap(), 1);
            None
        }),
        ("over", |_, _, clock, _| {
            clock.forward(Duration::from_secs(24 * 60 * 60));
            None
        }),
    ];
    for (how, end) in ends {
        let (store, clock) = (MemoryStore::new(), Clock::default());
        let manager = Manager::builder(ServerSide::new(store.clone())).clock(clock.now());
        let manager = build(manager);
        let (send, kept) = mpsc::channel();
        let app = app(&send).get("/sign-in", async |session, _| {
            session.set_user("ada")?;
            session.add("user", "ada")?;
            Ok("in")
        });
        let server = Server::start(web, app.wrap(manager.middleware()));
        let cookie = server.raw("/sign-in", &[]).cookie();
        let mut looks = server.socket("/socket", &cookie);
        let mut saves = server.socket("/socket", &cookie);
        server.with_cookie("/keep/len", &cookie);
        let in_a_task = kept.recv().unwrap();
        assert_eq!(looks.ask("add.late.1,count.n,get.user"), "null,1,ada");
        assert_eq!(saves.ask("add.late.1,revalidate"), "null,null");

        let new = end(&server, &manager, &clock, &cookie);
        let records = store.len();
        assert_eq!(looks.ask("revalidate"), "ended", "{how}");
        assert_eq!(saves.ask("save"), "ended", "{how}");
        in_a_task.destroy();
        let saved = block_on(in_a_task.save());
        // Ending an ended session succeeds; a session renewed elsewhere is ended too.
        assert!(
            matches!(saved, Ok(()) | Err(Error::Ended)),
            "{how}: {saved:?}"
        );
        for socket in [&mut looks, &mut saves] {
            assert_eq!(
                socket.ask("len,get.user,get.late,get.n,flashes,pop.user,handle"),
                "0,none,none,none,,none,none",
                "{how}"
            );
            assert_eq!(
                socket.ask("add.x.1,count.n,flash.hi,revalidate,save"),
                "ended,ended,ended,ended,ended",
                "{how}"
            );
            assert_eq!(
                socket.ask("clear,renew,destroy,save,len"),
                "done,done,done,ended,0",
                "{how}"
            );
        }
        assert!(store.len() <= records, "no record of nobody's: {how}");
        assert_eq!(server.with_cookie("/run/len", &cookie).body, "0", "{how}");
        if let Some(new) = new {
            let read = server.with_cookie("/run/get.user,get.late", new).body;
            assert_eq!(read, "none,none", "a logout ends it under every id");
        }
    }
}

fn a_session_renewed_elsewhere_drops_writes_under_its_old_id(web: Web) {
    let server = serve(web, &build(memory()));
    let old = server.raw("/run/add.user.ada", &[]).cookie();
    let mut socket = server.socket("/socket", &old);
    let new = server.with_cookie("/run/renew", &old).cookie();
    assert_eq!(socket.ask("add.late.1,save,revalidate"), "null,ended,ended");
    let read = server.with_cookie("/run/get.user,get.late", new).body;
    assert_eq!(read, "ada,none");
}

fn a_handler_whose_session_ended_does_not_begin_another(web: Web) {
    let (manager, store) = {
        let store = MemoryStore::new();
        (Manager::new(ServerSide::new(store.clone())), store)
    };
    let of_handler = manager.clone();
    let app = App::new().get("/look", move |session: Session, _| {
        let manager = of_handler.clone();
        async move {
            session.add("mine", 1)?;
            manager.destroy_user_sessions("ada").await?;
            Ok(run_outside(&session, "revalidate,add.x.1,flash.hi,len,renew,clear").await)
        }
    });
    let app = app.get("/sign-in", async |session, _| {
        session.set_user("ada")?;
        Ok("in")
    });
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/sign-in", &[]).cookie();
    let answer = server.with_cookie("/look", &cookie);
    assert_eq!(answer.body, "ended,ended,ended,0,done,done");
    assert_eq!(
        answer.set_cookie(),
        None,
        "nor replaces the client's cookie"
    );
    assert_eq!(store.len(), 0);
}

fn every_backend_notices_that_a_session_expired(web: Web) {
    for (backend, builder) in all_backends() {
        let clock = Clock::default();
        let server = serve(web, &build(builder().clock(clock.now())));
        let cookie = server.raw("/run/add.user.ada", &[]).cookie();
        let mut socket = server.socket("/socket", &cookie);
        assert_eq!(socket.ask("revalidate,get.user"), "null,ada", "{backend}");
        clock.forward(Duration::from_secs(24 * 60 * 60));
        assert_eq!(
            socket.ask("revalidate,len,add.x.1,save"),
            "ended,0,ended,ended",
            "{backend}"
        );
    }
}

fn in_a_socket_a_cookie_session_reads_and_refuses_writes(web: Web) {
    for (backend, builder) in backends() {
        let server = serve(web, &build(builder()));
        let cookie = server.raw("/run/add.user.ada,add.n.1", &[]).cookie();
        let open = || server.socket("/socket", &cookie);
        let mut socket = open();
        assert_eq!(socket.ask("get.user,number.n,len,keys"), "ada,1,2,n+user");
        assert_eq!(
            socket.ask("add.x.1,count.n,flash.hi,popnumber.n"),
            "head sent,head sent,head sent,head sent",
            "{backend}"
        );
        assert_eq!(
            socket.ask("save,get.n"),
            "null,1",
            "who was told lost nothing"
        );
        for cannot_tell in ["pop.user", "clear", "renew", "destroy"] {
            let mut socket = open();
            socket.ask(cannot_tell);
            assert_eq!(
                socket.ask("save,get.user"),
                "head sent,ada",
                "{backend}: {cannot_tell}"
            );
        }
        server.with_cookie("/run/destroy", &cookie);
        assert_eq!(
            socket.ask("revalidate,get.user"),
            "null,ada",
            "nobody keeps what could tell of a logout: {backend}"
        );
    }
}

fn no_session_begins_after_the_response_head(web: Web) {
    for (backend, builder) in all_backends() {
        let server = serve(web, &build(builder()));
        let unknown = format!("_session={}", "A".repeat(64));
        for cookie in ["", &unknown] {
            let mut socket = server.socket("/socket", cookie);
            assert_eq!(
                socket.ask("len,add.x.1,count.n,flash.hi,revalidate,save,len"),
                "0,head sent,head sent,head sent,null,null,0",
                "{backend}"
            );
            for whole in ["clear", "renew", "destroy"] {
                let mut socket = server.socket("/socket", cookie);
                let said = socket.ask(&format!("{whole},save"));
                assert_eq!(said, "done,head sent", "{backend}");
            }
        }
    }
}

fn in_a_socket_a_stored_session_can_end_but_not_renew(web: Web) {
    let server = serve(web, &build(memory()));
    let begin = || {
        let cookie = server.raw("/run/add.user.ada,add.n.1", &[]).cookie();
        let socket = server.socket("/socket", &cookie);
        (cookie, socket)
    };
    let read = |cookie: &str| server.with_cookie("/run/get.user,get.n", cookie).body;

    let (cookie, mut socket) = begin();
    assert_eq!(socket.ask("pop.user,popnumber.n,save"), "ada,1,null");
    assert_eq!(read(&cookie), "none,none");

    let (cookie, mut socket) = begin();
    assert_eq!(socket.ask("clear,add.n.2,save"), "done,null,null");
    assert_eq!(read(&cookie), "none,2");

    let (cookie, mut socket) = begin();
    assert_eq!(socket.ask("renew,save"), "done,head sent");
    assert_eq!(read(&cookie), "ada,1");

    let (cookie, mut socket) = begin();
    let mut other = server.socket("/socket", &cookie);
    assert_eq!(socket.ask("destroy,len,add.user.eve"), "done,0,head sent");
    assert_eq!(read(&cookie), "ada,1", "not saved yet");
    assert_eq!(
        socket.ask("save,save,add.user.eve,len"),
        "null,null,head sent,0"
    );
    assert_eq!(
        socket.ask("revalidate"),
        "ended",
        "who ended it is told, too"
    );
    assert_eq!(other.ask("add.late.1,revalidate"), "null,ended");
    assert_eq!(read(&cookie), "none,none");
}

fn two_sockets_that_update_one_key_at_once_both_count(web: Web) {
    const ROUNDS: usize = 25;
    let together = Arc::new(Barrier::new(2));
    let app = App::new().socket(
        "/together",
        talker(move |session, mut talk: Talk| {
            let together = Arc::clone(&together);
            async move {
                while let Some(script) = talk.hear().await {
                    together.wait().await;
                    talk.say(run_outside(&session, &script).await);
                }
            }
        }),
    );
    let server = Server::start(web, app.wrap(build(memory()).middleware()));
    let cookie = server.raw("/run/add.n.0", &[]).cookie();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let mut socket = server.socket("/together", &cookie);
                for _ in 0..ROUNDS {
                    assert!(socket.ask("count.n,save").ends_with(",null"));
                }
            });
        }
    });
    let counted = server.with_cookie("/run/get.n", cookie).body;
    assert_eq!(counted, (2 * ROUNDS).to_string());
}

fn a_store_outage_loses_nothing_of_a_session_in_a_socket(web: Web) {
    for how in [How::Refuses, How::Hangs] {
        let store = Flaky::default();
        let backend = ServerSide::new(store.clone()).time_limit(Duration::from_millis(100));
        let server = serve(web, &Manager::new(backend));
        let cookie = server.raw("/run/add.user.ada,add.old.1", &[]).cookie();
        let mut socket = server.socket("/socket", &cookie);
        store.set(Some(how));
        assert_eq!(
            socket.ask("revalidate,get.user,add.n.1,count.k,pop.old,save"),
            "unavailable,ada,null,1,1,unavailable"
        );
        assert_eq!(
            socket.ask("get.user,get.n,count.k,get.old,save,destroy,save,len"),
            "ada,1,2,none,unavailable,done,unavailable,0"
        );
        store.set(None);
        assert_eq!(
            server.with_cookie("/run/get.user,len", &cookie).body,
            "ada,2",
            "nothing of it is there yet"
        );
        assert_eq!(socket.ask("save,revalidate"), "null,ended");
        assert_eq!(server.with_cookie("/run/len", &cookie).body, "0");

        let cookie = server.raw("/run/add.user.ada,count.k", &[]).cookie();
        let mut socket = server.socket("/socket", &cookie);
        store.set(Some(how));
        assert_eq!(socket.ask("add.n.1,count.k,save"), "null,2,unavailable");
        store.set(None);
        server.with_cookie("/run/count.k", &cookie);
        assert_eq!(socket.ask("save"), "null");
        let read = server.with_cookie("/run/get.user,get.n,get.k", &cookie);
        assert_eq!(read.body, "ada,1,3");
    }
}

fn the_next_save_stores_what_a_cancelled_save_did_not(web: Web) {
    let store = Flaky::default();
    let manager = Manager::new(ServerSide::new(store.clone()));
    let (server, kept) = serve_and_keep(web, &manager);
    let cookie = server.raw("/keep/count.k,add.old.1", &[]).cookie();
    let session = kept.recv().unwrap();
    block_on(async {
        run_outside(&session, "add.n.1,count.k,pop.old").await;
        store.set(Some(How::Hangs));
        {
            let mut saving = std::pin::pin!(session.save());
            let given_up = tokio::time::timeout(Duration::from_millis(20), &mut saving).await;
            assert!(given_up.is_err());
            // Meanwhile a clone goes on.
            assert_eq!(run_outside(&session, "count.k,count.old").await, "3,1");
        }
        store.set(None);
    });
    server.with_cookie("/run/count.k", &cookie);
    assert_eq!(outside(&session, "save"), "null");
    let read = server.with_cookie("/run/get.n,get.k,get.old", &cookie);
    assert_eq!(read.body, "1,4,1");

    block_on(async {
        session.destroy();
        store.set(Some(How::Hangs));
        let given_up = async {
            let saving = tokio::time::timeout(Duration::from_millis(20), session.save()).await;
            assert!(saving.is_err());
        };
        let back = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            store.set(None);
        };
        tokio::join!(given_up, back);
        // Ending a session sticks: it needs no other `save`.
        tokio::time::sleep(Duration::from_millis(50)).await;
    });
    assert_eq!(server.with_cookie("/run/len", &cookie).body, "0");
}

fn a_streamed_body_may_save_after_the_response_head(web: Web) {
    let server = serve(web, &build(memory()));
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    let events = |script: &str| {
        let answer = server.with_cookie(&format!("/events/{script}"), &cookie);
        assert_eq!(answer.header("content-type"), Some("text/event-stream"));
        answer.body
    };
    let said = events("revalidate,get.user,add.n.1,renew,add.m.2");
    assert!(said.contains("data: null,ada,null,done,null\n\n"), "{said}");
    assert_eq!(
        server.with_cookie("/run/len", &cookie).body,
        "1",
        "it did not say when"
    );
    let said = events("add.n.1,count.k,save");
    assert!(said.contains("data: null,1,null\n\n"), "{said}");
    assert_eq!(server.with_cookie("/run/get.n,get.k", &cookie).body, "1,1");
    assert!(events("destroy,save").contains("data: done,null\n\n"));
    assert_eq!(server.with_cookie("/run/len", &cookie).body, "0");
}

fn a_task_may_save_after_the_response_head(web: Web) {
    for (backend, builder) in all_backends() {
        let (go_on, (tell, told)) = (Arc::new(Notify::new()), mpsc::channel());
        let for_task = Arc::clone(&go_on);
        let app = App::new().get("/spawn/{script}", move |session, script| {
            let (go_on, tell) = (Arc::clone(&for_task), tell.clone());
            async move {
                tokio::spawn(async move {
                    go_on.notified().await;
                    tell.send(run_outside(&session, &script).await).unwrap();
                });
                Ok("spawned")
            }
        });
        let server = Server::start(web, app.wrap(build(builder()).middleware()));
        let cookie = server.raw("/run/add.user.ada", &[]).cookie();
        server.with_cookie("/spawn/revalidate,get.user,add.n.1,save", &cookie);
        go_on.notify_one();
        let (said, kept) = match backend {
            "memory" => ("null,ada,null,null", "1"),
            _ => ("null,ada,head sent,null", "none"),
        };
        assert_eq!(
            told.recv_timeout(Duration::from_secs(10)).unwrap(),
            said,
            "{backend}"
        );
        let read = server.with_cookie("/run/get.n", &cookie).body;
        assert_eq!(read, kept, "{backend}");
    }
}

fn after_the_response_head_an_unmigrated_session_is_read_only(web: Web) {
    for (from, old) in all_backends() {
        let old = build(old().cookie_name("old"));
        let manager = build(memory().migrate_from(old.clone()));
        let (server, kept) = serve_and_keep(web, &manager);
        let old_server = serve(web, &old);
        let cookie = old_server.raw("/run/add.user.ada", &[]).cookie();
        let open = || -> Socket { server.socket("/socket", &cookie) };

        let mut socket = open();
        assert_eq!(
            socket.ask("revalidate,get.user,add.x.1,save"),
            "null,ada,head sent,null",
            "{from}"
        );
        assert_eq!(open().ask("pop.user,save"), "ada,head sent", "{from}");

        let moved = server.with_cookie("/keep/add.n.1,save", &cookie);
        assert_eq!(moved.body, "null,null");
        let new = moved
            .all("set-cookie")
            .find(|line| line.starts_with("_session="));
        let new = new.unwrap().split(';').next().unwrap().to_owned();
        let session = kept.recv().unwrap();
        assert_eq!(
            outside(&session, "add.m.2,save,revalidate,get.user"),
            "null,null,null,ada",
            "{from}"
        );
        assert_eq!(
            server.with_cookie("/run/get.n,get.m", &new).body,
            "1,2",
            "{from}"
        );

        server.with_cookie("/run/destroy", &new);
        assert_eq!(
            outside(&session, "revalidate,len,add.x.1"),
            "ended,0,ended",
            "the old cookie brings nothing back: {from}"
        );
        let said = socket.ask("revalidate,len");
        assert_eq!(said, "ended,0", "nor does a socket with it: {from}");
    }
}

fn a_task_and_a_response_that_save_at_once_lose_no_write(web: Web) {
    let pause = Duration::from_millis(50);
    let store = Flaky::default();
    let (tell, told) = mpsc::channel();
    let later = tell.clone();
    let app = App::new()
        .get("/task-later/{script}", move |session, script| {
            let tell = later.clone();
            async move {
                let said = run_outside(&session, &script).await;
                tokio::spawn(async move {
                    tokio::time::sleep(pause).await;
                    let said = run_outside(&session, "revalidate,add.task.1,save").await;
                    tell.send(said).unwrap();
                });
                Ok(said)
            }
        })
        .get("/task-first/{script}", move |session, script| {
            let tell = tell.clone();
            async move {
                let in_task = session.clone();
                tokio::spawn(async move {
                    let said = run_outside(&in_task, "revalidate,add.task.1,renew,save").await;
                    tell.send(said).unwrap();
                });
                tokio::time::sleep(pause).await;
                Ok(run_outside(&session, &script).await)
            }
        });
    let manager = Manager::new(ServerSide::new(store.clone()));
    let server = Server::start(web, app.wrap(manager.middleware()));
    for (path, said) in [
        ("/task-later/add.handler.2,renew", "null,null,null"),
        ("/task-first/add.handler.2", "null,null,done,null"),
    ] {
        store.set(None);
        let old = server.raw("/run/add.user.ada", &[]).cookie();
        for cookie in ["", &old] {
            let before = store.len();
            store.set(Some(How::AnswersLate));
            let answer = server.with_cookie(path, cookie);
            assert_eq!(
                told.recv_timeout(Duration::from_secs(10)).unwrap(),
                said,
                "{path}"
            );
            store.set(None);
            let read = server.with_cookie("/run/get.task,get.handler", answer.cookie());
            assert_eq!(read.body, "1,2", "{path}");
            assert_eq!(
                store.len() - before,
                usize::from(cookie.is_empty()),
                "{path}"
            );
        }
    }
}

/// A client that has asked, and can go away before it is answered.
fn ask(server: &Server, path: &str, cookie: &str) -> TcpStream {
    let mut client = TcpStream::connect(server.address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nCookie: {cookie}\r\n\r\n");
    client.write_all(request.as_bytes()).unwrap();
    client
}

fn a_cancelled_handler_keeps_only_a_log_out(web: Web) {
    let (send, entered) = mpsc::channel();
    let app = App::new().get("/half/{script}", move |session, script| {
        let send = send.clone();
        async move {
            run_outside(&session, &script).await;
            let (_alive, dropped) = mpsc::channel::<()>();
            send.send((session, dropped)).unwrap();
            std::future::pending::<Result<&str, Error>>().await
        }
    });
    let store = MemoryStore::new();
    let manager = Manager::new(ServerSide::new(store.clone()));
    let server = Server::start(web, app.wrap(manager.middleware()));
    let leave = |script: &str, cookie: &str| {
        let client = ask(&server, &format!("/half/{script}"), cookie);
        let (session, dropped) = entered.recv().unwrap();
        drop(client);
        let ended = dropped.recv_timeout(Duration::from_secs(10));
        assert_eq!(ended, Err(mpsc::RecvTimeoutError::Disconnected));
        // The middleware's future goes right after its handler's.
        std::thread::sleep(Duration::from_millis(100));
        session
    };
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    drop(leave("add.half.1,pop.user,renew", &cookie));
    let read = server.with_cookie("/run/get.user,get.half", &cookie).body;
    assert_eq!(read, "ada,none");

    let session = leave("len", &cookie);
    assert_eq!(
        outside(&session, "add.n.1,save"),
        "null,null",
        "who still has it goes on"
    );
    session.renew();
    assert_eq!(
        outside(&session, "save"),
        "head sent",
        "no response has its id"
    );
    let read = server.with_cookie("/run/get.user,get.n", &cookie).body;
    assert_eq!(read, "ada,1");

    drop(leave("destroy,add.half.1", &cookie));
    until("the session ends", || {
        server.with_cookie("/run/len", &cookie).body == "0"
    });
    assert_eq!(store.len(), 0, "and no other begins");
}

fn a_log_out_completes_although_the_client_disconnects(web: Web) {
    let store = Flaky::default();
    let (in_handler, (send, entered)) = (store.clone(), mpsc::channel());
    let app = App::new().get("/out", move |session: Session, _| {
        in_handler.set(Some(How::Hangs));
        session.destroy();
        send.send(()).unwrap();
        async { Ok("out") }
    });
    let manager = Manager::new(ServerSide::new(store.clone()));
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    let client = ask(&server, "/out", &cookie);
    entered.recv().unwrap();
    // The store has been asked by then, and will not answer.
    std::thread::sleep(Duration::from_millis(100));
    store.set(None);
    assert_eq!(server.with_cookie("/run/len", &cookie).body, "1");
    drop(client);
    until("the session ends", || {
        server.with_cookie("/run/len", &cookie).body == "0"
    });
}

fn an_update_is_computed_on_the_record_as_it_is_at_the_commit(web: Web) {
    let store = Flaky::default();
    let manager = Manager::new(ServerSide::new(store.clone()));
    let (server, kept) = serve_and_keep(web, &manager);
    let begin = || {
        let cookie = server.raw("/keep/count.n", &[]).cookie();
        (kept.recv().unwrap(), cookie)
    };
    let count = |cookie: &str| server.with_cookie("/run/count.n", cookie).body;

    let (session, cookie) = begin();
    outside(&session, "count.n");
    assert_eq!(count(&cookie), "2");
    assert_eq!(outside(&session, "revalidate,save"), "null,null");
    assert_eq!(count(&cookie), "4", "revalidate, then save");
    assert_eq!(outside(&session, "count.n,save"), "3,null");
    assert_eq!(count(&cookie), "6", "and the next one");

    let (session, cookie) = begin();
    outside(&session, "add.other.1");
    store.set(Some(How::Refuses));
    assert_eq!(outside(&session, "count.n,save"), "2,unavailable");
    store.set(None);
    assert_eq!(count(&cookie), "2");
    assert_eq!(outside(&session, "revalidate,save"), "null,null");
    assert_eq!(count(&cookie), "4", "a save that failed, then revalidate");

    // What is added while a save fails was computed on what that save would have stored.
    let (session, cookie) = begin();
    outside(&session, "add.other.1");
    store.set(Some(How::Hangs));
    block_on(async {
        let saving = tokio::time::timeout(Duration::from_millis(20), session.save());
        let (saved, _) = tokio::join!(saving, run_outside(&session, "count.n"));
        assert!(saved.is_err());
    });
    store.set(None);
    assert_eq!(count(&cookie), "2");
    assert_eq!(outside(&session, "save"), "null");
    assert_eq!(count(&cookie), "4", "a save that was given up");
}

fn an_update_after_a_migration_is_computed_on_the_record(web: Web) {
    let old = build(memory().cookie_name("old"));
    let manager = build(memory().migrate_from(old.clone()));
    let (server, kept) = serve_and_keep(web, &manager);
    let old_server = serve(web, &old);
    // The versions of the new record begin at 1 again, and each request adds one.
    for others in 0..6 {
        let cookie = old_server.raw("/run/add.a.1", &[]).cookie();
        old_server.with_cookie("/run/add.a.2", &cookie);
        let moved = server.with_cookie("/keep/add.b.1", &cookie);
        let new = moved
            .all("set-cookie")
            .find(|line| line.starts_with("_session="));
        let new = new.unwrap().split(';').next().unwrap();
        let session = kept.recv().unwrap();
        for _ in 0..others {
            server.with_cookie("/run/count.n", new);
        }
        assert_eq!(outside(&session, "count.n,save"), "1,null");
        let read = server.with_cookie("/run/get.n", new).body;
        assert_eq!(read, (others + 1).to_string(), "after {others} others");
    }
}

fn an_update_during_a_revalidate_is_computed_on_its_result(web: Web) {
    let (server, kept) = serve_and_keep(web, &build(memory()));
    let cookie = server.raw("/keep/count.n", &[]).cookie();
    let session = kept.recv().unwrap();
    assert_eq!(server.with_cookie("/run/count.n", &cookie).body, "2");
    let (clone, is_first) = (session.clone(), AtomicBool::new(true));
    let counted = session.update("n", move |n: Option<i64>| {
        if is_first.swap(false, Ordering::SeqCst) {
            let clone = clone.clone();
            let revalidating = std::thread::spawn(move || outside(&clone, "revalidate"));
            assert_eq!(revalidating.join().unwrap(), "null");
        }
        n.unwrap_or(0) + 1
    });
    assert_eq!(counted.unwrap(), 3);
    assert_eq!(outside(&session, "save"), "null");
    assert_eq!(server.with_cookie("/run/get.n", &cookie).body, "3");
}

fn after_the_response_head_an_unchanged_value_is_still_written(web: Web) {
    let (server, kept) = serve_and_keep(web, &build(memory()));
    let cookie = server.raw("/keep/add.k.a", &[]).cookie();
    let session = kept.recv().unwrap();
    let request = |script: &str| server.with_cookie(&format!("/run/{script}"), &cookie).body;
    request("add.k.b");
    assert_eq!(outside(&session, "add.k.a,save"), "null,null");
    assert_eq!(request("get.k"), "a");

    request("add.new.b");
    assert_eq!(
        outside(&session, "add.new.a,pop.new,save"),
        "null,a,null",
        "a key that the snapshot does not have"
    );
    assert_eq!(request("get.new"), "none");

    let user = |session: &Session, user: &str| session.set_user(user).unwrap();
    user(&session, "ada");
    outside(&session, "save");
    server.with_cookie("/keep/len", &cookie);
    let other = kept.recv().unwrap();
    user(&other, "eve");
    outside(&other, "save");
    user(&session, "ada");
    outside(&session, "save");
    let sessions = block_on(session.manager().user_sessions("ada"));
    assert_eq!(sessions.unwrap().len(), 1, "the user");
}

fn a_cancelled_save_of_a_log_out_keeps_later_writes(web: Web) {
    let store = Flaky::default();
    let in_handler = store.clone();
    let app = App::new().get("/out", move |session: Session, _| {
        let store = in_handler.clone();
        async move {
            session.destroy();
            session.add("bye", 1)?;
            store.set(Some(How::Hangs));
            let saving = tokio::time::timeout(Duration::from_millis(20), session.save()).await;
            assert!(saving.is_err());
            store.set(None);
            while store.len() > 0 {
                tokio::task::yield_now().await;
            }
            Ok(session.get("bye").unwrap_or_default())
        }
    });
    let manager = Manager::new(ServerSide::new(store.clone()));
    let server = Server::start(web, app.wrap(manager.middleware()));
    let cookie = server.raw("/run/add.user.ada", &[]).cookie();
    let out = server.with_cookie("/out", &cookie);
    assert_eq!(out.body, "1");
    let read = server.with_cookie("/run/get.bye,get.user", out.cookie());
    assert_eq!(read.body, "1,none");
    assert_eq!(server.with_cookie("/run/len", &cookie).body, "0");
}

on_every_framework!(
    an_update_is_computed_on_the_record_as_it_is_at_the_commit,
    an_update_after_a_migration_is_computed_on_the_record,
    an_update_during_a_revalidate_is_computed_on_its_result,
    after_the_response_head_an_unchanged_value_is_still_written,
    a_cancelled_save_of_a_log_out_keeps_later_writes,
    a_socket_saves_and_sees_other_writes_after_revalidate,
    the_response_that_opens_a_socket_may_begin_a_session,
    a_session_ended_elsewhere_is_read_only_and_not_revived,
    a_session_renewed_elsewhere_drops_writes_under_its_old_id,
    a_handler_whose_session_ended_does_not_begin_another,
    every_backend_notices_that_a_session_expired,
    in_a_socket_a_cookie_session_reads_and_refuses_writes,
    no_session_begins_after_the_response_head,
    in_a_socket_a_stored_session_can_end_but_not_renew,
    two_sockets_that_update_one_key_at_once_both_count,
    a_store_outage_loses_nothing_of_a_session_in_a_socket,
    the_next_save_stores_what_a_cancelled_save_did_not,
    a_streamed_body_may_save_after_the_response_head,
    a_task_may_save_after_the_response_head,
    after_the_response_head_an_unmigrated_session_is_read_only,
    a_task_and_a_response_that_save_at_once_lose_no_write,
    a_cancelled_handler_keeps_only_a_log_out,
    a_log_out_completes_although_the_client_disconnects,
);
