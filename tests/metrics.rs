//! The observer for the crate `metrics`, as Prometheus sees it. The recorder is the process's.

mod common;

use common::{Server, Web};
use metrics_exporter_prometheus::PrometheusBuilder;
use session_manager::{Manager, MemoryStore, ServerSide, SignedCookie, observer::Metrics};

/// Returns the sum of the samples whose line has all these parts.
fn sum(text: &str, parts: &[&str]) -> f64 {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let matching = samples.filter(|line| parts.iter().all(|part| line.contains(part)));
    let value = |line: &str| -> f64 { line.rsplit(' ').next().unwrap().parse().unwrap() };
    matching.map(value).sum()
}

#[test]
fn every_metric_is_described_documented_and_shows_nothing_of_a_session() {
    let prometheus = PrometheusBuilder::new().set_buckets(&[0.001, 0.1, 10.0]);
    let handle = prometheus.unwrap().install_recorder().unwrap();
    let memory = Manager::builder(ServerSide::new(MemoryStore::new())).observe(Metrics::new());
    let memory = memory.build().unwrap();
    let cookies = Manager::builder(SignedCookie::new(common::key())).cookie_name("old");
    let cookies = cookies.observe(Metrics::new()).build().unwrap();
    let new = Manager::builder(ServerSide::new(MemoryStore::new())).cookie_name("new");
    let new = new.migrate_from(cookies.clone()).observe(Metrics::new());
    let new = new.build().unwrap();

    let mut handles = Vec::new();
    for web in Web::ALL {
        let server = Server::scripts(web, memory.middleware());
        let cookie = server
            .raw("/run/user.ada-lovelace,add.secret-key.value", &[])
            .cookie();
        server.with_cookie("/run/fill.key.2000000", &cookie);
        let cookie = server.with_cookie("/run/renew", &cookie).cookie();
        handles.push(server.with_cookie("/run/handle", &cookie).body);
        server.with_cookie("/run/destroy", &cookie);
        server.with_cookie("/run/len", &cookie);
        common::block_on(memory.destroy_user_sessions("ada-lovelace")).unwrap();
        let old = Server::scripts(web, cookies.middleware());
        let cookie = old.raw("/run/add.key.value", &[]).cookie();
        let moved = Server::scripts(web, new.middleware());
        moved.with_cookie("/run/add.key.other", &cookie);
    }

    let text = handle.render();
    let twice = Web::ALL.len() as f64;
    let memory = "backend=\"memory\",cookie=\"_session\"";
    assert_eq!(
        sum(&text, &["session_created_total", memory]),
        twice,
        "{text}"
    );
    assert_eq!(sum(&text, &["session_user_set_total", memory]), twice);
    assert_eq!(sum(&text, &["session_renewed_total", memory]), twice);
    assert_eq!(sum(&text, &["session_too_large_total", memory]), twice);
    let destroyed = ["session_destroyed_total", memory, "by=\"handler\""];
    assert_eq!(sum(&text, &destroyed), twice);
    let refused = ["session_refused_total", memory, "reason=\"unknown\""];
    assert_eq!(sum(&text, &refused), twice);
    let migrated = ["session_migrated_total", "cookie=\"new\""];
    assert_eq!(sum(&text, &migrated), twice);
    let calls = |operation: &str| {
        let operation = format!("operation=\"{operation}\"");
        let count = "session_store_call_seconds_count";
        sum(&text, &[count, memory, &operation, "outcome=\"done\""])
    };
    assert_eq!(calls("create"), twice);
    assert_eq!(calls("load"), 5.0 * twice);
    assert_eq!(calls("apply"), twice);
    assert_eq!(calls("destroy"), twice);
    assert_eq!(calls("ids_of"), twice);
    assert!(
        sum(&text, &["session_store_call_seconds_sum"]) > 0.0,
        "{text}"
    );
    handles.extend(["ada-lovelace", "secret-key", "value"].map(str::to_owned));
    for hidden in handles {
        assert!(!text.contains(&hidden), "{hidden}: {text}");
    }

    let page = include_str!("../docs/operations.md");
    for kind in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = kind.split_once(' ').unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        let row = format!("| `{name}` | {kind} |");
        assert!(page.contains(&row), "{row}");
    }
}
