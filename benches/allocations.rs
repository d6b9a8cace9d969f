//! Counts the heap allocations per request, compared with actix-session and tower-sessions.
//!
//! ```text
//! cargo bench --features axum,memory --bench allocations             prints the tables as Markdown
//! cargo bench --features axum,memory --bench allocations -- --test   checks every case once
//! ```
//!
//! The applications and requests are those of the bench `overhead`, which takes times: an allocator
//! that counts costs a crate more the more it allocates. The counts of the bare application are
//! subtracted.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench stops at the first error and prints its tables"
)]

mod common;

use std::alloc::System;

use actix_web::rt::System as Runtime;
use common::{Framework, Mounted, REQUESTS, print_table};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Returns the heap allocations of one request, and the allocated bytes.
fn serve(mounted: &Mounted<'_>, row: usize) -> [f64; 2] {
    let mut sums = [0; 2];
    mounted.serve(row, |batch| {
        let allocated = Region::new(ALLOCATOR);
        batch();
        let allocated = allocated.change();
        sums[0] += allocated.allocations + allocated.reallocations;
        sums[1] += allocated.bytes_allocated;
    });
    sums.map(|sum| sum as f64 / REQUESTS as f64)
}

fn main() {
    let runtime = Runtime::new();
    if !common::is_test() {
        println!("{}", common::machine());
    }
    for &Framework {
        rows,
        ref applications,
    } in &common::frameworks()
    {
        let mounted: Vec<_> = applications
            .iter()
            .map(|it| it.mount(rows, &runtime))
            .collect();
        if common::is_test() {
            continue;
        }
        let mut counts = [const { Vec::new() }; 2];
        for row in 0..rows.len() {
            let mut of_row = [const { Vec::new() }; 2];
            for (application, mounted) in applications.iter().zip(&mounted) {
                application.enter();
                // The first requests fill buffers that are kept.
                serve(mounted, row);
                for (of_row, count) in of_row.iter_mut().zip(serve(mounted, row)) {
                    let bare: f64 = of_row.first().copied().unwrap_or_default();
                    of_row.push(count - bare);
                }
            }
            for (counts, of_row) in counts.iter_mut().zip(of_row) {
                counts.push(of_row);
            }
        }
        print_table("Allocations per request", rows, applications, &counts[0]);
        print_table(
            "Bytes allocated per request",
            rows,
            applications,
            &counts[1],
        );
    }
}
