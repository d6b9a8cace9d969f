//! Measures scaling: the throughput of two threads divided by that of one.
//!
//! ```text
//! cargo bench --features axum,memory --bench two_threads             prints the table as Markdown
//! cargo bench --features axum,memory --bench two_threads -- --test   checks every case, one round
//! ```
//!
//! Each thread has its own runtime, application and sessions, like the workers of a server; the
//! threads share the backend and its store. In each round one thread serves alone, then both at
//! once. The table shows medians over the rounds. The best possible result is 2; it needs two idle
//! cores. `overhead` measures the same applications on one thread.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench prints its table and its failures"
)]

mod common;

use std::{
    panic, process,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use actix_web::rt::System as Runtime;
use common::{Application, Framework, Mounted, REQUESTS, Row, median, print_head, print_row};

/// Per row, the duration of each round: alone, then with the other thread.
type Times = Vec<Vec<[f64; 2]>>;

fn serve(mounted: &Mounted<'_>, row: usize) -> f64 {
    let mut time = Duration::ZERO;
    mounted.serve(row, |batch| {
        let begun = Instant::now();
        batch();
        time += begun.elapsed();
    });
    time.as_secs_f64()
}

/// Runs the rounds of one of the two threads.
fn times(
    application: &Application,
    rows: &'static [Row],
    barrier: &Barrier,
    is_first: bool,
) -> Times {
    let runtime = Runtime::new();
    let mounted = application.mount(rows, &runtime);
    let round = |row| {
        barrier.wait();
        let alone = if is_first { serve(&mounted, row) } else { 0.0 };
        barrier.wait();
        [alone, serve(&mounted, row)]
    };
    let rounds = |row| (0..rounds()).map(|_| round(row)).collect();
    (0..rows.len()).map(rounds).collect()
}

/// Returns for each row the throughput of two threads divided by that of one.
fn gains(application: &Application, rows: &'static [Row]) -> Vec<f64> {
    let barrier = Barrier::new(2);
    let (first, second) = thread::scope(|scope| {
        let second = scope.spawn(|| times(application, rows, &barrier, false));
        let first = times(application, rows, &barrier, true);
        (first, second.join().expect("the second thread served"))
    });
    let rows = first.iter().zip(&second);
    rows.map(|(first, second)| {
        median(first.iter().zip(second).map(|(first, second)| {
            let [alone, with_second] = *first;
            2.0 * alone / with_second.max(second[1])
        }))
    })
    .collect()
}

fn rounds() -> usize {
    if common::is_test() { 1 } else { 15 }
}

fn main() {
    // If a thread fails, the other must not wait for it.
    panic::set_hook(Box::new(|failure| {
        eprintln!("{failure}");
        process::exit(101);
    }));
    println!(
        "{}; {} rounds of {REQUESTS} requests.",
        common::machine(),
        rounds()
    );
    for Framework { rows, applications } in common::frameworks() {
        let gains: Vec<_> = applications.iter().map(|it| gains(it, rows)).collect();
        let mut head = vec!["Throughput of two threads / of one"];
        head.extend(applications.iter().map(|it| it.name));
        print_head(&head);
        for (i, row) in rows.iter().enumerate() {
            let mut cells = vec![row.name.to_owned()];
            cells.extend(gains.iter().map(|gains| format!("{:.2}", gains[i])));
            print_row(&cells);
        }
    }
}
