//! A page of the application: the metrics of its sessions, in the format that Prometheus reads.
//!
//! In production, let only the monitoring reach it.

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

use super::Reply;

pub const PATH: &str = "/metrics";

/// The upper limits of the buckets for the duration of store calls, in seconds.
const SECONDS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0];

/// Installs the recorder of the process. `observer::Metrics::new` describes its metrics to it, so it
/// comes first.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    PrometheusBuilder::new()
        .set_buckets(&SECONDS)?
        .install_recorder()
}

pub fn show(recorder: &PrometheusHandle) -> Reply {
    recorder.run_upkeep();
    Reply::file(
        "text/plain; version=0.0.4; charset=utf-8",
        &recorder.render(),
    )
}
