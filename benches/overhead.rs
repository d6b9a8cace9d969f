//! Measures the cost of sessions per request, compared with actix-session and tower-sessions in one
//! run.
//!
//! ```text
//! cargo bench --features axum,memory --bench overhead             prints the tables as Markdown
//! cargo bench --features axum,memory --bench overhead -- --test   checks every case once
//! with actix-session,tower-sessions among the features            measures the layers for their crates too
//! benches/instructions.sh                                         counts instructions, on a busy machine
//! ```
//!
//! The applications of one framework serve the same requests: a bare one, and one for each backend
//! of each crate with default settings. The cost of the bare application is subtracted; the floor
//! is the cost of a middleware that does nothing. Each round serves every row of the table with all
//! applications in rotating order, so that other load affects all alike. The tables show medians
//! over the rounds.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench stops at the first error and prints its tables"
)]

mod common;

use std::{
    array,
    hint::black_box,
    time::{Duration, Instant},
};

use actix_web::rt::{System as Runtime, SystemRunner};
use arc_swap::ArcSwap;
use common::{
    Application, Framework, Mounted, REQUESTS, Row, median, name_and_value, print_head, print_row,
    print_table,
    visit::{STORED, Visitor},
};
use once_cell::sync::Lazy;
use session_manager::manager;

const ROUNDS: usize = 15;
/// The calls of `manager::get` and similar functions per round.
const CALLS: usize = 1_000_000;

/// The applications of one framework on this thread.
struct Side<'a> {
    rows: &'static [Row],
    applications: &'a [Application],
    mounted: Vec<Mounted<'a>>,
}

impl<'a> Side<'a> {
    fn new(framework: &'a Framework, runtime: &'a SystemRunner) -> Self {
        let rows = framework.rows;
        let applications = &framework.applications;
        let mounted = applications.iter().map(|it| it.mount(rows, runtime));
        Self {
            rows,
            applications,
            mounted: mounted.collect(),
        }
    }

    /// Returns the nanoseconds of one request.
    fn serve(&self, which: usize, row: usize) -> f64 {
        let mut time = Duration::ZERO;
        self.applications[which].enter();
        self.mounted[which].serve(row, |batch| {
            let begun = Instant::now();
            batch();
            time += begun.elapsed();
        });
        time.as_nanos() as f64 / REQUESTS as f64
    }

    /// Returns the cost of each application per row, less the bare one's cost for all but that one.
    fn overheads(&self) -> Vec<Vec<f64>> {
        let count = self.applications.len();
        let mut rounds = vec![vec![Vec::new(); count]; self.rows.len()];
        for round in 0..ROUNDS {
            for (row, costs) in rounds.iter_mut().enumerate() {
                let mut served = vec![0.0; count];
                for turn in 0..count {
                    let which = (round + turn) % count;
                    served[which] = self.serve(which, row);
                }
                let bare = served[0];
                costs[0].push(bare);
                for (costs, cost) in costs[1..].iter_mut().zip(&served[1..]) {
                    costs.push(cost - bare);
                }
            }
        }
        let medians = |costs: &Vec<f64>| median(costs.iter().copied());
        let rows = rounds.iter();
        rows.map(|costs| costs.iter().map(medians).collect())
            .collect()
    }

    fn print_overheads(&self) {
        print_table(
            "Nanoseconds per request",
            self.rows,
            self.applications,
            &self.overheads(),
        );
    }
}

/// Serves one batch of requests, and nothing else: what `benches/instructions.sh` counts.
#[inline(never)]
fn count_batch(batch: Box<dyn FnOnce() + '_>) {
    batch();
    // Keeps the call above from becoming a jump, which callgrind does not see the end of.
    black_box(());
}

/// Serves one row with one application; `benches/instructions.sh` reads the count at its end.
#[inline(never)]
fn count_case(mounted: &Mounted<'_>, row: usize) {
    mounted.serve(row, count_batch);
    black_box(());
}

/// Serves each row with each application, and prints which.
fn count(frameworks: &[Side<'_>]) {
    for side in frameworks {
        for (application, mounted) in side.applications.iter().zip(&side.mounted) {
            application.enter();
            for (i, row) in side.rows.iter().enumerate() {
                count_case(mounted, i);
                println!("{REQUESTS}\t{}\t{}", application.name, row.name);
            }
        }
    }
}

/// What the process-wide manager is made of, without a manager.
static PLAIN: Lazy<ArcSwap<u64>> = Lazy::new(ArcSwap::default);

/// Returns the nanoseconds per call of each way to the process-wide manager, each after its floor.
fn ways_to_the_manager(calls: usize) -> [f64; 4] {
    fn time<R>(calls: usize, call: impl Fn() -> R) -> f64 {
        let begun = Instant::now();
        for _ in 0..calls {
            black_box(call());
        }
        begun.elapsed().as_nanos() as f64 / calls as f64
    }
    [
        time(calls, || PLAIN.load()),
        time(calls, || manager::SESSION_MANAGER.load()),
        time(calls, || PLAIN.load_full()),
        time(calls, manager::get),
    ]
}

fn main() {
    let runtime = Runtime::new();
    let frameworks = common::frameworks();
    let frameworks = frameworks.each_ref().map(|it| Side::new(it, &runtime));
    if common::is_test() {
        ways_to_the_manager(1);
        println!("every case passed; nothing was measured");
        return;
    }
    if common::is_asked("--count") {
        count(&frameworks);
        return;
    }

    println!(
        "{}; {ROUNDS} rounds of {REQUESTS} requests.",
        common::machine()
    );
    frameworks.iter().for_each(Side::print_overheads);
    print_cookies(&frameworks);
    print_ways_to_the_manager();
}

fn print_cookies(frameworks: &[Side<'_>]) {
    let Visitor { user, name, visits } = STORED;
    let data = ["user", user, "name", name, "visits", &visits.to_string()].concat();
    println!("\nThe session's keys and values have {} bytes.", data.len());
    print_head(&["Bytes of", "`Set-Cookie`", "the cookie's value in it"]);
    for framework in frameworks {
        for (application, mounted) in framework.applications.iter().zip(&framework.mounted) {
            if application.has_sessions() {
                let set_cookie = mounted.sessions.iter().flatten().next().unwrap();
                let (_, value) = name_and_value(set_cookie).split_once('=').unwrap();
                print_row(&[
                    application.name.to_owned(),
                    set_cookie.len().to_string(),
                    value.len().to_string(),
                ]);
            }
        }
    }
}

fn print_ways_to_the_manager() {
    let rounds = [(); ROUNDS].map(|()| ways_to_the_manager(CALLS));
    let [load, static_load, load_full, get] =
        array::from_fn(|way| median(rounds.iter().map(|times| times[way])));
    print_head(&[
        "Nanoseconds per call",
        "a bare `ArcSwap`",
        "the manager",
        "ratio",
    ]);
    for (way, floor, time) in [
        ("`load`; `SESSION_MANAGER.load`", load, static_load),
        ("`load_full`; `manager::get`", load_full, get),
    ] {
        print_row(&[
            way.to_owned(),
            format!("{floor:.1}"),
            format!("{time:.1}"),
            format!("{:.2}", time / floor),
        ]);
    }
}
